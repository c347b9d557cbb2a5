"""The emulator of Segmind's API as a separate process, and its charges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from airflow_provider_ideogram.emulator.running import connection_to
from airflow_provider_ideogram.emulator.settings import DEFAULT_KEY
from dev.airflow_cluster import SCRIPTS
from dev.processes import Processes, free_port, listens

READY_SECONDS = 60.0


@dataclass(frozen=True)
class EmulatorServer:
    """The address of a running emulator."""

    url: str

    def airflow_connection(self) -> str:
        """Return the JSON of an Airflow connection to it, for `AIRFLOW_CONN_IDEOGRAM_DEFAULT`."""
        return connection_to(self.url, DEFAULT_KEY)

    def image(self, request_id: str, content_type: str) -> bytes:
        """Return the image of a request."""
        return self._get(f"/images/{request_id}.{content_type.removeprefix('image/')}").content

    def charged_requests(self, prompt: str = "") -> list[str]:
        """Return the ids of the charged requests whose prompt contains a text."""
        charges = self._get("/_emulator/charges").json()["charges"]
        return [charge["request_id"] for charge in charges if prompt in charge["inputs"]["prompt"]]

    def fault(self, **fields: Any) -> None:
        """Queue a fault; the fields are those of the emulator's `Fault`."""
        httpx.post(f"{self.url}/_emulator/faults", json=fields, trust_env=False, timeout=30).raise_for_status()

    def _get(self, path: str) -> httpx.Response:
        # Loopback addresses are not reached through a proxy of the environment.
        return httpx.get(f"{self.url}{path}", trust_env=False, timeout=30).raise_for_status()


def start_emulator(processes: Processes, environment: Mapping[str, str], job_seconds: float) -> EmulatorServer:
    """
    Start the emulator.

    :param job_seconds: how long a job takes, on average.
    :raises ProcessFailed: it did not become ready.
    """
    port = free_port()
    command = [str(SCRIPTS / "ideogram-emulator"), "--port", str(port)]
    process = processes.start("emulator", [*command, "--job-seconds", str(job_seconds), "--jitter", "0.1"], environment)
    processes.wait_until(process, lambda: listens(port), READY_SECONDS)
    return EmulatorServer(f"http://127.0.0.1:{port}")
