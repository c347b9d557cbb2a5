"""A request whose image file is gone: its task ends as expired, and only the next attempt pays again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.exceptions import IdeogramResultExpired

if TYPE_CHECKING:
    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from airflow_provider_ideogram.operators.image import IdeogramGenerateImageOperator
    from tests.integration.conftest import Clock
    from tests.support.task_runner import TaskRunner

EIGHT_DAYS = 8 * 86400.0


@pytest.mark.parametrize("deferrable", [True, False])
def test_retry_after_eight_days_expires_then_submits_once(
    deferrable: bool,
    generate: Callable[..., IdeogramGenerateImageOperator],
    task_runner: TaskRunner,
    ideogram_emulator: RunningEmulator,
    clock: Clock,
) -> None:
    run = task_runner(generate(retries=5))
    run.execute()
    clock.advance(EIGHT_DAYS)
    ideogram_emulator.advance(EIGHT_DAYS)
    run.operator.deferrable = deferrable

    expired = run.retry()

    assert expired.state == "up_for_retry"
    assert isinstance(expired.error, IdeogramResultExpired)
    assert ideogram_emulator.stats().accepted == 1
    result = run.retry()
    while result.state == "deferred":
        result = run.resume(run.fire())
    assert result.state == "success"
    assert ideogram_emulator.stats().accepted == 2
    assert run.xcom()["request_id"] == ideogram_emulator.requests()[1].request_id
