"""
When to ask.

Invariant: every wait between two requests comes from here and carries jitter, so that tasks that were
submitted together don't ask together.
"""

from __future__ import annotations

import random
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
#: After that the interval is this share of the job's age: noticed at most that much late.
_INTERVAL_SHARE_OF_AGE = 0.03
_JITTER = 0.15

#: The vendor's limits are requests per minute.
RATE_WINDOW = 60.0
#: Tasks that were turned away together come back spread over at least this many seconds.
_SUBMIT_SPREAD = 5.0

_BACK_OFF_BASE = 0.5
_BACK_OFF_MAX = 30.0


class LikelyEnd(NamedTuple):
    """
    When jobs end as a rule, in seconds from their submission.

    :param early: Few are done earlier.
    :param late: Few take longer.
    """

    early: float
    late: float


def usual_end() -> LikelyEnd:
    """Return when jobs end by the vendor's word."""
    return LikelyEnd(_EARLY_SHARE * EXPECTED_SECONDS, _LATE_SHARE * EXPECTED_SECONDS)


def next_poll(age: float, end: LikelyEnd, rng: random.Random, poll_interval: float | None = None) -> float:
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
        return first - age + rng.uniform(0.0, poll_interval * _JITTER if poll_interval else MIN_INTERVAL)
    if poll_interval is not None:
        return _jittered(poll_interval, rng)
    if age < end.late:
        return _jittered(MIN_INTERVAL, rng)
    return _jittered(min(max(MIN_INTERVAL, _INTERVAL_SHARE_OF_AGE * age), MAX_INTERVAL), rng)


def back_off(attempt: int, rng: random.Random) -> float:
    """
    Return the seconds to wait after a call failed for the ``attempt``-th time in a row, counted from 1.

    Exponential, capped at 30 s, and anywhere in the upper half of that: callers that failed together part.
    """
    ceiling = min(_BACK_OFF_BASE * 2 ** min(attempt - 1, 16), _BACK_OFF_MAX)
    return rng.uniform(ceiling / 2, ceiling)


def submit_delay(retry_after: float | None, rng: random.Random) -> float:
    """
    Return the seconds until a submit that was answered 429 is tried again.

    :param retry_after: What the server asked for; None counts as a minute, the window of the vendor's limits.
    :param rng: The source of the jitter, which is added only: nobody comes before the server's time.
    """
    asked = RATE_WINDOW if retry_after is None else retry_after
    return asked + rng.uniform(0.0, max(_SUBMIT_SPREAD, asked / 2))


def _jittered(seconds: float, rng: random.Random) -> float:
    return seconds * rng.uniform(1 - _JITTER, 1 + _JITTER)
