from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ideogram.api.poll_pace import PollPace


def send(pace: PollPace, start: float, polls: int) -> float:
    """Send polls as early as the pace allows, and return the time of the last one."""
    now = start
    for _ in range(polls):
        now += pace.delay(now)
        pace.on_sent(now)
    return now


def test_without_a_limit_nothing_waits() -> None:
    assert send(PollPace(), 100.0, 1000) == 100.0


@given(limit=st.floats(1, 1000), gaps=st.lists(st.floats(0, 90), max_size=100))
def test_no_minute_has_more_than_the_limit(limit: float, gaps: list[float]) -> None:
    pace, now, sent = PollPace(), 0.0, list[float]()
    pace.configure(limit)
    for gap in gaps:
        now += gap
        now += pace.delay(now)
        pace.on_sent(now)
        sent.append(now)
    for at in sent:
        assert sum(at <= other < at + 60 - 1e-6 for other in sent) <= limit + 1


def test_429_teaches_a_rate_that_recovers() -> None:
    pace = PollPace()
    now = send(pace, 600.0, 100)
    pace.on_limited(now)
    assert pace.delay(now) == pytest.approx(60 / 90)  # 90 % of the minute's polls
    later = send(pace, now + 600, 1)
    assert pace.delay(later) == pytest.approx(60 / 90 / 1.05**10)


def test_configured_limit_is_never_exceeded_by_growth() -> None:
    pace = PollPace()
    pace.configure(30)
    pace.on_limited(send(pace, 0.0, 10))
    assert pace.delay(send(pace, 100_000.0, 1)) == 2.0


def test_rate_falls_by_half_at_most_and_has_a_lower_bound() -> None:
    pace = PollPace()
    pace.configure(60)
    now = send(pace, 0.0, 1)
    pace.on_limited(now)
    assert pace.delay(now) == 2.0  # 30 a minute
    for _ in range(9):
        pace.on_limited(now)
    assert pace.delay(now) == 3.0  # 20 a minute
    pace.configure(6)
    pace.on_limited(now)
    assert pace.delay(now) == 10.0


def test_few_polls_without_a_limit_are_not_slowed_down() -> None:
    pace = PollPace()
    now = send(pace, 0.0, 20)
    pace.on_limited(now)
    assert pace.delay(now) == 0.0


def test_changed_limit_replaces_what_was_learned() -> None:
    pace = PollPace()
    now = send(pace, 0.0, 100)
    pace.on_limited(now)
    pace.configure(60)
    assert pace.delay(now) == 1.0
