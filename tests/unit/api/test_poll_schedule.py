from __future__ import annotations

import random

import pytest

from airflow_provider_ideogram.api.poll_schedule import (
    EXPECTED_SECONDS,
    MAX_INTERVAL,
    MIN_FIRST_POLL,
    MIN_INTERVAL,
    JobDurations,
    PollSchedule,
    default_schedule,
    next_poll,
    poll_schedule_of,
)

RNG = random.Random(7)
EARLY = 0.85 * EXPECTED_SECONDS


def _span(draws: list[float]) -> tuple[float, float]:
    assert len(set(draws)) > 100, "no jitter"
    return min(draws), max(draws)


@pytest.mark.parametrize(
    ("age", "poll_interval", "around"),
    [
        (EARLY, None, MIN_INTERVAL),
        (20.0, None, MIN_INTERVAL),
        (100.0, None, 3.0),
        (200.0, None, 6.0),
        (3000.0, None, MAX_INTERVAL),
        (30.0, 30.0, 30.0),
        (300.0, 30.0, 30.0),
        (300.0, 0.5, 0.5),
    ],
)
def test_next_poll_follows_the_jobs_age_or_the_users_interval(
    age: float, poll_interval: float | None, around: float
) -> None:
    low, high = _span([next_poll(age, default_schedule(), RNG, poll_interval) for _ in range(500)])
    assert 0.84 * around <= low < 0.9 * around
    assert 1.1 * around < high <= 1.16 * around


@pytest.mark.parametrize(
    ("age", "poll_interval", "first", "spread"),
    [
        (0.0, None, EARLY, MIN_INTERVAL),
        (4.0, None, EARLY - 4.0, MIN_INTERVAL),
        (-5.0, None, EARLY + 5.0, MIN_INTERVAL),
        (0.0, 30.0, 30.0, 4.5),
        (0.0, 0.5, MIN_FIRST_POLL, 0.075),
    ],
)
def test_first_poll_is_never_early(age: float, poll_interval: float | None, first: float, spread: float) -> None:
    low, high = _span([next_poll(age, default_schedule(), RNG, poll_interval) for _ in range(500)])
    assert first <= low < first + 0.1 * spread
    assert first + 0.9 * spread < high <= first + spread


def _seen(spread: float) -> PollSchedule:
    rng = random.Random(7)
    return poll_schedule_of(rng.gauss(12.0, spread) for _ in range(100))


def test_most_jobs_end_between_the_first_poll_and_the_last_span() -> None:
    rng, end = random.Random(8), _seen(2.0)
    later = [rng.gauss(12.0, 2.0) for _ in range(1000)]
    assert 0.7 < sum(end.early < each < end.spans[-1].until for each in later) / 1000 < 0.95


def test_polls_are_denser_where_an_end_is_likelier() -> None:
    first, middle, last = _seen(2.0).spans
    assert first.until < middle.until < last.until
    assert first.interval > middle.interval > last.interval
    assert 0.5 * MIN_INTERVAL < last.interval < first.interval < 1.5 * MIN_INTERVAL


def test_jobs_of_one_duration_are_polled_around_it() -> None:
    end = poll_schedule_of([12.0] * 10)
    assert end.early < 12.0 < end.early + end.spans[0].interval
    assert end.interval(12.0) == MIN_INTERVAL


def test_single_outlier_changes_the_last_span_only() -> None:
    one_is_slow = poll_schedule_of([*[12.0 + number / 10 for number in range(99)], 900.0])
    assert one_is_slow.spans[-1].until < 22.0


MODEL = "ideogram-2a-txt-2-img"


def _after(*seconds: float) -> PollSchedule:
    durations = JobDurations()
    for each in seconds:
        durations.observe(MODEL, each)
    return durations.schedule(MODEL)


def test_default_schedule_holds_until_ten_jobs_were_observed() -> None:
    assert _after() == _after(*[3.0] * 9) == default_schedule()
    assert _after(*[3.0] * 10) == poll_schedule_of([3.0] * 10)


@pytest.mark.parametrize("outlier", [0.0, 900.0])
def test_outliers_change_nothing(outlier: float) -> None:
    same = poll_schedule_of([12.0] * 10)
    assert _after(*[12.0] * 9, outlier).early == same.early
    assert _after(*[outlier] * 6, *[12.0] * 94) == poll_schedule_of([12.0] * 100)


def test_schedule_follows_slower_jobs() -> None:
    assert _after(*[12.0] * 100, *[20.0] * 94).early == poll_schedule_of([20.0] * 100).early


@pytest.mark.slow
def test_models_are_separate_and_bounded() -> None:
    durations = JobDurations()
    for number in range(1000):
        for _ in range(200):
            durations.observe(f"model-{number}", float(number))
    assert durations.schedule("model-999") == poll_schedule_of([999.0] * 100)
    assert durations.schedule("model-0") == default_schedule()
    assert len(durations._observed) == len(durations._schedules) == 32
    assert len(durations._observed["model-999"]) == 100
