"""
Whether submits may be sent: a circuit breaker for the submits of a run.

Invariant: while submits fail for a reason that concerns all of them, one probe at a time is sent, after a growing
back-off. At most :data:`MAX_IN_DOUBT` items have a submit of which it is unknown whether it was accepted. The state is
plain JSON, and outlives the slice. The breaker of polls, :mod:`airflow_provider_ideogram.api.circuit_breaker`, does not
fit: it ends with its process, and several polls fail before it opens; a failed submit may have been charged.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from airflow_provider_ideogram.api.back_off import PATIENCE_SECONDS
from airflow_provider_ideogram.exceptions import (
    IdeogramError,
    IdeogramNotCharged,
    IdeogramRateLimited,
    IdeogramServerUnavailable,
    IdeogramUnknownSubmit,
)

#: Items with a submit in doubt at most, the submits on their way included.
MAX_IN_DOUBT = 8
#: Submits on their way at once. The rest of the items that may be in doubt is left to the probes.
MAX_CONCURRENT = 5
#: Seconds until the first probe, and between two probes at most.
FIRST_BACK_OFF, MAX_BACK_OFF = 5.0, 60.0


def max_concurrent(in_doubt: int) -> int:
    """Return how many submits may be on their way at once, given the number of items in doubt."""
    return max(1, min(MAX_CONCURRENT, MAX_IN_DOUBT - in_doubt))


@dataclass(slots=True)
class SubmitOutage:
    """
    An outage of submits.

    :param since: When the first submit failed, in seconds since the epoch; None without an outage.
    :param failures: The number of bursts and probes that failed since.
    :param retry_at: When the next probe is sent, in seconds since the epoch.
    :param reason: Why the last submit failed.
    """

    since: float | None = None
    failures: int = 0
    retry_at: float = 0.0
    reason: str = ""

    @property
    def is_open(self) -> bool:
        """Whether only probes are sent."""
        return self.since is not None

    def on_failure(self, now: float, reason: str) -> None:
        """Record that a burst or a probe failed."""
        self.since = now if self.since is None else self.since
        delay = min(FIRST_BACK_OFF * 2 ** min(self.failures, 16), MAX_BACK_OFF)
        self.failures += 1
        self.retry_at = now + delay * random.Random().uniform(1.0, 1.25)
        self.reason = reason

    def on_response(self) -> None:
        """Record that the API responded to a submit: the outage is over."""
        self.since, self.failures, self.retry_at, self.reason = None, 0, 0.0, ""

    def is_too_long(self, now: float) -> bool:
        """Return whether the run no longer waits for the end of the outage."""
        return self.since is not None and now - self.since > PATIENCE_SECONDS


def is_outage(error: IdeogramError, *, was_in_doubt: bool) -> bool:
    """
    Return whether an error shows that submits fail for a reason that concerns all of them, and passes.

    :param was_in_doubt: Whether an earlier submit of the item is in doubt: then only a response shows that another one
        was sent.
    """
    if isinstance(error, IdeogramUnknownSubmit):
        return not was_in_doubt or error.status_code is not None
    return isinstance(error, IdeogramServerUnavailable)


def is_response(error: IdeogramError) -> bool:
    """Return whether an error shows that the API responds to submits."""
    return isinstance(error, IdeogramRateLimited | IdeogramNotCharged) and error.status_code is not None
