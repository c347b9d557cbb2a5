"""
A token bucket: when an account's rate limit allows the next submits.

Invariant: within any minute no more submits are allowed than the limit, also across processes: the state is plain JSON
and times are absolute. Where the limit is unknown, or lower than the user's setting, a 429 teaches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from airflow_provider_ideogram.api.back_off import RATE_WINDOW

#: Seconds added to the server's minute: submits arrive up to some seconds after their times, not all equally late.
_WINDOW_MARGIN = 1.0
#: Tokens are accumulated for this many seconds at most, so that a pause is not followed by a burst of a whole minute.
_BURST_SECONDS = 40.0
#: Tokens at the start, in seconds of the rate.
_FIRST_SECONDS = 6.0
#: The first burst where the limit is unknown; it doubles until a 429.
_INITIAL_BURST = 8
#: After a 429 the rate is this share of the submits accepted in the last minute, but at least half of the previous
#: rate: other users of the account may have used a part of the minute.
_LEARNED_SHARE = 0.9
#: If at least this share of the configured limit was accepted, the rate is what was accepted: submits arrive some
#: seconds after their times, so that the server's minute can have one more of them than the limiter's.
_OWN_SHARE = 0.95
_MAX_DECREASE = 0.5
#: A learned rate grows by this share in the first minute after a 429, and towards a configured limit by twice, three
#: times and so on as much in each further minute: a short overload of the vendor must not cost an hour.
_GROWTH = 0.05
#: The smallest plan allows 5 a minute; a learned rate is never lower than this.
_MIN_RATE = 4.0


@dataclass(slots=True)
class RateLimiter:
    """
    The token bucket of one account.

    :param limit: The configured submits per minute, None if it is unknown.
    :param rate: The submits per minute in force, None while nothing was learned.
    :param burst: Submits at once while the rate is unknown.
    :param ramping_up: Whether the last such burst was accepted completely.
    :param tokens: Submits that are allowed now; below 0 if future ones are reserved already.
    :param tokens_at: When ``tokens`` was computed, in seconds since the epoch.
    :param sent: When each submit of the last minute was answered, in seconds since the epoch.
    :param blocked_until: The reset time that a 429 named; no submit is allowed before it.
    """

    limit: float | None = None
    rate: float | None = None
    burst: int = _INITIAL_BURST
    ramping_up: bool = False
    tokens: float = 0.0
    tokens_at: float = 0.0
    sent: list[float] = field(default_factory=list)
    blocked_until: float = 0.0

    @classmethod
    def of_limit(cls, requests_per_minute: float, now: float) -> RateLimiter:
        """Return the limiter of a configured limit; 0 means that it is unknown."""
        if not requests_per_minute:
            return cls(tokens_at=now)
        first = max(1.0, requests_per_minute * _FIRST_SECONDS / RATE_WINDOW)
        return cls(limit=requests_per_minute, rate=requests_per_minute, tokens=first, tokens_at=now)

    def times(self, submits: int, now: float) -> list[float]:
        """
        Return the earliest time of each of the next submits, in seconds since the epoch.

        :param submits: How many are wanted; where the limit is unknown, at most a burst is returned.
        """
        self._advance(now)
        start = max(now, self.blocked_until)
        if self.rate is None:
            return [start] * min(submits, self.burst)
        sent, most = sorted(self.sent), max(1, int(self.rate))
        times: list[float] = []
        for number in range(1, submits + 1):
            at = max(start, self.tokens_at + (number - self.tokens) * RATE_WINDOW / self.rate)
            if (before := len(sent) - most) >= 0:
                at = max(at, sent[before] + RATE_WINDOW + _WINDOW_MARGIN)
            times.append(at)
            sent.append(at)
        return times

    def ready_at(self, submits: int, now: float) -> float:
        """Return when this many submits, or the largest possible burst, may be sent at once."""
        most = submits if self.rate is None else min(submits, int(self._cap()), int(self.rate))
        return self.times(max(1, most), now)[-1]

    def on_sent(self, sent_at: Sequence[float]) -> None:
        """Record when submits were answered, except those answered 429."""
        self.sent += sent_at
        self.tokens -= len(sent_at)
        if self.rate is None and len(sent_at) >= self.burst:
            self.burst, self.ramping_up = self.burst * 2, True

    def forget(self, now: float) -> None:
        """Forget the submits that no longer count."""
        self.sent = [at for at in self.sent if at > now - RATE_WINDOW - _WINDOW_MARGIN]

    def on_limited(self, now: float, delay: float) -> None:
        """
        Record that a submit was answered 429.

        :param delay: Seconds until the next submit.
        """
        self._advance(now)
        accepted = len(self.sent)
        share = 1.0 if self.limit and accepted >= self.limit * _OWN_SHARE else _LEARNED_SHARE
        rate = max(accepted * share, (self.rate or 0.0) * _MAX_DECREASE, _MIN_RATE)
        self.rate = min(rate, self.rate or rate)
        self.blocked_until = max(self.blocked_until, now + delay)
        self.tokens, self.tokens_at = 0.0, self.blocked_until

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RateLimiter:
        """Restore the limiter from :meth:`to_json`."""
        return cls(**value)

    def _advance(self, now: float) -> None:
        self.forget(now)
        passed = now - self.tokens_at
        if self.rate is not None and passed > 0:
            if self.rate != self.limit:
                minutes = 1 + max(0.0, now - self.blocked_until) / RATE_WINDOW if self.limit else 1
                grown = self.rate * (1 + _GROWTH * minutes * passed / RATE_WINDOW)
                self.rate = min(grown, self.limit or grown)
            self.tokens = min(self.tokens + passed * self.rate / RATE_WINDOW, self._cap())
            self.tokens_at = now

    def _cap(self) -> float:
        return max(1.0, (self.rate or 0.0) * _BURST_SECONDS / RATE_WINDOW)
