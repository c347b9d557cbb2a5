"""
Real Airflow components on this machine, which run until a `with` block ends.

The caller passes the components and their settings. The default is the smallest complete Airflow: SQLite and
LocalExecutor. The user's own Airflow is neither read nor used.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

from dev.airflow_api import Airflow2Api, AirflowApi
from dev.processes import ManagedProcess, Processes, free_port

MIGRATE_SECONDS = 180.0
HEALTHY_SECONDS = 180.0
SCRIPTS = Path(sys.executable).parent
AIRFLOW_2 = version("apache-airflow").startswith("2.")


@dataclass(frozen=True)
class Component:
    """
    One Airflow process.

    :param name: its name in messages and of its log file.
    :param arguments: the arguments of `airflow`.
    :param health: its entry in the health report, None if it has none.
    :param environment: its own settings, in addition to the cluster's.
    """

    name: str
    arguments: tuple[str, ...]
    health: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


API_SERVER = Component("api-server", ("api-server",), "metadatabase")
SCHEDULER = Component("scheduler", ("scheduler", "--skip-serve-logs"), "scheduler")
DAG_PROCESSOR = Component("dag-processor", ("dag-processor",), "dag_processor")
TRIGGERER = Component("triggerer", ("triggerer", "--skip-serve-logs"), "triggerer")
# Airflow 2's; its scheduler reads the DAG files.
WEBSERVER = Component("webserver", ("webserver",), "metadatabase")
STANDARD_COMPONENTS = (
    (WEBSERVER, SCHEDULER, TRIGGERER) if AIRFLOW_2 else (API_SERVER, SCHEDULER, DAG_PROCESSOR, TRIGGERER)
)


def clean_environment() -> dict[str, str]:
    """Return this process's environment without settings of Airflow, cloud accounts and Python."""
    unwanted = ("AIRFLOW", "AWS_", "SEGMIND_", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    environment["PATH"] = f"{SCRIPTS}{os.pathsep}{environment.get('PATH', os.defpath)}"
    # Loopback addresses are not reached through a proxy of the environment.
    direct = ",".join(filter(None, (os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1,localhost")))
    environment["NO_PROXY"] = environment["no_proxy"] = direct
    return environment


def airflow_environment(home: Path, dags_folder: Path, port: int) -> dict[str, str]:
    """Return the settings of a separate small Airflow that only this machine can reach."""
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        # Airflow 2 runs one task at a time on SQLite.
        "AIRFLOW__CORE__EXECUTOR": "SequentialExecutor" if AIRFLOW_2 else "LocalExecutor",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # SQLite allows one writer at a time; more parallel tasks would wait for each other.
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
        "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": str(port),
        "AIRFLOW__WEBSERVER__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__WEBSERVER__WORKERS": "1",
    }


@dataclass(frozen=True)
class AirflowCluster:
    """
    A running Airflow: its API and its processes by component name.

    :param settings: the environment of its processes.
    """

    api: AirflowApi
    processes: Processes
    components: dict[str, ManagedProcess]
    settings: Mapping[str, str]

    def crash(self, component: Component) -> None:
        """Kill a component's process with SIGKILL, and start it again, as a supervisor would."""
        self.components[component.name].crash()
        self.start(component)

    def lose(self, component: Component) -> None:
        """Kill a component with all its child processes, like the loss of its machine. :meth:`start` restarts it."""
        self.components[component.name].kill_session()

    def start(self, component: Component) -> None:
        """Start a component, without waiting until it is healthy."""
        command = [str(SCRIPTS / "airflow"), *component.arguments]
        settings = {**self.settings, **component.environment}
        self.components[component.name] = self.processes.start(component.name, command, settings)


@contextmanager
def airflow_cluster(
    home: Path,
    dags_folder: Path,
    environment: Mapping[str, str],
    components: Sequence[Component] = STANDARD_COMPONENTS,
) -> Iterator[AirflowCluster]:
    """
    Run Airflow until the block ends, then end all its processes.

    :param home: folder for its database, configuration and logs.
    :param dags_folder: where the DAG files are.
    :param environment: connections, variables and settings in addition to those of :func:`airflow_environment`.
    :raises ProcessFailed: a component ended or did not become healthy; the message shows the end of its log.
    """
    port = free_port()
    settings = clean_environment() | airflow_environment(home, dags_folder, port) | dict(environment)
    migrate = [str(SCRIPTS / "airflow"), "db", "migrate"]
    client = Airflow2Api if AIRFLOW_2 else AirflowApi
    with Processes(home / "components") as processes, closing(client(f"http://127.0.0.1:{port}")) as api:
        if AIRFLOW_2:  # makes every caller an administrator
            (home / "webserver_config.py").write_text('AUTH_ROLE_PUBLIC = "Admin"\n')
        processes.start("db-migrate", migrate, settings).wait(MIGRATE_SECONDS)
        cluster = AirflowCluster(api, processes, {}, settings)
        for component in components:
            cluster.start(component)
        for component in components:
            process = cluster.components[component.name]
            processes.wait_until(process, partial(is_healthy, api, component.health), HEALTHY_SECONDS)
        api.log_in()
        yield cluster


def is_healthy(api: AirflowApi, entry: str | None) -> bool:
    """Return whether an entry of Airflow's health report is healthy; a component without an entry always is."""
    if entry is None:
        return True
    report = api.health() or {}
    return bool(report.get(entry, {}).get("status") == "healthy")
