"""
Whether a connection's polls may be sent.

Invariant: a rate limit or an outage that one poll meets counts for all polls of the connection. While the breaker is
open no poll is sent before :attr:`CircuitBreaker.retry_at`, then a single probe; its success closes the breaker.
"""

from __future__ import annotations

import random

from airflow_provider_ideogram.api.back_off import back_off
from airflow_provider_ideogram.exceptions import IdeogramError, IdeogramRateLimited, IdeogramTemporaryError

#: Consecutive failures, of any requests, that count as an outage; fewer may concern a single request.
OUTAGE_AFTER = 3


class CircuitBreaker:
    """
    Whether the polls of a connection may be sent.

    Times are seconds of any one clock. A poll carries the :attr:`generation` in which it was sent: its result is
    ignored if the breaker has opened since.

    :param rng: The source of the back-off's jitter.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._failures = 0
        self._times_opened = 0
        self.generation = 0
        self.retry_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether polls are held back but for one probe from :attr:`retry_at` on."""
        return self._times_opened > 0

    def on_answer(self, generation: int) -> None:
        """Record that the API responded to a poll, whatever the request's status."""
        if generation == self.generation:
            self._failures = self._times_opened = 0

    def on_error(self, generation: int, error: IdeogramError, now: float) -> None:
        """Record that a poll failed; an error that concerns its request alone counts as a response."""
        if not isinstance(error, IdeogramTemporaryError):
            self.on_answer(generation)
        elif generation == self.generation:
            self._failures += 1
            if isinstance(error, IdeogramRateLimited) or self._failures >= OUTAGE_AFTER or self._times_opened:
                self._open(now, error.retry_after or 0.0)

    def _open(self, now: float, retry_after: float) -> None:
        self.generation += 1
        self._times_opened += 1
        self.retry_at = now + retry_after + back_off(self._times_opened, self._rng)
