from __future__ import annotations

import random

import pytest

from airflow_provider_ideogram.api.cadence import MIN_INTERVAL, LikelyEnd, usual_end
from airflow_provider_ideogram.api.durations import JobDurations

MODEL = "ideogram-2a-txt-2-img"


def _after(*seconds: float) -> LikelyEnd:
    durations = JobDurations()
    for each in seconds:
        durations.observe(MODEL, each)
    return durations.likely_end(MODEL)


def _around(seconds: float) -> LikelyEnd:
    return LikelyEnd(seconds - MIN_INTERVAL / 2, seconds)


def test_the_vendors_word_holds_until_enough_jobs_were_seen() -> None:
    assert _after() == _after(*[3.0] * 9) == usual_end()
    assert _after(*[3.0] * 10) == _around(3.0)


@pytest.mark.parametrize("outlier", [0.0, 900.0])
def test_outliers_move_nothing(outlier: float) -> None:
    assert _after(*[12.0] * 9, outlier) == _after(*[outlier] * 5, *[12.0] * 45) == _around(12.0)


def test_most_jobs_end_in_between() -> None:
    rng = random.Random(7)
    end = _after(*[rng.gauss(12.0, 2.0) for _ in range(50)])
    later = [rng.gauss(12.0, 2.0) for _ in range(1000)]
    assert 0.7 < sum(end.early < each < end.late for each in later) / 1000 < 0.95


def test_a_vendor_that_gets_slower_is_followed() -> None:
    assert _after(*[12.0] * 100, *[20.0] * 45).early == _around(20.0).early


def test_models_are_kept_apart_and_bounded() -> None:
    durations = JobDurations()
    for number in range(1000):
        for _ in range(100):
            durations.observe(f"model-{number}", float(number))
    assert durations.likely_end("model-999") == _around(999.0)
    assert durations.likely_end("model-0") == usual_end()
    assert len(durations._seen) == len(durations._learned) == 32
    assert len(durations._seen["model-999"]) == 50
