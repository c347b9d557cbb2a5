from __future__ import annotations

import pytest

from airflow_provider_ideogram.api.cadence import LikelyEnd, likely_end, usual_end
from airflow_provider_ideogram.api.durations import JobDurations

MODEL = "ideogram-2a-txt-2-img"


def _after(*seconds: float) -> LikelyEnd:
    durations = JobDurations()
    for each in seconds:
        durations.observe(MODEL, each)
    return durations.likely_end(MODEL)


def test_the_vendors_word_holds_until_enough_jobs_were_seen() -> None:
    assert _after() == _after(*[3.0] * 9) == usual_end()
    assert _after(*[3.0] * 10) == likely_end([3.0] * 10)


@pytest.mark.parametrize("outlier", [0.0, 900.0])
def test_outliers_move_nothing(outlier: float) -> None:
    alike = likely_end([12.0] * 10)
    assert _after(*[12.0] * 9, outlier).early == alike.early
    assert _after(*[outlier] * 6, *[12.0] * 94) == likely_end([12.0] * 100)


def test_a_vendor_that_gets_slower_is_followed() -> None:
    assert _after(*[12.0] * 100, *[20.0] * 94).early == likely_end([20.0] * 100).early


def test_models_are_kept_apart_and_bounded() -> None:
    durations = JobDurations()
    for number in range(1000):
        for _ in range(200):
            durations.observe(f"model-{number}", float(number))
    assert durations.likely_end("model-999") == likely_end([999.0] * 100)
    assert durations.likely_end("model-0") == usual_end()
    assert len(durations._seen) == len(durations._learned) == 32
    assert len(durations._seen["model-999"]) == 100
