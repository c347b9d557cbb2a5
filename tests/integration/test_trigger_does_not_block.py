"""No call in the trigger blocks the triggerer's event loop, on which all triggers run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.hooks import IdeogramHook
from airflow_provider_ideogram.triggers import IdeogramTrigger

if TYPE_CHECKING:
    from airflow_provider_ideogram.emulator.running import RunningEmulator

ROOT = Path(__file__).parents[2]


def watch(*triggers: IdeogramTrigger) -> dict[str, Any]:
    """Run triggers in a new process."""
    environment = {**os.environ, "AIRFLOW_CONN_WARM_UP": '{"conn_type": "http", "extra": {}}'}
    command = [sys.executable, "-m", "tests.support.watched_trigger", json.dumps([t.serialize() for t in triggers])]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def test_no_call_blocks_the_loop(ideogram_emulator: RunningEmulator, ideogram_connection: str) -> None:
    with IdeogramHook(ideogram_connection) as hook:
        ids = [hook.submit(GenerationRequest("a lighthouse")).request_id for _ in range(3)]
    ideogram_emulator.fault("status", "error", status=503)
    ideogram_emulator.fault("status", "reset")
    now = time.time()

    report = watch(*(IdeogramTrigger(requests={each: now}, deadline=now + 60, poll_interval=0.1) for each in ids))

    outcomes = [report["outcome"] for event in report["events"] for report in event["requests"].values()]
    assert outcomes == ["completed"] * 3
    assert not report["blocking"], "\n".join(report["blocking"])
