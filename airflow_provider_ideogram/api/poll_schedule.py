"""
When to ask.

Invariant: every wait between two requests comes from here and carries jitter, so that tasks that were
submitted together don't ask together.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Iterable
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

#: What a job takes at the vendor as a rule, in seconds, until the process has seen enough of them.
EXPECTED_SECONDS = 12.4
#: A task that resumes very soon after it deferred can be marked failed by Airflow's scheduler while it goes on
#: (apache/airflow#72716), so no job is looked at in its first second.
MIN_FIRST_POLL = 1.0
#: Seconds between polls while a job is likely to end. With the vendor's SDK, which asks every second all the time, a
#: job's end is noticed half a second late on average; this is to be no later, and ask less often.
MIN_INTERVAL = 0.75
#: Seconds between polls of a job that takes far longer than expected.
MAX_INTERVAL = 30.0
#: A job is likely to end between these shares of its expected duration, as long as nothing was learned about it.
_EARLY_SHARE = 0.85
_LATE_SHARE = 1.6
#: Shares of the jobs seen that are done at the first poll, and as the interval changes; the last ones are late.
_QUANTILES = (0.07, 0.3, 0.6, 0.9)
#: How late an end is noticed on average between the first and the last of these, in intervals. This and the two below
#: were tried out on jobs of different kinds (benchmarks/noticing.py).
_MEAN_DELAY = 0.57
#: What an interval is stretched or shrunk to at most.
_SHORTEST, _LONGEST = 0.67, 1.25
#: After that the interval is this share of the job's age: noticed at most that much late.
_INTERVAL_SHARE_OF_AGE = 0.03
_JITTER = 0.15

#: Jobs that are looked back on: enough to be steady, few enough to follow a vendor that gets slower.
_WINDOW = 100
#: Jobs that have to be seen before they are believed over what the vendor says.
_MIN_OBSERVATIONS = 10
#: Models that are remembered, those seen last; the vendor has about a dozen.
_MAX_MODELS = 32


class Span(NamedTuple):
    """
    A part of the time in which jobs end.

    :param until: The age of a job, in seconds, at which it is over.
    :param interval: Seconds between polls meanwhile.
    """

    until: float
    interval: float


class PollSchedule(NamedTuple):
    """
    When jobs end as a rule.

    :param early: The age, in seconds, before which few are done.
    :param spans: The time from then on, until few are left; in order.
    """

    early: float
    spans: tuple[Span, ...]

    def interval(self, age: float) -> float:
        """Return the seconds between polls of a job of this age, which is not early."""
        for span in self.spans:
            if age < span.until:
                return span.interval
        return min(max(MIN_INTERVAL, _INTERVAL_SHARE_OF_AGE * age), MAX_INTERVAL)


def default_schedule() -> PollSchedule:
    """Return when jobs end by the vendor's word."""
    return PollSchedule(_EARLY_SHARE * EXPECTED_SECONDS, (Span(_LATE_SHARE * EXPECTED_SECONDS, MIN_INTERVAL),))


def poll_schedule_of(durations: Iterable[float]) -> PollSchedule:
    """
    Return when jobs end that took as long as these, in seconds; ten of them at least.

    The fewest polls for the same mean delay are those whose rate follows the square root of the chance that a job
    which goes on ends now; that chance is read off the quantiles.
    """
    ordered = sorted(durations)
    places = [max(int(share * (len(ordered) - 1)), 1) for share in _QUANTILES]
    ideal: list[tuple[int, float]] = []  # how many ended in each span, and its interval in no unit yet
    for begin, end in pairwise(places):
        ended, going_on = end - begin, len(ordered) - (begin + end) / 2
        ideal.append((ended, sqrt(max(ordered[end] - ordered[begin], 0.01) * going_on / ended)))
    mean = sum(ended * interval for ended, interval in ideal) / (places[-1] - places[0])
    spans = tuple(
        Span(ordered[end], min(max(2 * _MEAN_DELAY * interval / mean, _SHORTEST), _LONGEST) * MIN_INTERVAL)
        for end, (_, interval) in zip(places[1:], ideal, strict=True)
    )
    # The first poll comes somewhere in an interval: around the time, not after it.
    return PollSchedule(ordered[places[0]] - spans[0].interval / 2, spans)


def next_poll(age: float, end: PollSchedule, rng: random.Random, poll_interval: float | None = None) -> float:
    """
    Return the seconds until a job is asked for next.

    :param age: Seconds since the job was submitted.
    :param end: When such jobs end as a rule.
    :param rng: The source of the jitter.
    :param poll_interval: The user's own interval in seconds; None leaves it to the job's age.
    """
    first = max(end.early if poll_interval is None else poll_interval, MIN_FIRST_POLL)
    if age < first:
        # Jitter is only added: a first poll that came too early would be followed by another, and earlier ones still.
        return first - age + rng.uniform(0.0, poll_interval * _JITTER if poll_interval else end.spans[0].interval)
    if poll_interval is not None:
        return _jittered(poll_interval, rng)
    return _jittered(end.interval(age), rng)


def _jittered(seconds: float, rng: random.Random) -> float:
    return seconds * rng.uniform(1 - _JITTER, 1 + _JITTER)


class JobDurations:
    """The time from submission to completion, by model, in seconds."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()
        self._learned: dict[str, PollSchedule] = {}

    def poll_schedule_of(self, model: str) -> PollSchedule:
        """Return when a job of the model ends as a rule."""
        return self._learned.get(model) or default_schedule()

    def observe(self, model: str, seconds: float) -> None:
        """Take in how long a job took."""
        seen = self._seen.setdefault(model, deque(maxlen=_WINDOW))
        self._seen.move_to_end(model)
        seen.append(seconds)
        if len(seen) >= _MIN_OBSERVATIONS:
            self._learned[model] = poll_schedule_of(seen)
        if len(self._seen) > _MAX_MODELS:
            forgotten, _ = self._seen.popitem(last=False)
            self._learned.pop(forgotten, None)
