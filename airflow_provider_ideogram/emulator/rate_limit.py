"""
The account's rate limit: a number of calls in any 60 seconds.

The vendor does not document whether polls count, nor the format of the header that tells when the window ends. Both
are settings.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

WINDOW_SECONDS = 60.0
RESET_HEADER = "x-rate-limit-reset-at-utc"

_RESET_FORMATS: dict[str, Callable[[datetime], str]] = {
    "iso": lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "iso_no_zone": lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%S"),
    "epoch": lambda moment: str(int(moment.timestamp())),
}
#: Values of the setting ``rate_limit_header``: formats of the reset header, ``Retry-After`` instead, or no header.
HEADER_FORMS = (*_RESET_FORMATS, "retry_after", "none")


class RateLimiter:
    """A sliding window of the last minute's accepted calls. Refused calls are not counted."""

    def __init__(self) -> None:
        self._accepted: deque[float] = deque()

    def reset_at(self, limit: int, now: float) -> float | None:
        """
        Count a call if the limit allows it.

        :param limit: Calls in 60 seconds, 0 for no limit.
        :param now: The current time in seconds since the epoch.
        :return: None if the call was counted, else the time from which a call is allowed.
        """
        while self._accepted and self._accepted[0] <= now - WINDOW_SECONDS:
            self._accepted.popleft()
        if limit and len(self._accepted) >= limit:
            return self._accepted[-limit] + WINDOW_SECONDS
        self._accepted.append(now)
        return None


def reset_headers(form: str, reset_at: float, now: float) -> dict[str, str]:
    """
    Return the headers of a 429. Times are rounded up to whole seconds.

    :param form: One of :data:`HEADER_FORMS`.
    :param reset_at: The time from which a call is allowed, in seconds since the epoch.
    :param now: The current time in seconds since the epoch.
    """
    if form == "none":
        return {}
    if form == "retry_after":
        return {"Retry-After": str(math.ceil(reset_at - now))}
    moment = datetime.fromtimestamp(math.ceil(reset_at), UTC)
    return {RESET_HEADER: _RESET_FORMATS[form](moment), "x-rate-limit-remaining": "0"}
