"""
Four datasets and mapped images share an account's rate limit, on a distributed Airflow: Celery and two triggerers.

`python -m benchmarks.account_distributed` runs them with a limit in the connection and, beside it, without one: then
each task learns from its own responses 429. It writes `benchmarks/results/account.md`, and takes about 40 minutes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import report
from benchmarks.dags.account_dag import DATASETS, MAPPED, MAPPED_DAG_ID, ROWS
from dev.airflow_api import AirflowApi
from dev.airflow_cluster import DAG_PROCESSOR, airflow_cluster, clean_environment
from dev.postgres_server import PostgresServer
from dev.processes import Processes
from dev.redis_server import RedisServer
from tests.system.distributed import COMPONENTS, celery_settings
from tests.system.servers import Servers, start_servers

DAG_FILE = Path(__file__).parent / "dags" / "account_dag.py"
RATE = 50
JOB_SECONDS = 12.4
RECORD_SECONDS = 3600.0
#: Task processes of a worker: the tasks mostly wait.
CONCURRENCY = 8
#: A run takes 12 minutes if the limit is used; what it has not made after this time is left out.
RUN_SECONDS = 1500.0
_REPORT_SECONDS = 30.0


@dataclass(frozen=True)
class Run:
    """
    What the emulator received.

    :param accepted: Each accepted submit: when, in seconds, and the DAG that made it.
    :param submits: All submits that arrived.
    :param rate_limited: Those that were answered 429.
    :param states: How many DAG runs ended in each state.
    """

    accepted: list[tuple[float, str]]
    submits: int
    rate_limited: int
    states: Counter[str]

    @property
    def all_wait(self) -> list[tuple[float, str]]:
        """The accepted submits until the first DAG has no work left."""
        ends = {dag: at for at, dag in self.accepted}
        return [(at, dag) for at, dag in self.accepted if at <= min(ends.values())]

    @property
    def limit_used(self) -> float:
        """The share of the limit that was used while all DAGs have work left."""
        (first, _), *_, (last, _) = self.all_wait
        return (len(self.all_wait) - 1) / (RATE * (last - first) / 60)

    @property
    def shares(self) -> dict[str, float]:
        """The submits of each DAG, relative to an equal share, while all DAGs have work left."""
        counts = Counter(dag for _, dag in self.all_wait)
        return {dag: counts[dag] * len(counts) / counts.total() for dag in sorted(counts)}


def measure(*, limited: bool, folder: Path) -> Run:
    """Run the DAGs at once, and return what the emulator received."""
    with Processes(folder / "servers") as processes:
        servers = start_servers(processes, 1, JOB_SECONDS, RECORD_SECONDS, [], s3_faults=False)
        servers.configure(rate_limit=RATE, history_lag_seconds=0)
        postgres = PostgresServer(processes, clean_environment(), folder / "postgres")
        redis = RedisServer(processes, clean_environment(), folder / "redis")
        settings = servers.airflow_settings() | celery_settings(postgres, redis, CONCURRENCY)
        if limited:
            connection = json.loads(settings["AIRFLOW_CONN_IDEOGRAM_DEFAULT"])
            connection["extra"]["requests_per_minute"] = RATE
            settings["AIRFLOW_CONN_IDEOGRAM_DEFAULT"] = json.dumps(connection)
        dags = folder / "dags"
        dags.mkdir()
        (dags / DAG_FILE.name).symlink_to(DAG_FILE)
        with airflow_cluster(folder / "airflow", dags, settings, COMPONENTS) as cluster:
            processor = cluster.components[DAG_PROCESSOR.name]
            cluster.processes.wait_until(processor, partial(cluster.api.has_dag, MAPPED_DAG_ID), 120)
            states = _run_all(cluster.api, servers)
        stats = servers.stats()
        requests = sorted((one["accepted_at"], one["inputs"]["prompt"].split()[0]) for one in servers.requests())
        return Run(requests, stats["calls"]["submit"], stats["rate_limited"], states)


def _run_all(api: AirflowApi, servers: Servers) -> Counter[str]:
    runs = {dag_id: api.trigger_run(dag_id) for dag_id in (*DATASETS, MAPPED_DAG_ID)}
    started = reported = time.monotonic()
    while time.monotonic() < started + RUN_SECONDS:
        states = Counter(api.run_states(dag_id)[run_id] for dag_id, run_id in runs.items())
        if states["success"] + states["failed"] == len(runs):
            break
        if time.monotonic() > reported + _REPORT_SECONDS:
            reported = time.monotonic()
            print(f"{reported - started:5.0f} s {servers.stats()['accepted']} accepted, {dict(states)}", flush=True)
        time.sleep(2.0)
    return states


def _row(title: str, run: Run) -> list[str]:
    datasets = [share for dag, share in run.shares.items() if dag in DATASETS]
    return [
        title,
        str(len(run.accepted)),
        f"{100 * run.rate_limited / run.submits:.1f} %",
        f"{100 * run.limit_used:.0f} %",
        f"{min(datasets):.2f} to {max(datasets):.2f}",
        f"{run.shares[MAPPED_DAG_ID]:.2f}",
        str(run.states["success"]),
    ]


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("limited", "unlimited"), help="print one of the runs, and write no page")
    only = parser.parse_args().only
    about = (
        f"{report.machine()} {len(DATASETS)} datasets of {ROWS} images and {MAPPED} mapped images at once, at {RATE} "
        f"submits a minute; a job takes {JOB_SECONDS} s. Two Celery workers with {CONCURRENCY} processes each, two "
        "triggerers, Redis, PostgreSQL. The limit used and the shares, relative to an equal one, are counted while all "
        "DAG runs have work left.\n"
    )
    head = (
        "",
        "images",
        "submits answered 429",
        "limit used",
        "shares of the datasets",
        "share of the mapped task",
        "DAG runs that succeeded",
    )
    rows = []
    for title, limited in (("requests_per_minute in the connection", True), ("each task by itself", False)):
        if only is None or limited == (only == "limited"):
            with TemporaryDirectory() as folder:
                Path(folder).chmod(0o711)  # PostgreSQL runs as the user nobody if this runs as root
                rows.append(_row(title, measure(limited=limited, folder=Path(folder))))
            print(rows[-1], flush=True)
    table = report.table(head, rows)
    if only is None:
        report.write("account", "An account's rate limit on a distributed Airflow", about, table)
    print(table)


if __name__ == "__main__":
    main()
