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
LIMIT = 20


@pytest.fixture
def breaker() -> CircuitBreaker:
    return CircuitBreaker(LIMIT, random.Random(7))


def _fail(breaker: CircuitBreaker, now: float, error: IdeogramError = AWAY) -> None:
    breaker.on_error(breaker.generation, error, now)


def test_all_may_go_while_all_is_well(breaker: CircuitBreaker) -> None:
    assert breaker.capacity(0.0) == LIMIT


def test_one_rate_limit_holds_all_until_the_servers_time_then_lets_one_try(breaker: CircuitBreaker) -> None:
    _fail(breaker, 100.0, IdeogramRateLimited("429", retry_after=30.0))
    assert 130.25 <= breaker.retry_at <= 130.5  # other triggerers were told the same second
    assert [breaker.capacity(now) for now in (100.0, 130.0, breaker.retry_at)] == [0, 0, 1]
    breaker.on_answer(breaker.generation)
    assert breaker.capacity(130.6) == LIMIT


def test_rate_limit_without_a_time_holds_all_for_the_back_offs(breaker: CircuitBreaker) -> None:
    _fail(breaker, 100.0, IdeogramRateLimited("429"))
    assert 100.25 <= breaker.retry_at <= 100.5


def test_few_failures_may_be_about_a_single_job(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        for _ in range(OUTAGE_AFTER - 1):
            _fail(breaker, 0.0)
        assert breaker.capacity(0.0) == LIMIT
        breaker.on_answer(breaker.generation)


def test_outage_costs_one_probe_at_a_time_further_and_further_apart(breaker: CircuitBreaker) -> None:
    for _ in range(OUTAGE_AFTER):
        _fail(breaker, 0.0)
    waits, now = [], 0.0
    for _ in range(8):
        assert breaker.capacity(now) == 0
        waits.append(breaker.retry_at - now)
        now = breaker.retry_at
        assert breaker.capacity(now) == 1
        _fail(breaker, now)
    assert waits[0] <= 0.5
    assert waits[:6] == sorted(waits[:6])
    assert 15.0 <= waits[-1] <= 30.0
    breaker.on_answer(breaker.generation)
    assert breaker.capacity(now) == LIMIT
    _fail(breaker, now)
    assert breaker.capacity(now) == LIMIT


def test_what_was_sent_before_the_outage_is_no_news(breaker: CircuitBreaker) -> None:
    before = breaker.generation
    for _ in range(LIMIT):
        breaker.on_error(before, AWAY, 0.0)
    assert breaker.retry_at <= 0.5
    breaker.on_answer(before)
    assert breaker.capacity(0.0) == 0


def test_what_is_wrong_with_a_job_is_an_answer_all_the_same(breaker: CircuitBreaker) -> None:
    for _ in range(OUTAGE_AFTER):
        _fail(breaker, 0.0)
    _fail(breaker, breaker.retry_at, IdeogramNotFound("404"))
    assert breaker.capacity(breaker.retry_at) == LIMIT
