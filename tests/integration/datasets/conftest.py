"""Slices that follow each other quickly, and the dataset operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.api import polling
from airflow_provider_ideogram.datasets import settling, submitting, waiting
from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator
from tests.integration.datasets.results import PREFIX, ROWS, Make

if TYPE_CHECKING:
    from tests.support.world import World


@pytest.fixture(autouse=True)
def _short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make slices and their waits as short as suits the emulator's jobs, which take 0.2 seconds."""
    monkeypatch.setattr(settling, "EXPECTED_SECONDS", 0.2)
    # A job of 0.2 seconds that fails is not one whose parameters were refused.
    monkeypatch.setattr(polling, "_LATE_VALIDATION_SECONDS", 0.0)
    monkeypatch.setattr(waiting, "MIN_WAIT_SECONDS", 0.05)
    for module in (submitting, waiting):
        monkeypatch.setattr(module, "PACE_SECONDS", 0.2)


@pytest.fixture
def make(world: World, ideogram_connection: str) -> Make:
    """Make an operator for :data:`ROWS` in the test's bucket; arguments are the operator's own."""

    def operator(**arguments: Any) -> IdeogramGenerateDatasetOperator:
        if "prompts_path" not in arguments:
            arguments.setdefault("prompts", ROWS)
        defaults: dict[str, Any] = {"task_id": "make", "s3_prefix": world.uri(PREFIX), "retries": 3}
        return IdeogramGenerateDatasetOperator(**(defaults | arguments))

    return operator
