from __future__ import annotations

import random

import pytest

from airflow_provider_ideogram.api.circuit_breaker import OUTAGE_AFTER, CircuitBreaker
from airflow_provider_ideogram.exceptions import (
    IdeogramError,
    IdeogramNotFound,
    IdeogramRateLimited,
    IdeogramServerUnavailable,
)

AWAY = IdeogramServerUnavailable("503")


@pytest.fixture
def breaker() -> CircuitBreaker:
    return CircuitBreaker(random.Random(7))


def _fail(breaker: CircuitBreaker, now: float, error: IdeogramError = AWAY) -> None:
    breaker.on_error(breaker.generation, error, now)


def _open(breaker: CircuitBreaker) -> None:
    for _ in range(OUTAGE_AFTER):
        _fail(breaker, 0.0)


def test_breaker_is_closed_at_first(breaker: CircuitBreaker) -> None:
    assert not breaker.is_open


def test_one_rate_limit_opens_it_until_the_servers_time(breaker: CircuitBreaker) -> None:
    _fail(breaker, 100.0, IdeogramRateLimited("429", retry_after=30.0))
    assert breaker.is_open
    assert 130.25 <= breaker.retry_at <= 130.5  # with jitter: other triggerers got the same time
    breaker.on_answer(breaker.generation)
    assert not breaker.is_open


def test_rate_limit_without_a_time_opens_it_for_the_back_off(breaker: CircuitBreaker) -> None:
    _fail(breaker, 100.0, IdeogramRateLimited("429"))
    assert 100.25 <= breaker.retry_at <= 100.5


def test_few_failures_do_not_open_it(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        for _ in range(OUTAGE_AFTER - 1):
            _fail(breaker, 0.0)
        assert not breaker.is_open
        breaker.on_answer(breaker.generation)


def test_failed_probes_are_further_and_further_apart(breaker: CircuitBreaker) -> None:
    _open(breaker)
    waits, now = [], 0.0
    for _ in range(8):
        assert breaker.is_open
        waits.append(breaker.retry_at - now)
        now = breaker.retry_at
        _fail(breaker, now)
    assert waits[0] <= 0.5
    assert waits[:6] == sorted(waits[:6])
    assert 15.0 <= waits[-1] <= 30.0
    breaker.on_answer(breaker.generation)
    _fail(breaker, now)
    assert not breaker.is_open


def test_results_from_before_it_opened_are_ignored(breaker: CircuitBreaker) -> None:
    before = breaker.generation
    for _ in range(20):
        breaker.on_error(before, AWAY, 0.0)
    assert breaker.retry_at <= 0.5
    breaker.on_answer(before)
    assert breaker.is_open


def test_error_of_a_single_request_closes_it(breaker: CircuitBreaker) -> None:
    _open(breaker)
    _fail(breaker, breaker.retry_at, IdeogramNotFound("404"))
    assert not breaker.is_open
