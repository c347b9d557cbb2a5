"""
How fast the polls of a connection are sent.

Invariant: two polls are at least the interval of the rate apart, so that no minute has more than the rate. Without a
configured limit there is no rate until a 429 teaches one; what was learned grows by 5 % a minute up to the limit.
"""

from __future__ import annotations

from airflow_provider_ideogram.api.back_off import RATE_WINDOW

#: After a 429 the rate is this share of the polls of the last minute, but at least half of the previous rate.
_LEARNED_SHARE, _MAX_DECREASE = 0.9, 0.5
_GROWTH_PER_MINUTE = 0.05
#: A learned rate is never lower than this, unless the limit is: at so few polls a pause after a 429 is enough.
_MIN_RATE = 20.0


class PollPace:
    """
    The pace of one connection's polls on an event loop.

    Times are seconds of any one clock. A caller waits for :meth:`delay`, then polls and calls :meth:`on_sent`.
    """

    def __init__(self) -> None:
        self._limit = 0.0
        self._learned: float | None = None
        self._learned_at = 0.0
        self._last_at = float("-inf")
        # The polls of this minute and of the one before.
        self._minute, self._count, self._count_before = 0, 0, 0

    def configure(self, polls_per_minute: float) -> None:
        """Set the limit of the connection, 0 for none; another one than before replaces what was learned."""
        if polls_per_minute != self._limit:
            self._limit, self._learned = polls_per_minute, None

    def delay(self, now: float) -> float:
        """Return the seconds until the next poll may be sent."""
        rate = self._rate(now)
        return 0.0 if rate is None else max(0.0, self._last_at + RATE_WINDOW / rate - now)

    def on_sent(self, now: float) -> None:
        """Record that a poll is sent."""
        self._turn_minute(now)
        self._count += 1
        self._last_at = now

    def on_limited(self, now: float) -> None:
        """Record that a poll was answered 429; to be called once for polls that were in flight together."""
        self._turn_minute(now)
        rate, last_minute = self._rate(now), max(self._count, self._count_before)
        if rate is None and last_minute <= _MIN_RATE:
            return
        learned = max(last_minute * _LEARNED_SHARE, (rate or 0.0) * _MAX_DECREASE, _MIN_RATE)
        self._learned, self._learned_at = min(learned, rate or learned), now

    def _rate(self, now: float) -> float | None:
        """Return the polls a minute in force, None if there is no limit."""
        if self._learned is None:
            return self._limit or None
        grown: float = self._learned * (1 + _GROWTH_PER_MINUTE) ** ((now - self._learned_at) / RATE_WINDOW)
        return min(grown, self._limit or grown)

    def _turn_minute(self, now: float) -> None:
        minute = int(now // RATE_WINDOW)
        if minute != self._minute:
            self._count_before = self._count if minute == self._minute + 1 else 0
            self._minute, self._count = minute, 0
