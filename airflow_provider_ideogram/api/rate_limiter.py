"""
When an account's rate limit allows the next submits.

Invariant: within any minute no more submits are allowed than the limit says, also across processes: the state is
plain JSON and times are absolute. Where the limit is unknown, or is not what the user said, a 429 teaches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from airflow_provider_ideogram.api.back_off import RATE_WINDOW

#: The server's minute is taken to be longer by this many seconds, as its clock may run a little slower.
_WINDOW_MARGIN = 0.5
#: Allowance is saved up for this many seconds at most: a pause is made up for, and no minute begins with a storm.
_SAVED_SECONDS = 25.0
#: What is allowed at once at the start, in seconds of the rate.
_FIRST_SECONDS = 6.0
#: An unknown limit is approached from this many submits at once, doubled as long as nobody objects.
_CAREFUL_BURST = 8
#: After a 429 the rate is this share of what was accepted in the minute before, but half of what it was at least:
#: the minute may have been begun by somebody else.
_LEARNED_SHARE = 0.9
_MOST_LOST = 0.5
#: A rate that was learned grows by this share with each minute in which nobody objects.
_GROWTH_PER_MINUTE = 0.05
#: The smallest plan has 5 a minute; less is never learned.
_MIN_RATE = 4.0


@dataclass(slots=True)
class RateLimiter:
    """
    The allowance of one account, as far as one task uses it.

    :param limit: The submits per minute that the user named, None if nobody did.
    :param rate: Those that are made at most, None while nothing is known.
    :param burst: How many at once where the rate is unknown.
    :param ramping_up: Whether the last such burst was accepted whole.
    :param tokens: Submits that are allowed and not made yet; below 0 if the next ones are promised already.
    :param tokens_at: When that was counted, in seconds since the epoch.
    :param sent: When each submit of the last minute was answered.
    :param blocked_until: No submit before that, since the server said so.
    """

    limit: float | None = None
    rate: float | None = None
    burst: int = _CAREFUL_BURST
    ramping_up: bool = False
    tokens: float = 0.0
    tokens_at: float = 0.0
    sent: list[float] = field(default_factory=list)
    blocked_until: float = 0.0

    @classmethod
    def of_limit(cls, requests_per_minute: float, now: float) -> RateLimiter:
        """Return the rate_limiter of a limit; 0 means that it is unknown."""
        if not requests_per_minute:
            return cls(tokens_at=now)
        first = max(1.0, requests_per_minute * _FIRST_SECONDS / RATE_WINDOW)
        return cls(limit=requests_per_minute, rate=requests_per_minute, tokens=first, tokens_at=now)

    def times(self, submits: int, now: float) -> list[float]:
        """
        Return from when on the next submits may be made, one after the other, in seconds since the epoch.

        :param submits: How many are wanted. Where the limit is unknown, there are not more than is careful.
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
        """Return when so many submits may be made at once, or as many as ever may."""
        most = submits if self.rate is None else min(submits, int(self._cap()), int(self.rate))
        return self.times(max(1, most), now)[-1]

    def on_sent(self, sent_at: Sequence[float]) -> None:
        """Take in when submits were answered, but for those that were turned away."""
        self.sent += sent_at
        self.tokens -= len(sent_at)
        if self.rate is None and len(sent_at) >= self.burst:
            self.burst, self.ramping_up = self.burst * 2, True

    def on_limited(self, now: float, delay: float) -> None:
        """
        Take in that a submit was answered 429.

        :param delay: Seconds until the server wants to be asked again.
        """
        self._advance(now)
        rate = max(len(self.sent) * _LEARNED_SHARE, (self.rate or 0.0) * _MOST_LOST, _MIN_RATE)
        self.rate = min(rate, self.rate or rate)
        self.blocked_until = max(self.blocked_until, now + delay)
        self.tokens, self.tokens_at = 0.0, self.blocked_until

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RateLimiter:
        """Make the rate_limiter again from what :meth:`to_json` returned."""
        return cls(**value)

    def _advance(self, now: float) -> None:
        self.sent = [at for at in self.sent if at > now - RATE_WINDOW - _WINDOW_MARGIN]
        passed = now - self.tokens_at
        if self.rate is not None and passed > 0:
            if self.rate != self.limit:
                grown = self.rate * (1 + _GROWTH_PER_MINUTE * passed / RATE_WINDOW)
                self.rate = min(grown, self.limit or grown)
            self.tokens = min(self.tokens + passed * self.rate / RATE_WINDOW, self._cap())
            self.tokens_at = now

    def _cap(self) -> float:
        return max(1.0, (self.rate or 0.0) * _SAVED_SECONDS / RATE_WINDOW)
