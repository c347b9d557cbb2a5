"""
On real Airflow components (SQLite, LocalExecutor): the end-to-end time of images, and a triggerer with 1,000 triggers.

Both are compared with an operator that only defers, and with triggers that only sleep: their time is Airflow's own.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from airflow_provider_ideogram.api.calls import submit
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.hooks.client import SegmindClient
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from airflow_provider_ideogram.triggers.request import IdeogramTrigger
from benchmarks.dags.benchmark_dag import JOB_SECONDS
from dev.airflow_api import AirflowApi
from dev.airflow_cluster import AirflowCluster, airflow_cluster, clean_environment
from dev.emulator_server import EmulatorServer, start_emulator
from dev.processes import Processes
from dev.s3_server import start_s3_server

DAGS = Path(__file__).parent / "dags"
TRIGGERS = 1000
#: Long enough that all triggers run before the first job is done.
TRIGGER_JOB_SECONDS = 40.0
#: How often one image is made, alternating with one deferral.
REPEATS = 3
RUN_SECONDS = 600.0
#: Seconds for the triggerer after the last job is done.
_PATIENCE_SECONDS = 120.0
_BLOCKED = re.compile(rb"async thread was blocked for ([0-9.]+) seconds")


@dataclass(frozen=True)
class TriggererLoad:
    """
    The load of a thousand triggers on the triggerer.

    :param events: The tasks that received their event.
    :param seconds: From the first deferral to the last event.
    :param blocked: The seconds in Airflow's warnings of a blocked event loop.
    :param cpu_seconds: CPU time of the triggerer's processes.
    """

    events: int
    seconds: float
    blocked: list[float]
    cpu_seconds: float


def run_seconds(api: AirflowApi, dag_id: str) -> float:
    """Run a DAG and return how long it took."""
    run_id = api.trigger_run(dag_id)
    state = api.wait_for_run(dag_id, run_id, RUN_SECONDS)
    if state != "success":
        raise RuntimeError(f"{dag_id} has {state}")
    return api.run_seconds(dag_id, run_id)


def end_to_end(api: AirflowApi) -> dict[str, float]:
    """Return the median seconds of each DAG without its first run, which warms up."""
    took: dict[str, list[float]] = {"one_image": [], "one_deferral": []}
    for turn in range(REPEATS + 1):
        for dag_id, seconds in took.items():
            measured = run_seconds(api, dag_id)
            print(f"end to end: {dag_id}: {measured:.1f} s", flush=True)
            if turn:
                seconds.append(measured)
    medians = {dag_id: statistics.median(seconds) for dag_id, seconds in took.items()}
    for dag_id in ("many_images", "many_deferrals"):
        medians[dag_id] = run_seconds(api, dag_id)
        print(f"end to end: {dag_id}: {medians[dag_id]:.1f} s", flush=True)
    return medians


def sleeping_triggers() -> list[tuple[str, dict[str, Any]]]:
    """Return triggers of Airflow that only sleep."""
    moment = (datetime.now(UTC) + timedelta(seconds=TRIGGER_JOB_SECONDS)).isoformat()
    kwargs = {"moment": moment, "end_from_trigger": False}
    return [("airflow.providers.standard.triggers.temporal.DateTimeTrigger", kwargs)] * TRIGGERS


def job_triggers(emulator: EmulatorServer) -> list[tuple[str, dict[str, Any]]]:
    """Submit jobs and return their triggers."""
    connection = json.loads(emulator.airflow_connection())
    client = SegmindClient(ConnectionSettings(connection["password"], base_url=emulator.url))

    def trigger(number: int) -> tuple[str, dict[str, Any]]:
        now = time.time()
        request_id = client.run(submit(GenerationRequest(f"cat {number}", seed=number))).request_id
        return IdeogramTrigger(requests={request_id: now}, deadline=now + 600, ideogram_conn_id="slow").serialize()

    with ThreadPoolExecutor(8) as pool:
        triggers = list(pool.map(trigger, range(TRIGGERS)))
    client.close()
    return triggers


def measure_triggerer(cluster: AirflowCluster, make: Callable[[], list[tuple[str, dict[str, Any]]]]) -> TriggererLoad:
    """Put the triggers into the triggerer, and wait for their events."""
    run_id = cluster.api.trigger_run("many_triggers")
    triggerer = cluster.components["triggerer"]
    ready = lambda: cluster.api.count_task_instances("many_triggers", run_id, "scheduled") == TRIGGERS  # noqa: E731
    cluster.processes.wait_until(triggerer, ready, 120.0)
    log_before, cpu_before, started = triggerer.log.stat().st_size, _cpu_seconds(triggerer.pid), time.monotonic()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(make(), file)
        file.flush()
        _in_airflow(cluster.settings, "defer", run_id, file.name)
    events = 0
    while events < TRIGGERS and time.monotonic() < started + TRIGGER_JOB_SECONDS + _PATIENCE_SECONDS:
        time.sleep(5.0)  # each count is a process that imports Airflow
        events = int(_in_airflow(cluster.settings, "count", run_id))
    with triggerer.log.open("rb") as log:
        log.seek(log_before)
        blocked = [float(seconds) for seconds in _BLOCKED.findall(log.read())]
    cpu = _cpu_seconds(triggerer.pid) - cpu_before
    return TriggererLoad(events, time.monotonic() - started, blocked, cpu)


def _cpu_seconds(pid: int) -> float:
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def _in_airflow(settings: Mapping[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.concurrent_triggers", *arguments]
    environment = {**settings, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1] if done.stdout else ""


def measure(parts: set[str]) -> tuple[dict[str, float], dict[str, TriggererLoad]]:
    """Return the end-to-end seconds by DAG, and the load of each kind of triggers."""
    seconds: dict[str, float] = {}
    loads: dict[str, TriggererLoad] = {}
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder) / "servers") as processes:
        home, dags, clean = Path(folder) / "airflow", Path(folder) / "dags", clean_environment()
        dags.mkdir()
        shutil.copy(DAGS / "benchmark_dag.py", dags)
        emulator = start_emulator(processes, clean, JOB_SECONDS)
        (Path(folder) / "slow").mkdir()
        with Processes(Path(folder) / "slow") as slow:
            slow_emulator = start_emulator(slow, clean, TRIGGER_JOB_SECONDS)
            environment = {
                "AIRFLOW__TRIGGERER__CAPACITY": str(2 * TRIGGERS),
                "AIRFLOW_CONN_IDEOGRAM_DEFAULT": emulator.airflow_connection(),
                "AIRFLOW_CONN_SLOW": slow_emulator.airflow_connection(),
                "AIRFLOW_CONN_AWS_DEFAULT": start_s3_server(processes, clean, "benchmark").airflow_connection(),
            }
            with airflow_cluster(home, dags, environment) as cluster:
                processor = cluster.components["dag-processor"]
                cluster.processes.wait_until(processor, lambda: cluster.api.has_dag("many_triggers"), 60.0)
                if "end-to-end" in parts:
                    seconds = end_to_end(cluster.api)
                if "triggerer" in parts:
                    _in_airflow(cluster.settings, "pool")
                    kinds: dict[str, Callable[[], list[tuple[str, dict[str, Any]]]]] = {
                        "triggers that only sleep": sleeping_triggers,
                        "this provider's triggers": partial(job_triggers, slow_emulator),
                    }
                    for name, make in kinds.items():
                        loads[name] = measure_triggerer(cluster, make)
                        print(f"triggerer: {TRIGGERS} {name}: {loads[name]}", flush=True)
    return seconds, loads
