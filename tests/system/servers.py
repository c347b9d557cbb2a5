"""The servers of the system test: S3, the proxy with S3's faults, and the emulator."""

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
#: Not the list price: a cost that is an estimate differs from the charge.
PRICE_USD = 0.0513
#: Read by `preload`, so that all processes of Airflow take the emulator's lifetime of records for the vendor's hour.
RECORD_SECONDS_VARIABLE = "SYSTEM_TEST_RECORD_SECONDS"
#: Seconds without a heartbeat after which Airflow replaces a scheduler or triggerer; under load heartbeats are late.
MISSED_AFTER_SECONDS = 15

Json = dict[str, Any]


@dataclass(frozen=True)
class Servers:
    """
    The running servers.

    :param s3: The S3 server without faults.
    :param proxy: The proxy, which adds faults.
    :param emulator: The API.
    :param record_seconds: Seconds for which the emulator serves status and result.
    """

    s3: S3Server
    proxy: S3Server
    emulator: EmulatorServer
    record_seconds: float

    def requests(self) -> list[Json]:
        """Return the requests that the emulator accepted, with their state and cost."""
        requests: list[Json] = _get(f"{self.emulator.url}/_emulator/requests")["requests"]
        return requests

    def faults(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return how often each of the API's faults was triggered, and each of S3's."""
        return self.stats()["faults"], _get(f"{self.proxy.endpoint}{COUNTS_PATH}")

    def stats(self) -> Json:
        """Return the emulator's counts of calls and faults."""
        stats: Json = _get(f"{self.emulator.url}/_emulator/stats")
        return stats

    def ever_stored(self) -> list[str]:
        """Return the request ids of all images that were ever stored."""
        stored: list[str] = _get(f"{self.proxy.endpoint}{STORED_PATH}")
        return stored

    def configure(self, **settings: Any) -> None:
        """Change settings of the emulator."""
        _post(self.emulator, "settings", settings)

    def airflow_settings(self) -> dict[str, str]:
        """Return the connections, and settings with which Airflow notices a killed component within seconds."""
        connection = json.loads(self.emulator.airflow_connection())
        connection["extra"]["timeout"] = 5
        return {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{PRELOAD}",
            "AIRFLOW_CONN_IDEOGRAM_DEFAULT": json.dumps(connection),
            "AIRFLOW_CONN_AWS_DEFAULT": self.proxy.airflow_connection(),
            RECORD_SECONDS_VARIABLE: str(self.record_seconds),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": str(MISSED_AFTER_SECONDS),
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "40",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(MISSED_AFTER_SECONDS),
        }


def start_servers(
    processes: Processes,
    seed: int,
    job_seconds: float,
    record_seconds: float,
    api_faults: Iterable[Json],
    *,
    s3_faults: bool,
) -> Servers:
    """
    Start all servers.

    :param seed: Decides which of S3's requests fail.
    :param job_seconds: How long a job takes, on average.
    :param record_seconds: Seconds for which the emulator serves status and result.
    :param api_faults: The emulator's faults.
    :param s3_faults: Whether S3 has faults.
    """
    clean = clean_environment() | {"PYTHONPATH": str(ROOT)}
    s3 = start_s3_server(processes, clean, BUCKET)
    port = free_port()
    command = [sys.executable, "-m", "tests.system.s3_proxy", "--port", str(port), "--upstream", s3.endpoint]
    command += ["--seed", str(seed), *([] if s3_faults else ["--no-faults"])]
    process = processes.start("s3-proxy", command, clean)
    processes.wait_until(process, lambda: listens(port), 60)
    emulator = start_emulator(processes, clean, job_seconds)
    settings = {"history_lag_seconds": HISTORY_LAG_SECONDS, "lifetime_seconds": record_seconds, "price": PRICE_USD}
    _post(emulator, "settings", settings)
    for fault in api_faults:
        _post(emulator, "faults", fault)
    return Servers(s3, S3Server(f"http://127.0.0.1:{port}"), emulator, record_seconds)


def _post(emulator: EmulatorServer, what: str, body: Json) -> None:
    httpx.post(f"{emulator.url}/_emulator/{what}", json=body, trust_env=False).raise_for_status()


def _get(url: str) -> Any:
    return httpx.get(url, trust_env=False, timeout=60).raise_for_status().json()
