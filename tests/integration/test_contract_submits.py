"""Submits that the vendor answers with 429 or 502: when they are sent again, and what is charged."""

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

IMAGES = 30
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


def test_images_survive_a_minute_of_502_and_are_charged_once_each(
    generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator, clock: Clock
) -> None:
    """A third of the failed submits was accepted, and the history shows these half a minute later."""
    ideogram_emulator.configure(history_lag_seconds=30.0)
    ideogram_emulator.fault("submit", "error", status=502, when="after", prompt="accepted", times=None)
    ideogram_emulator.fault("submit", "error", status=502, when="before", prompt="refused", times=None)
    runs = [
        task_runner(
            generate(
                task_id=f"t{n}", s3_key=f"images/{n}.png", prompt=f"{'refused' if n % 3 else 'accepted'} lighthouse {n}"
            )
        )
        for n in range(IMAGES)
    ]
    results = [run.execute() for run in runs]
    assert {result.state for result in results} == {"deferred"}
    assert ideogram_emulator.stats().accepted == IMAGES // 3

    ideogram_emulator.clear_faults()
    for run, result in zip(runs, results, strict=True):
        while result.state == "deferred":
            assert run.deferral is not None
            if run.deferral["next_method"] == "submit_again":
                clock.advance(150.0)
                ideogram_emulator.advance(150.0)
            result = run.resume(run.fire())
        assert result.state == "success", result.log_text

    assert ideogram_emulator.stats().accepted == IMAGES
    assert len(ideogram_emulator.charges()) == IMAGES
    assert sum(run.xcom()["cost_usd"] for run in runs) == pytest.approx(IMAGES * 0.05)
