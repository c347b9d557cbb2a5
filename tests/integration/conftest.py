"""What integration tests share: a world with short waits, and tasks of the image operator in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any
from unittest import mock

import botocore.loaders
import pytest

from airflow_provider_ideogram.api import back_off, poll_schedule
from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator
from tests.support.world import KEY, PROMPT, Clock, World

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from tests.support.task_runner import TaskRun, TaskRunner
    from tests.support.world import Generate, ImageTask


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the time of Airflow's processes, which a test can move forward."""
    clock = Clock(time.time)
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
def world(ideogram_emulator: RunningEmulator, clock: Clock, s3: S3Client, s3_bucket: str) -> World:
    """Return the vendor, the time and the bucket of the test."""
    return World(ideogram_emulator, clock, s3, s3_bucket)


@pytest.fixture(scope="session", autouse=True)
def _read_aws_descriptions_once() -> Iterator[None]:
    """Let all S3 clients share what botocore reads from its files, which takes each of them a third of a second."""
    with mock.patch("botocore.session.create_loader", cache(botocore.loaders.create_loader)):
        yield


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll as often as suits the emulator's jobs, which take 0.2 seconds instead of 12."""
    for name, seconds in {
        "EXPECTED_SECONDS": 0.2,
        "MIN_FIRST_POLL": 0.05,
        "MIN_INTERVAL": 0.05,
        "_BACK_OFF_BASE": 0.02,
    }.items():
        monkeypatch.setattr(back_off if hasattr(back_off, name) else poll_schedule, name, seconds)


@pytest.fixture
def generate(ideogram_emulator: RunningEmulator, ideogram_connection: str, s3_bucket: str) -> Generate:
    """Make the operator for an image in the test's bucket; arguments are the operator's own."""

    def make(**arguments: Any) -> IdeogramGenerateImageOperator:
        defaults = {"task_id": "generate", "prompt": PROMPT, "s3_key": KEY, "s3_bucket": s3_bucket}
        return IdeogramGenerateImageOperator(**(defaults | arguments))

    return make


@pytest.fixture
def image_task(generate: Generate, task_runner: TaskRunner) -> ImageTask:
    """Make a task instance of that operator; ``run_id`` names its DAG run."""

    def make(run_id: str | None = None, **arguments: Any) -> TaskRun:
        return task_runner(generate(**arguments), **({"run_id": run_id} if run_id else {}))

    return make
