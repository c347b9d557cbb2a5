"""
How long to wait after a failed call.

Invariant: every wait carries jitter, so that callers that failed together do not retry together.
"""

from __future__ import annotations

import random

#: Seconds of the window of the vendor's limits, which are requests per minute.
RATE_WINDOW = 60.0
#: Seconds over which tasks return that were answered 429 with a time: they retry soon after it.
_RESET_SPREAD = 4.0
#: Seconds that a submit is delayed by the rate limit, another task or a temporary error before the task fails.
PATIENCE_SECONDS = 3600.0

_BACK_OFF_BASE = 0.5
_BACK_OFF_MAX = 30.0


def back_off(attempt: int, rng: random.Random) -> float:
    """
    Return the seconds to wait after the ``attempt``-th consecutive failure, counted from 1.

    Exponential, at most 30 s, with jitter over the upper half.
    """
    ceiling = min(_BACK_OFF_BASE * 2 ** min(attempt - 1, 16), _BACK_OFF_MAX)
    return rng.uniform(ceiling / 2, ceiling)


def submit_delay(retry_after: float | None, rng: random.Random) -> float:
    """
    Return the seconds until a submit that was answered 429 is sent again.

    :param retry_after: What the server asked for; None counts as a minute, the window of the vendor's limits.
    :param rng: The source of the jitter, which is only added: no submit precedes the server's time.
    """
    if retry_after is None:
        return RATE_WINDOW + rng.uniform(0.0, RATE_WINDOW / 2)
    return retry_after + rng.uniform(0.0, _RESET_SPREAD)
