"""The account's rate limit: so many paid calls in any 60 seconds."""

from __future__ import annotations

import math
from collections import deque

WINDOW_SECONDS = 60.0


class RateLimiter:
    """Count the calls of the last minute; refused calls do not count."""

    def __init__(self) -> None:
        self._passed: deque[float] = deque()

    def seconds_to_wait(self, limit: int, now: float) -> int:
        """
        Let a call pass, or say how long until one may.

        :param limit: Calls in a rolling minute, 0 for no limit.
        :param now: Seconds since the epoch.
        :return: 0 if the call passes, else whole seconds from 1 up.
        """
        while self._passed and self._passed[0] <= now - WINDOW_SECONDS:
            self._passed.popleft()
        if limit and len(self._passed) >= limit:
            return max(1, math.ceil(self._passed[-limit] + WINDOW_SECONDS - now))
        self._passed.append(now)
        return 0
