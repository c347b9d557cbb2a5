"""
`python -m tests.system.distributed`: the system test on a distributed Airflow whose machines and servers are killed.

Celery workers, Redis, PostgreSQL and two triggerers. Half of the images are made by mapped tasks, and half by a
dataset. The report shows what was done, and the results.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterable
from functools import partial

from dev.airflow_cluster import (
    API_SERVER,
    DAG_PROCESSOR,
    SCHEDULER,
    TRIGGERER,
    Component,
    airflow_cluster,
    clean_environment,
)
from dev.postgres_server import PostgresServer
from dev.processes import Processes, raise_on_stop_signals
from dev.redis_server import RedisServer
from dev.run_info import run_info
from tests.system import machine
from tests.system.account import REQUESTS_PER_MINUTE, check_account, read_recorded_spend, with_limits
from tests.system.comparison import Comparison, read_xcoms
from tests.system.experiment import Event, Experiment
from tests.system.outages import Outages
from tests.system.plan import (
    DAG_ID,
    DATASET,
    DATASET_DAG_ID,
    IMAGES_PER_RUN,
    PlannedRun,
    api_faults,
    moments,
    planned_runs,
    slow_jobs,
)
from tests.system.report import Triggered, publish, say, write_report
from tests.system.servers import DAGS, PRICE_USD, ROOT, start_servers
from tests.system.task_logs import TaskLogs

OUTPUT = ROOT / ".airflow-test" / "distributed"
RESULT = ROOT / "benchmarks" / "results" / "system-test-distributed.md"
#: Long enough that a triggerer that is killed runs some triggers.
JOB_SECONDS = 20.0
API_FAULT_RATE = 0.1
#: Task processes of a worker; the two workers share two cores.
CONCURRENCY = 3
#: The last fault, as a share of the progress: later ones might not find a running job.
LAST_MOMENT = 0.85
SECONDS_PER_TASK = 3.0
SECONDS_OF_LONGEST_WAIT = 600.0
#: Seconds for which the emulator serves status and result; in production it is an hour.
RECORD_SECONDS = 120.0


def _on_machine(name: str, *arguments: str, health: str | None = None) -> Component:
    return Component(name, arguments, health, {machine.VARIABLE: name})


WORKERS = [_on_machine(name, "celery", "worker", "--skip-serve-logs", "-H", name) for name in ("worker-1", "worker-2")]
TRIGGERERS = [
    _on_machine(name, *TRIGGERER.arguments, health=TRIGGERER.health) for name in ("triggerer-1", "triggerer-2")
]
COMPONENTS = [API_SERVER, SCHEDULER, DAG_PROCESSOR, *TRIGGERERS, *WORKERS]


def main() -> int:
    """Run the system test and return the exit status."""
    raise_on_stop_signals()
    options = _options()
    started = time.monotonic()
    about = f"{run_info()}, `make system-test-distributed IMAGES={options.images} SEED={options.seed}`"
    shutil.rmtree(OUTPUT, ignore_errors=True)
    runs = [PlannedRun(DATASET, DATASET, rows=options.rows), *planned_runs(options.images, shared_keys=False)]
    per_run = min(options.images, IMAGES_PER_RUN)
    tasks = 1 + per_run * (len(runs) - 1)
    with Processes(OUTPUT / "servers") as processes:
        faults = [
            *slow_jobs(options.seed, RECORD_SECONDS),
            *api_faults(options.seed, API_FAULT_RATE, limited_submits=2),
        ]
        servers = start_servers(processes, options.seed, JOB_SECONDS, RECORD_SECONDS, faults, s3_faults=False)
        servers.configure(rate_limit=REQUESTS_PER_MINUTE)
        postgres = PostgresServer(processes, clean_environment(), OUTPUT / "postgres")
        redis = RedisServer(processes, clean_environment(), OUTPUT / "redis")
        settings = with_limits(servers.airflow_settings(), options.images + options.rows, PRICE_USD)
        settings |= celery_settings(postgres, redis)
        settings |= {"SYSTEM_TEST_IMAGES_PER_RUN": str(per_run), "SYSTEM_TEST_ROWS": str(options.rows)}
        with airflow_cluster(OUTPUT / "airflow", DAGS, settings, COMPONENTS) as cluster:
            for dag_id in (DAG_ID, DATASET_DAG_ID):
                processor = cluster.components[DAG_PROCESSOR.name]
                cluster.processes.wait_until(processor, partial(cluster.api.has_dag, dag_id), 120)
            say(started, "all components are up")
            logs = TaskLogs(OUTPUT / "airflow")
            experiment = Experiment(cluster, logs, runs, tasks, options.seed, COMPONENTS)
            outages = Outages(cluster, postgres, redis, WORKERS, TRIGGERERS, experiment.events)
            for name, count, event in _planned(outages):
                experiment.plan(moments(options.seed, name, count, LAST_MOMENT), event)
            instances = experiment.run(SECONDS_OF_LONGEST_WAIT + SECONDS_PER_TASK * tasks, partial(say, started))
            say(started, "all tasks have ended; the results are read")
            xcoms = read_xcoms(cluster.api, instances)
        triggered, ever_stored, requests = Triggered([], *servers.faults()), servers.ever_stored(), servers.requests()
        planned = {run.run_id: run for run in runs}
        client, events = servers.s3.client(), experiment.events
        comparison = Comparison(planned, requests, client, ever_stored, instances, xcoms, logs, events)
        verdict = comparison.run()
        check_account(verdict, requests, servers.stats(), read_recorded_spend(client))
    report = write_report(comparison, verdict, triggered, about, time.monotonic() - started)
    return publish(report, verdict, RESULT)


def _options() -> argparse.Namespace:
    images = int(os.environ.get("IMAGES", "300"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=images, help="of mapped tasks")
    parser.add_argument("--rows", type=int, default=images, help="of the dataset")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED", "1")))
    return parser.parse_args()


def _planned(outages: Outages) -> Iterable[tuple[str, int, Event]]:
    """Return the faults: the name in the plan, how often, and what is done."""
    return (
        ("workers", 3, outages.lose_worker),
        ("triggerers", 3, outages.lose_triggerer),
        ("redis", 2, outages.crash_redis),
        ("postgres frozen", 1, outages.freeze_postgres),
        ("postgres", 1, outages.crash_postgres),
    )


def celery_settings(postgres: PostgresServer, redis: RedisServer, concurrency: int = CONCURRENCY) -> dict[str, str]:
    """Return Airflow's settings for the two workers, each with some task processes."""
    return {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": f"{machine.__name__}.{machine.name.__name__}",
        "AIRFLOW__CORE__PARALLELISM": str(concurrency * len(WORKERS)),
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(concurrency),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url,
        "AIRFLOW__CELERY__BROKER_URL": redis.url,
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{postgres.url}",
        "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
        # A task that a killed worker had taken from the queue stays queued for this time.
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    }


if __name__ == "__main__":
    sys.exit(main())
