"""The account's rate limit: a number of paid calls in any 60 seconds."""

from __future__ import annotations

import math
from collections import deque

WINDOW_SECONDS = 60.0


class RateLimiter:
    """A sliding window of the last minute's accepted calls. Refused calls are not counted."""

    def __init__(self) -> None:
        self._accepted: deque[float] = deque()

    def seconds_to_wait(self, limit: int, now: float) -> int:
        """
        Count a call if the limit allows it.

        :param limit: Calls in 60 seconds, 0 for no limit.
        :param now: The current time in seconds since the epoch.
        :return: 0 if the call was counted, else the whole seconds, at least 1, until a call is allowed.
        """
        while self._accepted and self._accepted[0] <= now - WINDOW_SECONDS:
            self._accepted.popleft()
        if limit and len(self._accepted) >= limit:
            return max(1, math.ceil(self._accepted[-limit] + WINDOW_SECONDS - now))
        self._accepted.append(now)
        return 0
