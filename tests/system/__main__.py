"""
`python -m tests.system`: run the system test, print its table, and fail if an invariant is broken.

Options are read from the command line, and their defaults from the environment, as `make system-test IMAGES=100`
passes them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from dev.airflow_cluster import AirflowCluster, airflow_cluster, clean_environment
from dev.emulator_server import EmulatorServer, start_emulator
from dev.postgres_server import start_postgres
from dev.processes import Processes, free_port, listens, raise_on_stop_signals
from dev.s3_server import S3Server, start_s3_server
from tests.system.books import Books
from tests.system.experiment import Experiment, key_of
from tests.system.plan import BUCKET, DAG_ID, IMAGES_PER_RUN, api_faults, planned_runs
from tests.system.report import write_report
from tests.system.s3_proxy import COUNTS_PATH, STORED_PATH
from tests.system.task_logs import TaskLogs

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / ".airflow-test" / "system"
RESULT = ROOT / "benchmarks" / "results" / "system-test.md"
DAGS = Path(__file__).parent / "dags"
PRELOAD = Path(__file__).parent / "preload"
JOB_SECONDS = 3.0
HISTORY_LAG_SECONDS = 2.0
API_FAULT_RATE = 0.2
#: The share of attempts that are killed at each of the points.
KILL_RATE = 0.03
FAULTS = ("kills", "api", "s3", "components", "clears")
#: Per task, on two cores; and what the longest wait of a single one may take.
SECONDS_PER_TASK = 3.0
SECONDS_BESIDE = 600.0


def main() -> int:
    """Run it and return the exit status."""
    raise_on_stop_signals()
    options = _options()
    started = time.monotonic()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    runs = planned_runs(options.images)
    per_run = min(options.images, IMAGES_PER_RUN)
    with Processes(OUTPUT / "servers") as processes:
        s3, proxy, emulator = _start_servers(processes, options)
        settings = _airflow_settings(emulator, proxy, per_run, options)
        settings["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = start_postgres(
            processes, clean_environment(), OUTPUT / "postgres"
        )
        with airflow_cluster(OUTPUT / "airflow", DAGS, settings) as cluster:
            processor = cluster.components["dag-processor"]
            cluster.processes.wait_until(processor, lambda: cluster.api.has_dag(DAG_ID), 120)
            logs = TaskLogs(OUTPUT / "airflow")
            experiment = Experiment(cluster, logs, runs, per_run * len(runs), options.seed)
            if "components" in options.faults:
                experiment.plan_crashes(1 + options.images // 150, 1 + options.images // 100)
            if "clears" in options.faults:
                experiment.plan_clears(max(4, options.images // 8))
            timeout = SECONDS_BESIDE + SECONDS_PER_TASK * per_run * len(runs)
            instances = experiment.run(timeout, lambda line: _say(started, line))
            _say(started, "ended; reading the books")
            xcoms = _xcoms(cluster, instances)
            api_struck = _get(f"{emulator.url}/_emulator/books")["faults"]
            s3_struck = _get(f"{proxy.endpoint}{COUNTS_PATH}")
            ever_stored = _get(f"{proxy.endpoint}{STORED_PATH}")
        charges = _get(f"{emulator.url}/_emulator/charges")["charges"]
        planned = {run.run_id: run for run in runs}
        books = Books(planned, charges, s3.client(), ever_stored, instances, xcoms, logs, experiment.diary)
        verdict = books.compare()
    command = f"make system-test IMAGES={options.images} SEED={options.seed}"
    seconds = time.monotonic() - started
    report = write_report(books, verdict, _kills(), api_struck, s3_struck, command, seconds)
    sys.stdout.write(report)
    for name, broken in verdict.violations.items():
        for one in broken:
            sys.stdout.write(f"BROKEN: {name}: {one}\n")
    if set(options.faults) == set(FAULTS):
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(report)
    return 1 if any(verdict.violations.values()) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=int(os.environ.get("IMAGES", "1000")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED", "1")))
    parser.add_argument("--faults", nargs="*", choices=FAULTS, default=FAULTS, help="what goes wrong, default all")
    return parser.parse_args()


def _start_servers(processes: Processes, options: argparse.Namespace) -> tuple[S3Server, S3Server, EmulatorServer]:
    """Start the S3 server, the proxy in front of it and the emulator, with their faults."""
    clean = clean_environment() | {"PYTHONPATH": str(ROOT)}
    s3 = start_s3_server(processes, clean, BUCKET)
    port = free_port()
    command = [sys.executable, "-m", "tests.system.s3_proxy", "--port", str(port), "--upstream", s3.endpoint]
    command += ["--seed", str(options.seed), *([] if "s3" in options.faults else ["--no-faults"])]
    process = processes.start("s3-proxy", command, clean)
    processes.wait_until(process, lambda: listens(port), 60)
    emulator = start_emulator(processes, clean, JOB_SECONDS)
    _post(emulator, "settings", {"history_lag_seconds": HISTORY_LAG_SECONDS})
    if "api" in options.faults:
        for fault in api_faults(options.seed, API_FAULT_RATE):
            _post(emulator, "faults", fault)
    return s3, S3Server(f"http://127.0.0.1:{port}"), emulator


def _airflow_settings(
    emulator: EmulatorServer, proxy: S3Server, images_per_run: int, options: argparse.Namespace
) -> dict[str, str]:
    """Return the connections, the test's own variables, and settings that notice a death within seconds."""
    connection = json.loads(emulator.airflow_connection())
    connection["extra"]["timeout"] = 5
    return {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{PRELOAD}",
        "AIRFLOW_CONN_IDEOGRAM_DEFAULT": json.dumps(connection),
        "AIRFLOW_CONN_AWS_DEFAULT": proxy.airflow_connection(),
        "SYSTEM_TEST_IMAGES_PER_RUN": str(images_per_run),
        "SYSTEM_TEST_SEED": str(options.seed),
        "SYSTEM_TEST_KILL_RATE": str(KILL_RATE if "kills" in options.faults else 0),
        "SYSTEM_TEST_KILLS_FILE": str(OUTPUT / "kills.jsonl"),
        "AIRFLOW__CORE__PARALLELISM": "5",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "40",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
    }


def _xcoms(cluster: AirflowCluster, instances: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    succeeded = [one for one in instances if one["state"] == "success"]

    def read(one: dict[str, Any]) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = cluster.api.xcom(one)
        except httpx.HTTPStatusError:
            return None
        return found

    with ThreadPoolExecutor(2) as pool:
        found = zip(succeeded, pool.map(read, succeeded), strict=True)
        return {key_of(one): xcom for one, xcom in found if xcom}


def _kills() -> list[dict[str, Any]]:
    file = OUTPUT / "kills.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _post(emulator: EmulatorServer, what: str, body: dict[str, Any]) -> None:
    httpx.post(f"{emulator.url}/_emulator/{what}", json=body, trust_env=False).raise_for_status()


def _get(url: str) -> Any:
    return httpx.get(url, trust_env=False, timeout=60).raise_for_status().json()


def _say(started: float, line: str) -> None:
    sys.stdout.write(f"{time.monotonic() - started:6.0f} s  {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
