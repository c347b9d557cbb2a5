"""
When a request is polled.

Invariant: every wait between two polls comes from here and carries jitter, so that tasks that were submitted together
do not poll together. The schedule follows the observed durations in bounded memory; no single request moves it far.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Iterable
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

#: Seconds that a request takes at the vendor, until enough of them were observed.
EXPECTED_SECONDS = 12.4
#: A task that resumes very soon after it deferred can be marked failed by Airflow's scheduler although it continues
#: (apache/airflow#72716), so no request is polled in its first second.
MIN_FIRST_POLL = 1.0
#: Seconds between polls while a request is likely to end. The vendor's SDK polls every second and notices an end half a
#: second late on average; this schedule is to be no later with fewer polls.
MIN_INTERVAL = 0.75
#: Seconds between polls of a request that takes far longer than expected.
MAX_INTERVAL = 30.0
#: A request is likely to end between these shares of the expected duration, as long as no durations were observed.
_EARLY_SHARE = 0.85
_LATE_SHARE = 1.6
#: Shares of the observed requests that are done at the first poll, and at each change of the interval.
_QUANTILES = (0.07, 0.3, 0.6, 0.9)
#: The mean delay between an end and its poll, in intervals. This and the next two were measured by
#: benchmarks/completion_delay.py on several distributions of durations.
_MEAN_DELAY = 0.57
#: The factors by which an interval is shortened or lengthened at most.
_SHORTEST, _LONGEST = 0.67, 1.25
#: Later the interval is this share of the request's age.
_INTERVAL_SHARE_OF_AGE = 0.03
_JITTER = 0.15

#: Observed durations that are kept for each model.
_WINDOW = 100
#: Durations that must be observed before they replace the expected one.
_MIN_OBSERVATIONS = 10
#: Models that are kept, the most recent ones; the vendor has about a dozen.
_MAX_MODELS = 32


class Span(NamedTuple):
    """
    A part of the time in which requests end.

    :param until: The age of a request, in seconds, at which the part ends.
    :param interval: Seconds between polls in it.
    """

    until: float
    interval: float


class PollSchedule(NamedTuple):
    """
    When requests of a model are polled.

    :param early: The age, in seconds, before which few are done.
    :param spans: The time from ``early`` until few are left; in order.
    """

    early: float
    spans: tuple[Span, ...]

    def interval(self, age: float) -> float:
        """Return the seconds between polls of a request of this age, which is past ``early``."""
        for span in self.spans:
            if age < span.until:
                return span.interval
        return min(max(MIN_INTERVAL, _INTERVAL_SHARE_OF_AGE * age), MAX_INTERVAL)


def default_schedule() -> PollSchedule:
    """Return the schedule by the vendor's published duration."""
    return PollSchedule(_EARLY_SHARE * EXPECTED_SECONDS, (Span(_LATE_SHARE * EXPECTED_SECONDS, MIN_INTERVAL),))


def poll_schedule_of(durations: Iterable[float]) -> PollSchedule:
    """
    Return the schedule for requests that take as long as these, in seconds; at least ten.

    For a given mean delay the fewest polls are sent if their rate follows the square root of the probability that a
    running request ends now; that probability is taken from the quantiles.
    """
    ordered = sorted(durations)
    places = [max(int(share * (len(ordered) - 1)), 1) for share in _QUANTILES]
    ideal: list[tuple[int, float]] = []  # how many ended in each span, and its interval before scaling
    for begin, end in pairwise(places):
        ended, running = end - begin, len(ordered) - (begin + end) / 2
        ideal.append((ended, sqrt(max(ordered[end] - ordered[begin], 0.01) * running / ended)))
    mean = sum(ended * interval for ended, interval in ideal) / (places[-1] - places[0])
    spans = tuple(
        Span(ordered[end], min(max(2 * _MEAN_DELAY * interval / mean, _SHORTEST), _LONGEST) * MIN_INTERVAL)
        for end, (_, interval) in zip(places[1:], ideal, strict=True)
    )
    # The first poll falls anywhere in an interval: it is centred on the time, not after it.
    return PollSchedule(ordered[places[0]] - spans[0].interval / 2, spans)


def next_poll(age: float, schedule: PollSchedule, rng: random.Random, poll_interval: float | None = None) -> float:
    """
    Return the seconds until a request is polled next.

    :param age: Seconds since the request was submitted.
    :param schedule: The schedule of its model.
    :param rng: The source of the jitter.
    :param poll_interval: The user's own interval in seconds; None follows the schedule.
    """
    first = max(schedule.early if poll_interval is None else poll_interval, MIN_FIRST_POLL)
    if age < first:
        # Jitter is only added: a first poll that is too early would be followed by another one.
        return first - age + rng.uniform(0.0, poll_interval * _JITTER if poll_interval else schedule.spans[0].interval)
    return (schedule.interval(age) if poll_interval is None else poll_interval) * rng.uniform(1 - _JITTER, 1 + _JITTER)


class JobDurations:
    """The observed time from submission to completion, by model, in seconds."""

    def __init__(self) -> None:
        self._observed: OrderedDict[str, deque[float]] = OrderedDict()
        self._schedules: dict[str, PollSchedule] = {}

    def schedule(self, model: str) -> PollSchedule:
        """Return the schedule of a model."""
        return self._schedules.get(model) or default_schedule()

    def observe(self, model: str, seconds: float) -> None:
        """Add the duration of a completed request."""
        observed = self._observed.setdefault(model, deque(maxlen=_WINDOW))
        self._observed.move_to_end(model)
        observed.append(seconds)
        if len(observed) >= _MIN_OBSERVATIONS:
            self._schedules[model] = poll_schedule_of(observed)
        if len(self._observed) > _MAX_MODELS:
            oldest, _ = self._observed.popitem(last=False)
            self._schedules.pop(oldest, None)
