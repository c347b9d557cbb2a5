from __future__ import annotations

import pytest

from airflow_provider_ideogram.api.poll_schedule import JobDurations, PollSchedule, default_schedule, poll_schedule_of

MODEL = "ideogram-2a-txt-2-img"


def _after(*seconds: float) -> PollSchedule:
    durations = JobDurations()
    for each in seconds:
        durations.observe(MODEL, each)
    return durations.poll_schedule_of(MODEL)


def test_the_vendors_word_holds_until_enough_jobs_were_seen() -> None:
    assert _after() == _after(*[3.0] * 9) == default_schedule()
    assert _after(*[3.0] * 10) == poll_schedule_of([3.0] * 10)


@pytest.mark.parametrize("outlier", [0.0, 900.0])
def test_outliers_move_nothing(outlier: float) -> None:
    alike = poll_schedule_of([12.0] * 10)
    assert _after(*[12.0] * 9, outlier).early == alike.early
    assert _after(*[outlier] * 6, *[12.0] * 94) == poll_schedule_of([12.0] * 100)


def test_a_vendor_that_gets_slower_is_followed() -> None:
    assert _after(*[12.0] * 100, *[20.0] * 94).early == poll_schedule_of([20.0] * 100).early


def test_models_are_kept_apart_and_bounded() -> None:
    durations = JobDurations()
    for number in range(1000):
        for _ in range(200):
            durations.observe(f"model-{number}", float(number))
    assert durations.poll_schedule_of("model-999") == poll_schedule_of([999.0] * 100)
    assert durations.poll_schedule_of("model-0") == default_schedule()
    assert len(durations._seen) == len(durations._learned) == 32
    assert len(durations._seen["model-999"]) == 100
