"""
What the system test runs beside Airflow: S3, the proxy that makes it fail, and the emulator; and their books.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from dev.airflow_cluster import clean_environment
from dev.emulator_server import EmulatorServer, start_emulator
from dev.processes import Processes, free_port, listens
from dev.s3_server import S3Server, start_s3_server
from tests.system.plan import BUCKET
from tests.system.s3_proxy import COUNTS_PATH, STORED_PATH

ROOT = Path(__file__).resolve().parents[2]
DAGS = Path(__file__).parent / "dags"
PRELOAD = Path(__file__).parent / "preload"
HISTORY_LAG_SECONDS = 2.0
#: When a scheduler or triggerer without a heartbeat counts as dead; under load one can be late by some seconds.
DEAD_AFTER_SECONDS = 15

Json = dict[str, Any]


@dataclass(frozen=True)
class Servers:
    """
    The running servers.

    :param s3: The S3 server, without faults.
    :param proxy: The same with its faults.
    :param emulator: The API.
    """

    s3: S3Server
    proxy: S3Server
    emulator: EmulatorServer

    def charges(self) -> list[Json]:
        """Return what the emulator charged."""
        charges: list[Json] = _get(f"{self.emulator.url}/_emulator/charges")["charges"]
        return charges

    def faults(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return how often each of the API's faults struck, and each of S3's."""
        api, s3 = _get(f"{self.emulator.url}/_emulator/stats")["faults"], _get(f"{self.proxy.endpoint}{COUNTS_PATH}")
        return api, s3

    def ever_stored(self) -> list[str]:
        """Return the request ids of all images that S3 ever took."""
        stored: list[str] = _get(f"{self.proxy.endpoint}{STORED_PATH}")
        return stored

    def airflow_settings(self) -> dict[str, str]:
        """Return the connections, and settings that notice a death within seconds."""
        connection = json.loads(self.emulator.airflow_connection())
        connection["extra"]["timeout"] = 5
        return {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{PRELOAD}",
            "AIRFLOW_CONN_IDEOGRAM_DEFAULT": json.dumps(connection),
            "AIRFLOW_CONN_AWS_DEFAULT": self.proxy.airflow_connection(),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": str(DEAD_AFTER_SECONDS),
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "40",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(DEAD_AFTER_SECONDS),
        }


def start_servers(
    processes: Processes, seed: int, job_seconds: float, api_faults: Iterable[Json], *, s3_faults: bool
) -> Servers:
    """
    Start all.

    :param seed: Decides which of S3's requests fail.
    :param job_seconds: How long a job takes, on average.
    :param api_faults: What goes wrong at the emulator.
    :param s3_faults: Whether anything goes wrong at S3.
    """
    clean = clean_environment() | {"PYTHONPATH": str(ROOT)}
    s3 = start_s3_server(processes, clean, BUCKET)
    port = free_port()
    command = [sys.executable, "-m", "tests.system.s3_proxy", "--port", str(port), "--upstream", s3.endpoint]
    command += ["--seed", str(seed), *([] if s3_faults else ["--no-faults"])]
    process = processes.start("s3-proxy", command, clean)
    processes.wait_until(process, lambda: listens(port), 60)
    emulator = start_emulator(processes, clean, job_seconds)
    _post(emulator, "settings", {"history_lag_seconds": HISTORY_LAG_SECONDS})
    for fault in api_faults:
        _post(emulator, "faults", fault)
    return Servers(s3, S3Server(f"http://127.0.0.1:{port}"), emulator)


def _post(emulator: EmulatorServer, what: str, body: Json) -> None:
    httpx.post(f"{emulator.url}/_emulator/{what}", json=body, trust_env=False).raise_for_status()


def _get(url: str) -> Any:
    return httpx.get(url, trust_env=False, timeout=60).raise_for_status().json()
