"""
Whether a connection's polls may go out.

Invariant: what one poll learns of the API's state holds for all polls of the connection. While the API limits or
fails them none goes out, then a single one to see whether that is over, and when it is, it is over for all.
"""

from __future__ import annotations

import random

from airflow_provider_ideogram.api.back_off import back_off
from airflow_provider_ideogram.exceptions import IdeogramError, IdeogramRateLimited, IdeogramTemporaryError

#: Failures in a row, of whatever jobs, that count as an outage; fewer may be about a single job.
OUTAGE_AFTER = 3


class CircuitBreaker:
    """
    How many polls of a connection may be in flight.

    Times are seconds of any one clock. A poll carries the :attr:`generation` in which it was let through; what comes of
    it is news only as long as that round lasts.

    :param limit: Polls in flight while all is well.
    :param rng: The source of the back-off's jitter.
    """

    def __init__(self, limit: int, rng: random.Random) -> None:
        self._limit = limit
        self._rng = rng
        self._failures = 0
        self._times_opened = 0
        self.generation = 0
        self.retry_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the API is not known to be well: one poll at a time may find out, from :attr:`retry_at` on."""
        return self._times_opened > 0

    def capacity(self, now: float) -> int:
        """Return how many polls may be in flight: the limit, none, or one that finds out whether all is well again."""
        if not self.is_open:
            return self._limit
        return 1 if now >= self.retry_at else 0

    def on_answer(self, generation: int) -> None:
        """Take in that the API answered a poll, with whatever about its job."""
        if generation == self.generation:
            self._failures = self._times_opened = 0

    def on_error(self, generation: int, error: IdeogramError, now: float) -> None:
        """Take in that a poll went wrong; what is wrong with its job alone counts as an answer."""
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
