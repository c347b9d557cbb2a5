"""What integration tests share: the main operator against the emulator and a local S3, without long waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any
from unittest import mock

import botocore.loaders
import pytest

from airflow_provider_ideogram.api import back_off, poll_schedule
from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator

if TYPE_CHECKING:
    from airflow_provider_ideogram.emulator.running import RunningEmulator

KEY = "images/lighthouse.png"
PROMPT = "a lighthouse"


class Clock:
    """The time that ``time.time()`` tells, which a test can move forward."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ahead = 0.0

    def __call__(self) -> float:
        """Return the seconds since the epoch."""
        return self._now() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._ahead += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Workers' and triggers' time."""
    clock = Clock(time.time)
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture(scope="session", autouse=True)
def _read_aws_descriptions_once() -> Iterator[None]:
    """Let all S3 clients share what botocore reads from its files, a third of a second's work for each of them."""
    with mock.patch("botocore.session.create_loader", cache(botocore.loaders.create_loader)):
        yield


@pytest.fixture(autouse=True)
def _fast_cadence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask as often as suits the emulator's jobs, which take 0.2 seconds instead of 12."""
    for name, seconds in {
        "EXPECTED_SECONDS": 0.2,
        "MIN_FIRST_POLL": 0.05,
        "MIN_INTERVAL": 0.05,
        "_BACK_OFF_BASE": 0.02,
        "_SUBMIT_SPREAD": 0.05,
    }.items():
        monkeypatch.setattr(back_off if hasattr(back_off, name) else poll_schedule, name, seconds)


@pytest.fixture
def generate(
    ideogram_emulator: RunningEmulator, ideogram_connection: str, s3_bucket: str
) -> Callable[..., IdeogramGenerateImageOperator]:
    """Make the operator for an image in the test's bucket; arguments are the operator's own."""

    def make(**arguments: Any) -> IdeogramGenerateImageOperator:
        defaults = {"task_id": "generate", "prompt": PROMPT, "s3_key": KEY, "s3_bucket": s3_bucket}
        return IdeogramGenerateImageOperator(**(defaults | arguments))

    return make
