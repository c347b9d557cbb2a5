"""
The delay from a job's end to its detection, and the number of polls.

In virtual time with a seed, the provider's :class:`RequestPoll` and the vendor SDK's `wait()` poll jobs whose durations
are drawn from named distributions. A response takes 50 ms, and has the state at half of that time.
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

RESPONSE_SECONDS = 0.05
#: Seconds from the submission until the triggerer runs the trigger, measured on a real Airflow.
DEFERRAL_SECONDS = 1.6

#: The distributions of job durations, in seconds.
DISTRIBUTIONS: dict[str, Callable[[random.Random], float]] = {
    "12.4 s, small deviation": lambda rng: max(rng.gauss(12.4, 0.3), 1.0),
    "12.4 s, deviation of 10 %": lambda rng: max(rng.gauss(12.4, 1.24), 1.0),
    "12.4 s, deviation of 30 %": lambda rng: max(rng.gauss(12.4, 3.7), 1.0),
    "long tail (1 in 10 takes up to 2 minutes)": lambda rng: (
        rng.uniform(20.0, 120.0) if rng.random() < 0.1 else max(rng.gauss(12.4, 1.24), 1.0)
    ),
    "long tail (log-normal, p99 57 s)": lambda rng: min(12.4 * rng.lognormvariate(0.0, 0.66), 500.0),
    "a model that takes 25 s": lambda rng: max(rng.gauss(25.0, 2.5), 1.0),
    "a model that takes 4 s": lambda rng: max(rng.gauss(4.0, 0.4), 1.0),
}


@dataclass(frozen=True)
class Detection:
    """
    The detection of a job's end.

    :param delay: Seconds from the end to the response with the final state.
    :param polls: The polls until then.
    """

    delay: float
    polls: int


class Clock:
    """A clock that moves forward with each sleep."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def provider(durations: Iterator[float], rng: random.Random) -> Iterator[Detection]:
    """Poll each job as the trigger does; the schedule learns from each job."""
    learned = JobDurations()
    for seconds in durations:
        poll, now = RequestPoll("r-1", 0.0, durations=learned), DEFERRAL_SECONDS
        while not poll.settled:
            now += poll.delay(now, rng) + RESPONSE_SECONDS
            done = now - RESPONSE_SECONDS / 2 >= seconds
            poll.on_status(RequestStatus("COMPLETED", seconds) if done else RequestStatus("PROCESSING"), now)
        yield Detection(now - seconds, poll.polls)


class SdkClient:
    """Stands in for the HTTP client of the SDK's `AsyncJob`."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self._client = self
        self.polls = 0

    def request(self, _method: str, url: str) -> httpx.Response:
        if url == "status":
            self.polls += 1
            self._clock.now += RESPONSE_SECONDS
        done = self._clock.now - RESPONSE_SECONDS / 2 >= self._seconds
        return httpx.Response(200, json={"status": "COMPLETED" if done else "PROCESSING"})


def sdk(durations: Iterator[float], interval: float) -> Iterator[Detection]:
    """Wait for each job with the vendor's SDK."""
    for seconds in durations:
        clock = Clock()
        client = SdkClient(clock, seconds)
        with mock.patch("segmind.v2.time", clock):
            segmind.v2.AsyncJob("r-1", "status", "result", {}, client).wait(interval=interval)
        yield Detection(clock.now - seconds, client.polls)


def fixed(durations: Iterator[float], interval: float, rng: random.Random) -> Iterator[Detection]:
    """Poll each job at fixed intervals, as most triggers do."""
    for seconds in durations:
        now, polls = DEFERRAL_SECONDS + rng.uniform(0, 0.2) + RESPONSE_SECONDS, 1
        while now - RESPONSE_SECONDS / 2 < seconds:
            now, polls = now + interval + RESPONSE_SECONDS, polls + 1
        yield Detection(now - seconds, polls)


def pollers(rng: random.Random) -> dict[str, Callable[[Iterator[float]], Iterator[Detection]]]:
    """Return the pollers by name; the vendor's SDK is the reference."""
    return {
        "vendor's SDK": lambda durations: sdk(durations, segmind.v2.DEFAULT_POLL_INTERVAL_S),
        "this provider": lambda durations: provider(durations, rng),
        "every 2 s": lambda durations: fixed(durations, 2.0, rng),
        "every 5 s": lambda durations: fixed(durations, 5.0, rng),
        "every 10 s": lambda durations: fixed(durations, 10.0, rng),
    }


def measure(jobs: int, seed: int) -> dict[str, dict[str, list[Detection]]]:
    """Return the detections of the same jobs, by distribution and poller."""
    detections: dict[str, dict[str, list[Detection]]] = {}
    for name, draw in DISTRIBUTIONS.items():
        rng = random.Random(seed)
        durations = [draw(rng) for _ in range(jobs)]
        detections[name] = {poller: list(run(iter(durations))) for poller, run in pollers(rng).items()}
    return detections


def least_polls(draw: Callable[[random.Random], float], delay: float, seed: int) -> float:
    """
    Return the fewest polls of a job with which a schedule that knows the distribution has this mean delay.

    Jobs end with density f(t), and a share S(t) is running. With polls at a rate n(t), the number of polls is the
    integral of n*S, and the delay is the integral of f/2n. Their product is least if n is proportional to sqrt(f/S).
    """
    rng, bins = random.Random(seed), 2_000
    quantiles = sorted(draw(rng) for _ in range(100 * bins + 1))[::100]
    root = sum(
        sqrt((later - at) / bins * (1 - (place + 0.5) / bins)) for place, (at, later) in enumerate(pairwise(quantiles))
    )
    return max(root**2 / 2 / (delay - RESPONSE_SECONDS / 2), 1.0)


def mean_delay(detections: list[Detection]) -> float:
    return statistics.fmean(each.delay for each in detections)


def mean_polls(detections: list[Detection]) -> float:
    return statistics.fmean(each.polls for each in detections)
