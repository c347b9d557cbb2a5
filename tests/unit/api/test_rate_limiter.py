from __future__ import annotations

import heapq
import json
import math
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ideogram.api.rate_limiter import RateLimiter

START = 1_800_000_000.0
WINDOW = 60.0
#: Seconds that a slice waits for its last submits.
PATIENCE = 4.0


class Server:
    """Counts the submits of any minute, and turns away what is too much."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.accepted: list[float] = []
        self.rejected: list[float] = []

    def submit(self, at: float) -> bool:
        passes = len([one for one in self.accepted if one > at - WINDOW]) < self.limit
        (self.accepted if passes else self.rejected).append(at)
        return passes


def drive(rate_limiter: RateLimiter, server: Server, items: int, *, worth: int, wake: float, latency: float) -> float:
    """Submit items slice by slice, as a dataset's run does, and return when the last was sent."""
    now = START
    for _ in range(100_000):
        due = [at for at in rate_limiter.times(items, now) if at <= now + PATIENCE]
        answered: list[float] = []
        for at in due:
            if not server.submit(at + latency / 2):
                rate_limiter.on_sent(answered)
                rate_limiter.on_limited(at + latency, 10.0)
                break
            answered.append(at + latency)
        else:
            rate_limiter.on_sent(answered)
        rate_limiter = RateLimiter.from_json(json.loads(json.dumps(rate_limiter.to_json())))
        items -= len(answered)
        now = max(now, *(due or [now])) + latency
        if not items:
            return now
        now = max(rate_limiter.ready_at(min(worth, items), now) - PATIENCE, now + 1.0) + wake
    raise AssertionError(f"stuck with {items} items left")


@given(
    limit=st.integers(1, 400),
    minutes=st.floats(0.1, 4),
    worth=st.integers(1, 100),
    wake=st.floats(0, 30),
    latency=st.floats(0, 2),
)
def test_never_more_than_the_limit_in_any_minute_and_never_stuck(
    limit: int, minutes: float, worth: int, wake: float, latency: float
) -> None:
    server = Server(limit)
    items = max(1, int(limit * minutes))

    drive(RateLimiter.of_limit(limit, START), server, items, worth=worth, wake=wake, latency=latency)

    assert len(server.accepted) == items
    assert server.rejected == []


@pytest.mark.parametrize("limit", [50, 600])
def test_limit_is_used_to_nearly_all_of_it(limit: int) -> None:
    items = 10 * limit
    server = Server(limit)

    end = drive(RateLimiter.of_limit(limit, START), server, items, worth=limit // 5, wake=4.0, latency=0.05)

    assert end - START < 10 * WINDOW * 1.03


@pytest.mark.parametrize(("mean_delay", "rejected"), [(0.2, 0.01), (1.0, 0.03)])
def test_late_submits_hardly_lower_the_rate(mean_delay: float, rejected: float) -> None:
    """Each task takes its slot some seconds ahead, and its submit arrives late; a rejected one is repeated."""
    limit, items, delays = 50, 600, Random(1)
    rate_limiter, server = RateLimiter.of_limit(limit, START), Server(limit)
    arrivals: list[float] = []
    now, left = START, items
    while left or arrivals:
        slot = rate_limiter.times(1, now)[0] if left else math.inf
        if arrivals and arrivals[0] <= max(now, slot - PATIENCE):
            now = heapq.heappop(arrivals)
            if not server.submit(now):
                left += 1
                rate_limiter.on_limited(now, server.accepted[-limit] + WINDOW - now)
        else:
            now, left = max(now, slot - PATIENCE), left - 1
            rate_limiter.on_sent([slot])
            heapq.heappush(arrivals, max(now, slot) + delays.expovariate(1 / mean_delay))
    assert len(server.rejected) <= rejected * items
    assert items >= 0.95 * limit * (server.accepted[-1] - START) / WINDOW


def test_submits_are_spread_over_the_minute() -> None:
    server = Server(60)
    drive(RateLimiter.of_limit(60, START), server, 300, worth=12, wake=3.0, latency=0.05)

    gaps = [after - before for before, after in pairwise(server.accepted)]

    assert max(gaps) < 30


@pytest.mark.slow
@given(limit=st.integers(4, 200), wake=st.floats(0, 20), named=st.sampled_from([0, 1000]))
def test_unknown_or_wrong_limit_is_learned(limit: int, wake: float, named: int) -> None:
    server = Server(limit)
    items = limit * 5

    drive(RateLimiter.of_limit(named, START), server, items, worth=10, wake=wake, latency=0.05)

    assert len(server.accepted) == items
    assert len(server.rejected) < 25


def test_unknown_limit_starts_low_and_ramps_up() -> None:
    rate_limiter = RateLimiter.of_limit(0, START)
    bursts = []
    for second in range(4):
        due = rate_limiter.times(1000, START + second)
        assert set(due) == {START + second}
        bursts.append(len(due))
        rate_limiter.on_sent(due)

    assert bursts == [8, 16, 32, 64]
    assert rate_limiter.ready_at(1000, START + 5) == START + 5


def test_burst_that_was_not_used_up_teaches_nothing() -> None:
    rate_limiter = RateLimiter.of_limit(0, START)
    rate_limiter.on_sent([START] * 3)
    assert rate_limiter.burst == 8


def test_rejected_submits_wait_for_the_servers_time() -> None:
    rate_limiter = RateLimiter.of_limit(60, START)
    rate_limiter.on_sent([START] * 3)
    rate_limiter.on_limited(START + 1, 20)

    assert rate_limiter.times(1, START + 2)[0] >= START + 21
    assert rate_limiter.times(1, START + 100) == [START + 100]


def test_learned_rate_grows_to_the_named_limit_at_most() -> None:
    rate_limiter = RateLimiter.of_limit(60, START)
    rate_limiter.on_limited(START, 1)
    assert rate_limiter.rate == 30

    rate_limiter.times(1, START + 60)
    assert 30 < (rate_limiter.rate or 0) < 34
    rate_limiter.times(1, START + 24 * 3600)
    assert rate_limiter.rate == 60


def test_rate_recovers_from_an_overload_in_minutes() -> None:
    rate_limiter = RateLimiter.of_limit(1000, START)
    for second in range(10):
        rate_limiter.on_limited(START + second, 1)
    assert rate_limiter.rate == 4
    rates = []
    for minute in range(1, 17):
        rate_limiter.times(1, START + 10 + 60 * minute)
        rates.append(rate_limiter.rate or 0)

    assert 4 < rates[0] < 4.5
    assert rates[-2] < rates[-1] == 1000


def test_limit_below_one_a_minute_is_kept_and_not_stuck() -> None:
    rate_limiter = RateLimiter.of_limit(0.5, START)
    assert rate_limiter.times(2, START) == [START, START + 120]


def test_pause_is_made_up_for_within_bounds() -> None:
    rate_limiter = RateLimiter.of_limit(60, START)
    times = rate_limiter.times(60, START + 3600)

    assert len([at for at in times if at == START + 3600]) == 40
