"""Submits that the vendor answers with 429: when they are sent again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator
    from tests.integration.conftest import Clock
    from tests.support.task_runner import TaskRunner

    Generate = Callable[..., IdeogramGenerateImageOperator]

RESET_SECONDS = 20


@pytest.mark.parametrize(
    "form",
    [
        lambda reset: datetime.fromtimestamp(reset, UTC).isoformat(),
        lambda reset: datetime.fromtimestamp(reset, UTC).replace(tzinfo=None).isoformat(),
        str,
    ],
    ids=["iso", "iso_no_zone", "epoch"],
)
def test_submit_is_sent_again_within_five_seconds_of_the_reset(
    form: Callable[[float], str],
    generate: Generate,
    task_runner: TaskRunner,
    ideogram_emulator: RunningEmulator,
    clock: Clock,
) -> None:
    reset = clock() + RESET_SECONDS
    ideogram_emulator.fault("submit", "error", status=429, headers={"x-rate-limit-reset-at-utc": form(reset)})
    run = task_runner(generate())

    assert run.execute().state == "deferred"

    assert run.deferral is not None
    # One second more: the Date header, with which the reset is compared, has no fractions of seconds.
    assert reset <= run.deferral["trigger_kwargs"]["deadline"] <= clock() + RESET_SECONDS + 5 + 1
    assert ideogram_emulator.stats().accepted == 0
    clock.advance(RESET_SECONDS + 6)
    assert run.resume(run.fire()).state == "deferred"
    assert ideogram_emulator.stats().accepted == 1
