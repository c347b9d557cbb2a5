"""
The rate limit of an account: which task submits when.

Invariant: the slots of any minute are at most the limit. A slot is taken by the task that submits in it,
at most a few seconds before; tasks that wait hold tickets only, and can disappear without a loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_ideogram.account.turns import Ticket, Turns
from airflow_provider_ideogram.account.values import count, real
from airflow_provider_ideogram.api.back_off import RATE_WINDOW
from airflow_provider_ideogram.api.rate_limiter import RateLimiter

#: Seconds for which a task waits for a submit's time on the worker, less than another slice takes to start.
PACE_SECONDS = 4.0
#: Seconds of the limit that a task may ask for at once, so that other tasks get slots in between.
SHARE_SECONDS = 8.0
#: Submits that are calculated ahead at most: an unknown limit grows without one.
_MAX_SUBMITS = 1000
#: Digits of the times in the state, in seconds.
_DIGITS = 2


@dataclass(slots=True)
class AccountLimiter:
    """
    The rate limit and the tasks that wait for it.

    :param rate: The limit, as configured and as learned from 429 responses.
    :param turns: The waiting tasks.
    """

    rate: RateLimiter = field(default_factory=RateLimiter)
    turns: Turns = field(default_factory=Turns)

    def configure(self, requests_per_minute: float, now: float) -> None:
        """Set the limit of the connection, 0 if it is unknown; what was learned of the same limit is kept."""
        if (requests_per_minute or None) != self.rate.limit or not self.rate.tokens_at:
            sent, blocked_until = self.rate.sent, self.rate.blocked_until
            self.rate = RateLimiter.of_limit(requests_per_minute, now)
            self.rate.sent, self.rate.blocked_until = sent, blocked_until

    def ask(self, flow: str, now: float, *, submits: int = 1, ticket: Ticket | None = None) -> list[float] | Ticket:
        """
        Take slots, or a ticket to wait with.

        :param flow: The key of the DAG run.
        :param submits: The slots that are wanted; fewer may be returned.
        :param ticket: The ticket that the task waited with.
        :return: The times to submit at, in seconds since the epoch and at most PACE_SECONDS ahead; or the ticket.
        """
        submits = max(1, min(submits, self._most(SHARE_SECONDS)))
        self.advance(now)
        if ticket is not None:
            if not self.turns.is_called(ticket):
                return ticket
            self.turns.arrive(ticket, now)
        # Slots of called tasks that are on their way are left to them.
        others = 0 if ticket else math.ceil(self.turns.expected)
        if ticket is None and self.turns.has_next:
            return self.turns.issue(flow, now, submits)
        times = [at for at in self.rate.times(submits + others, now) if at <= now + PACE_SECONDS]
        slots = times[: max(0, min(submits, len(times) - others))]
        if not slots:
            return self.turns.issue(flow, now, submits)
        self.rate.on_sent(slots)
        return slots

    def queue(self, flow: str, now: float, *, submits: int) -> Ticket:
        """Return a ticket for further slots, where fewer were taken than wanted."""
        return self.turns.issue(flow, now, min(submits, self._most(SHARE_SECONDS)))

    def correct(self, used: Iterable[tuple[float, float | None]]) -> None:
        """
        Record when the submits of slots were sent: the server's minute counts from then.

        :param used: The times of the slots, each with that of its submit; None releases a slot without a submit.
        """
        for at, sent_at in used:
            nearest = min(self.rate.sent, key=lambda sent, at=at: abs(sent - at), default=None)  # type: ignore[misc]
            if nearest is not None and abs(nearest - at) <= 10**-_DIGITS:
                self.rate.sent.remove(nearest)
                self.rate.tokens += sent_at is None
            if sent_at is not None:
                self.rate.sent.append(sent_at)

    def limited(self, now: float, delay: float) -> None:
        """
        Record that a submit was answered 429.

        :param delay: Seconds until the next submit; responses that arrive while the account waits lower no rate.
        """
        self.advance(now)
        if now < self.rate.blocked_until:
            self.rate.blocked_until = max(self.rate.blocked_until, now + delay)
        else:
            self.rate.on_limited(now, delay)

    def advance(self, now: float) -> None:
        """Calculate which waiting tasks are called until now."""
        self.turns.advance(now, self._slots, self._most(SHARE_SECONDS))

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        rate = self.rate.to_json()
        start = min(self.rate.sent, default=0.0)
        sent = [round((at - start) * 10**_DIGITS) for at in self.rate.sent]
        rounded = {name: round(rate[name], 4) for name in ("tokens", "tokens_at", "blocked_until")}
        return {"rate": {**rate, **rounded, "sent": [round(start, _DIGITS), *sent]}, "turns": self.turns.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AccountLimiter:
        """Restore the state from :meth:`to_json`; raise ValueError, or what the form's use raises, for others."""
        return cls(_rate_from_json(value["rate"]), Turns.from_json(value["turns"]))

    def _most(self, seconds: float) -> int:
        """Return the submits of these seconds; where the limit is unknown, of the next burst."""
        if self.rate.rate is None:
            return self.rate.burst
        return max(1, int(min(self.rate.rate * seconds / RATE_WINDOW, _MAX_SUBMITS)))

    def _slots(self, now: float) -> list[float]:
        """Return when the limit allows the next submits from a time on."""
        return self.rate.times(self._most(2 * RATE_WINDOW) + 1, now)


def _rate_from_json(value: Mapping[str, Any]) -> RateLimiter:
    """Restore the limit, whose times are offsets from the first one."""
    start, *offsets = map(real, value["sent"])
    limit, rate = (None if value[name] is None else real(value[name]) for name in ("limit", "rate"))
    if not all(each is None or each > 0 for each in (limit, rate)):
        raise ValueError("the rate is not above 0")
    return RateLimiter(
        limit=limit,
        rate=rate,
        burst=max(1, count(value["burst"])),
        ramping_up=value["ramping_up"] is True,
        tokens=real(value["tokens"]),
        tokens_at=real(value["tokens_at"]),
        sent=[start + offset / 10**_DIGITS for offset in offsets],
        blocked_until=real(value["blocked_until"]),
    )
