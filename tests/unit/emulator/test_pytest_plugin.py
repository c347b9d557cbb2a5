"""The pytest plugin, as a user's own tests use it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

FAILING = """
import httpx

def test_fails(ideogram_emulator):
    headers = {"x-api-key": ideogram_emulator.api_key}
    client = httpx.Client(base_url=ideogram_emulator.url, headers=headers, trust_env=False)
    ideogram_emulator.fault("submit", "error", status=503)
    for model in ("ideogram-2a-txt-2-img", "ideogram-2a-txt-2-img", "ideogram-0"):
        client.post(f"/v2/{model}", json={"prompt": "a lighthouse"})
    ideogram_emulator.advance(60)
    assert False
"""


@pytest.mark.slow
def test_report_of_a_failed_test_has_what_the_emulator_counted(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(FAILING)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_own.py"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    section = done.stdout.partition("Ideogram emulator")[2]
    assert "1 requests accepted: 1 charged (0.05 USD), 0 failed, 0 running" in section
    assert "calls: submit 3" in section
    assert "faults: submit:error 1" in section
    assert "last error: POST /v2/ideogram-0: HTTP 404" in section


def _failed_task() -> Any:
    """Return a task instance that failed just now and is to be retried after an hour."""
    task = SimpleNamespace(retry_delay=timedelta(hours=1), retry_exponential_backoff=0, max_retry_delay=None)
    return SimpleNamespace(task=task, end_date=datetime.now(UTC), retry_delay_override=None)


@pytest.mark.usefixtures("ideogram_connection")
def test_retry_delay_is_not_waited_for() -> None:
    from airflow.models.taskinstance import TaskInstance

    failed = _failed_task()

    assert TaskInstance.next_retry_datetime(failed) == failed.end_date


@pytest.mark.usefixtures("ideogram_connection")
def test_interrupted_task_is_not_retried() -> None:
    from airflow.models.taskinstance import TaskInstance

    with pytest.raises(KeyboardInterrupt):  # Airflow records this one as the task's failure
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        TaskInstance.next_retry_datetime(_failed_task())
