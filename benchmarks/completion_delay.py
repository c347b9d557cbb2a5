"""
How soon a finished job is noticed, and how many polls that costs.

Virtual time, seeded: the provider's own :class:`RequestPoll` and the vendor SDK's own `wait()` run against jobs whose
durations are drawn from named distributions. An answer takes 50 ms; it tells the state at half that time.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from unittest import mock

import httpx
import segmind.v2

from airflow_provider_ideogram.api.parsing import RequestStatus
from airflow_provider_ideogram.api.poll_schedule import JobDurations
from airflow_provider_ideogram.api.polling import RequestPoll

ANSWER_SECONDS = 0.05
#: Seconds from the submission until a triggerer has the job, as measured on real Airflow.
DEFERRAL_SECONDS = 1.6

#: Names of what job times are like, and how they are drawn.
DISTRIBUTIONS: dict[str, Callable[[random.Random], float]] = {
    "12.4 s, hardly spread": lambda rng: max(rng.gauss(12.4, 0.3), 1.0),
    "12.4 s, spread by 10 %": lambda rng: max(rng.gauss(12.4, 1.24), 1.0),
    "12.4 s, spread by 30 %": lambda rng: max(rng.gauss(12.4, 3.7), 1.0),
    "long tail (1 in 10 takes up to 2 minutes)": lambda rng: (
        rng.uniform(20.0, 120.0) if rng.random() < 0.1 else max(rng.gauss(12.4, 1.24), 1.0)
    ),
    "long tail (log-normal, p99 57 s)": lambda rng: min(12.4 * rng.lognormvariate(0.0, 0.66), 500.0),
    "a model that takes 25 s": lambda rng: max(rng.gauss(25.0, 2.5), 1.0),
    "a model that takes 4 s": lambda rng: max(rng.gauss(4.0, 0.4), 1.0),
}


@dataclass(frozen=True)
class Noticed:
    """
    One job, noticed.

    :param delay: Seconds from its end to the answer that tells of it.
    :param polls: How many it took.
    """

    delay: float
    polls: int


class Clock:
    """A clock that goes on where somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def ours(durations: Iterator[float], rng: random.Random) -> Iterator[Noticed]:
    """Poll each job as the trigger does; what is learned of one is used for the next."""
    learned = JobDurations()
    for seconds in durations:
        poll, now = RequestPoll("r-1", 0.0, durations=learned), DEFERRAL_SECONDS
        while not poll.settled:
            now += poll.delay(now, rng) + ANSWER_SECONDS
            done = now - ANSWER_SECONDS / 2 >= seconds
            poll.on_status(RequestStatus("COMPLETED", seconds) if done else RequestStatus("PROCESSING"), now)
        yield Noticed(now - seconds, poll.polls)


class SdkClient:
    """What `AsyncJob` sends its requests with."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self._client = self
        self.polls = 0

    def request(self, _method: str, url: str) -> httpx.Response:
        if url == "status":
            self.polls += 1
            self._clock.now += ANSWER_SECONDS
        done = self._clock.now - ANSWER_SECONDS / 2 >= self._seconds
        return httpx.Response(200, json={"status": "COMPLETED" if done else "PROCESSING"})


def sdk(durations: Iterator[float], interval: float) -> Iterator[Noticed]:
    """Wait for each job with the vendor's own code."""
    for seconds in durations:
        clock = Clock()
        client = SdkClient(clock, seconds)
        with mock.patch("segmind.v2.time", clock):
            segmind.v2.AsyncJob("r-1", "status", "result", {}, client).wait(interval=interval)  # type: ignore[arg-type]
        yield Noticed(clock.now - seconds, client.polls)


def fixed(durations: Iterator[float], interval: float, rng: random.Random) -> Iterator[Noticed]:
    """Poll each job at fixed intervals, as most triggers do."""
    for seconds in durations:
        now, polls = DEFERRAL_SECONDS + rng.uniform(0, 0.2) + ANSWER_SECONDS, 1
        while now - ANSWER_SECONDS / 2 < seconds:
            now, polls = now + interval + ANSWER_SECONDS, polls + 1
        yield Noticed(now - seconds, polls)


def pollers(rng: random.Random) -> dict[str, Callable[[Iterator[float]], Iterator[Noticed]]]:
    """Return who is compared, by name; the vendor's SDK is what they are compared with."""
    return {
        "vendor's SDK": lambda durations: sdk(durations, segmind.v2.DEFAULT_POLL_INTERVAL_S),
        "this provider": lambda durations: ours(durations, rng),
        "every 2 s": lambda durations: fixed(durations, 2.0, rng),
        "every 5 s": lambda durations: fixed(durations, 5.0, rng),
        "every 10 s": lambda durations: fixed(durations, 10.0, rng),
    }


def measure(jobs: int, seed: int) -> dict[str, dict[str, list[Noticed]]]:
    """Return what each poller noticed of the same jobs, by distribution and poller."""
    noticed: dict[str, dict[str, list[Noticed]]] = {}
    for name, draw in DISTRIBUTIONS.items():
        rng = random.Random(seed)
        durations = [draw(rng) for _ in range(jobs)]
        noticed[name] = {poller: list(run(iter(durations))) for poller, run in pollers(rng).items()}
    return noticed


def least_polls(draw: Callable[[random.Random], float], delay: float, seed: int) -> float:
    """
    Return the fewest polls an image with which a cadence can notice so soon, if it knew how job times are drawn.

    Polls at a rate n(t), of jobs that end with density f(t) and of which a share S(t) still goes on, are the integral
    of n*S, the delay is that of f/2n. Their product is least for n in proportion to sqrt(f/S).
    """
    rng, bins = random.Random(seed), 2_000
    quantiles = sorted(draw(rng) for _ in range(100 * bins + 1))[::100]
    root = sum(
        sqrt((later - at) / bins * (1 - (place + 0.5) / bins)) for place, (at, later) in enumerate(pairwise(quantiles))
    )
    return max(root**2 / 2 / (delay - ANSWER_SECONDS / 2), 1.0)


def mean_delay(noticed: list[Noticed]) -> float:
    return statistics.fmean(each.delay for each in noticed)


def mean_polls(noticed: list[Noticed]) -> float:
    return statistics.fmean(each.polls for each in noticed)
