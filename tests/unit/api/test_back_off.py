from __future__ import annotations

import random

import pytest

from airflow_provider_ideogram.api.back_off import RATE_WINDOW, back_off, submit_delay

RNG = random.Random(7)


def _range(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


@pytest.mark.parametrize(
    ("attempt", "ceiling"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (50, 30.0), (100_000, 30.0)]
)
def test_back_off_is_exponential_capped_and_jittered(attempt: int, ceiling: float) -> None:
    low, high = _range([back_off(attempt, RNG) for _ in range(500)])
    assert ceiling / 2 <= low < 0.6 * ceiling
    assert 0.9 * ceiling < high <= ceiling


@pytest.mark.parametrize(
    ("retry_after", "asked", "spread"),
    [(None, RATE_WINDOW, RATE_WINDOW / 2), (0.0, 0.0, 4.0), (4.0, 4.0, 4.0), (100.0, 100.0, 4.0)],
)
def test_submit_returns_after_the_servers_time_with_jitter(
    retry_after: float | None, asked: float, spread: float
) -> None:
    low, high = _range([submit_delay(retry_after, RNG) for _ in range(500)])
    assert asked <= low < asked + 0.2 * spread
    assert asked + 0.8 * spread < high <= asked + spread
