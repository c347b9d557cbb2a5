"""
How long to wait after a failed call.

Invariant: every wait carries jitter, so that callers that failed together do not retry together.
"""

from __future__ import annotations

import random

#: The vendor's limits are requests per minute.
RATE_WINDOW = 60.0
#: Tasks that were turned away together come back spread over at least this many seconds.
_SUBMIT_SPREAD = 5.0
#: Seconds that a submit is put off, by the rate limit, another task or a passing error, before it is given up.
PATIENCE_SECONDS = 3600.0

_BACK_OFF_BASE = 0.5
_BACK_OFF_MAX = 30.0


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
