"""The world of a dataset's task, and slices that follow each other quickly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.api import polling
from airflow_provider_ideogram.datasets import settling, submitting, waiting
from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator
from tests.integration.datasets.world import PREFIX, ROWS, Make, World

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from tests.integration.conftest import Clock


@pytest.fixture(autouse=True)
def _short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make slices and their waits as short as suits the emulator's jobs, which take 0.2 seconds instead of 12."""
    monkeypatch.setattr(settling, "EXPECTED_SECONDS", 0.2)
    monkeypatch.setattr(polling, "_LATE_VALIDATION_SECONDS", 0.0)
    monkeypatch.setattr(waiting, "MIN_WAIT_SECONDS", 0.05)
    for module in (submitting, waiting):
        monkeypatch.setattr(module, "PACE_SECONDS", 0.2)


@pytest.fixture
def world(ideogram_emulator: RunningEmulator, clock: Clock, s3: S3Client, s3_bucket: str) -> World:
    """The emulator, a bucket and a clock."""
    return World(ideogram_emulator, clock, s3, s3_bucket)


@pytest.fixture
def make(world: World, ideogram_connection: str) -> Make:
    """Make an operator for :data:`ROWS` in the world's bucket; arguments are the operator's own."""

    def operator(**arguments: Any) -> IdeogramGenerateDatasetOperator:
        prompts = None if "prompts_path" in arguments else ROWS
        defaults: dict[str, Any] = {
            "task_id": "make",
            "prompts": prompts,
            "s3_prefix": f"s3://{world.bucket}/{PREFIX}",
            "retries": 3,
        }
        return IdeogramGenerateDatasetOperator(**defaults | arguments)

    return operator
