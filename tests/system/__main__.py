"""
`python -m tests.system`: run the system test, print its report, and fail if an invariant is violated.

Options are read from the command line; their defaults come from the environment, as with `make system-test IMAGES=100`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from functools import partial
from typing import Any

from dev.airflow_cluster import SCHEDULER, TRIGGERER, airflow_cluster, clean_environment
from dev.postgres_server import PostgresServer
from dev.processes import Processes, raise_on_stop_signals
from dev.run_info import run_info
from tests.system.comparison import Comparison, read_xcoms
from tests.system.experiment import Experiment
from tests.system.plan import DAG_ID, IMAGES_PER_RUN, api_faults, moments, planned_runs, slow_jobs
from tests.system.report import Triggered, publish, say, write_report
from tests.system.servers import DAGS, ROOT, start_servers
from tests.system.task_logs import TaskLogs

OUTPUT = ROOT / ".airflow-test" / "system"
RESULT = ROOT / "benchmarks" / "results" / "system-test.md"
JOB_SECONDS = 3.0
API_FAULT_RATE = 0.2
#: The share of attempts that are killed at each of the points.
KILL_RATE = 0.03
FAULTS = ("kills", "api", "s3", "components", "clears", "hour")
#: The timeout in seconds: for each task on two cores, and for the longest wait of a single task.
SECONDS_PER_TASK = 3.0
SECONDS_OF_LONGEST_WAIT = 600.0
#: Seconds for which the emulator serves status and result; in production it is an hour.
RECORD_SECONDS = 60.0


def main() -> int:
    """Run the system test and return the exit status."""
    raise_on_stop_signals()
    options = _options()
    started = time.monotonic()
    about = f"{run_info()}, `make system-test IMAGES={options.images} SEED={options.seed}`"
    shutil.rmtree(OUTPUT, ignore_errors=True)
    runs = planned_runs(options.images)
    per_run = min(options.images, IMAGES_PER_RUN)
    with Processes(OUTPUT / "servers") as processes:
        faults = [*slow_jobs(options.seed, RECORD_SECONDS)] if "hour" in options.faults else []
        faults += api_faults(options.seed, API_FAULT_RATE) if "api" in options.faults else []
        servers = start_servers(
            processes, options.seed, JOB_SECONDS, RECORD_SECONDS, faults, s3_faults="s3" in options.faults
        )
        postgres = PostgresServer(processes, clean_environment(), OUTPUT / "postgres")
        settings = servers.airflow_settings() | {
            "SYSTEM_TEST_IMAGES_PER_RUN": str(per_run),
            "SYSTEM_TEST_SEED": str(options.seed),
            "SYSTEM_TEST_KILL_RATE": str(KILL_RATE if "kills" in options.faults else 0),
            "SYSTEM_TEST_KILLS_FILE": str(OUTPUT / "kills.jsonl"),
            "AIRFLOW__CORE__PARALLELISM": "5",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url,
        }
        with airflow_cluster(OUTPUT / "airflow", DAGS, settings) as cluster:
            processor = cluster.components["dag-processor"]
            cluster.processes.wait_until(processor, lambda: cluster.api.has_dag(DAG_ID), 120)
            logs = TaskLogs(OUTPUT / "airflow")
            experiment = Experiment(cluster, logs, runs, per_run * len(runs), options.seed)
            if "components" in options.faults:
                for component, images in ((SCHEDULER, 150), (TRIGGERER, 100)):
                    count = 1 + options.images // images
                    experiment.plan_crashes(component, moments(options.seed, component.name, count))
            if "clears" in options.faults:
                experiment.plan_clears(moments(options.seed, "clears", max(4, options.images // 8)))
            timeout = SECONDS_OF_LONGEST_WAIT + SECONDS_PER_TASK * per_run * len(runs)
            instances = experiment.run(timeout, partial(say, started))
            say(started, "all tasks have ended; the results are read")
            xcoms = read_xcoms(cluster.api, instances)
            triggered, ever_stored = Triggered(_kills(), *servers.faults()), servers.ever_stored()
        planned = {run.run_id: run for run in runs}
        comparison = Comparison(
            planned, servers.requests(), servers.s3.client(), ever_stored, instances, xcoms, logs, experiment.events
        )
        verdict = comparison.run()
    report = write_report(comparison, verdict, triggered, about, time.monotonic() - started)
    return publish(report, verdict, RESULT if set(options.faults) == set(FAULTS) else None)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=int(os.environ.get("IMAGES", "1000")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED", "1")))
    parser.add_argument(
        "--faults", nargs="*", choices=FAULTS, default=FAULTS, help="the kinds of faults, by default all"
    )
    return parser.parse_args()


def _kills() -> list[dict[str, Any]]:
    file = OUTPUT / "kills.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


if __name__ == "__main__":
    sys.exit(main())
