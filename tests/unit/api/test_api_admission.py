from __future__ import annotations

import random

import pytest

from airflow_provider_ideogram.api.admission import OUTAGE_AFTER, Admission
from airflow_provider_ideogram.exceptions import (
    IdeogramError,
    IdeogramNotFound,
    IdeogramRateLimited,
    IdeogramServerUnavailable,
)

AWAY = IdeogramServerUnavailable("503")
LIMIT = 20


@pytest.fixture
def admission() -> Admission:
    return Admission(LIMIT, random.Random(7))


def _fail(admission: Admission, now: float, error: IdeogramError = AWAY) -> None:
    admission.on_error(admission.round, error, now)


def test_all_may_go_while_all_is_well(admission: Admission) -> None:
    assert admission.capacity(0.0) == LIMIT


def test_one_rate_limit_holds_all_until_the_servers_time_then_lets_one_try(admission: Admission) -> None:
    _fail(admission, 100.0, IdeogramRateLimited("429", retry_after=30.0))
    assert 130.25 <= admission.opens_at <= 130.5  # other triggerers were told the same second
    assert [admission.capacity(now) for now in (100.0, 130.0, admission.opens_at)] == [0, 0, 1]
    admission.on_answer(admission.round)
    assert admission.capacity(130.6) == LIMIT


def test_rate_limit_without_a_time_holds_all_for_the_back_offs(admission: Admission) -> None:
    _fail(admission, 100.0, IdeogramRateLimited("429"))
    assert 100.25 <= admission.opens_at <= 100.5


def test_few_failures_may_be_about_a_single_job(admission: Admission) -> None:
    for _ in range(3):
        for _ in range(OUTAGE_AFTER - 1):
            _fail(admission, 0.0)
        assert admission.capacity(0.0) == LIMIT
        admission.on_answer(admission.round)


def test_outage_costs_one_probe_at_a_time_further_and_further_apart(admission: Admission) -> None:
    for _ in range(OUTAGE_AFTER):
        _fail(admission, 0.0)
    waits, now = [], 0.0
    for _ in range(8):
        assert admission.capacity(now) == 0
        waits.append(admission.opens_at - now)
        now = admission.opens_at
        assert admission.capacity(now) == 1
        _fail(admission, now)
    assert waits[0] <= 0.5
    assert waits[:6] == sorted(waits[:6])
    assert 15.0 <= waits[-1] <= 30.0
    admission.on_answer(admission.round)
    assert admission.capacity(now) == LIMIT
    _fail(admission, now)
    assert admission.capacity(now) == LIMIT


def test_what_was_sent_before_the_outage_is_no_news(admission: Admission) -> None:
    before = admission.round
    for _ in range(LIMIT):
        admission.on_error(before, AWAY, 0.0)
    assert admission.opens_at <= 0.5
    admission.on_answer(before)
    assert admission.capacity(0.0) == 0


def test_what_is_wrong_with_a_job_is_an_answer_all_the_same(admission: Admission) -> None:
    for _ in range(OUTAGE_AFTER):
        _fail(admission, 0.0)
    _fail(admission, admission.opens_at, IdeogramNotFound("404"))
    assert admission.capacity(admission.opens_at) == LIMIT
