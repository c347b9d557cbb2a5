"""
What a poll's answer or error means for a job.

Invariant: the deferred path (a trigger) and the blocking path (a worker) feed the same :class:`RequestPoll`
and act on nothing but its outcome, so that they cannot drift apart.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from airflow_provider_ideogram.api.back_off import back_off
from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL
from airflow_provider_ideogram.api.parsing import RequestStatus, failure
from airflow_provider_ideogram.api.poll_schedule import JobDurations, next_poll
from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramError,
    IdeogramJobError,
    IdeogramNotFound,
    IdeogramPermissionError,
    IdeogramResultExpired,
    IdeogramTemporaryError,
    IdeogramTimeout,
    job_unreachable,
)

#: The vendor holds status and result this many seconds from the submission, then they are gone.
RESULT_LIFETIME = 3600.0
#: Seconds before the end of that life in which nobody waits any more, so that the image can still be fetched.
FETCH_MARGIN = 180.0
_REPORTED = ("state", "error", "inference_seconds", "completed_at", "polls")
#: Errors in a row after which a job is given up: with the back-off some 4 minutes of an API that is away.
MAX_CONSECUTIVE_ERRORS = 12
#: Said of a 404 within the vendor's hour, which comes of a gateway, a replica that lags behind, or another account.
_TOO_EARLY = (
    "though its hour at the vendor is not over: check the connection's host and key; after that hour another attempt "
    "of the task that submitted it pays for a new one"
)


class Outcome(StrEnum):
    """What became of a request, as far as polling it can tell."""

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"
    CONTENT_BLOCKED = "content_blocked"
    #: The API no longer knows the request, and its hour is over.
    EXPIRED = "expired"
    #: The key is not, or no longer, allowed to ask.
    REFUSED = "refused"
    #: Too many polls in a row went wrong.
    UNREACHABLE = "unreachable"


@dataclass(slots=True)
class RequestPoll:
    """
    The polling of one request: what is known of it, and when to ask again.

    :param request_id: The vendor's id of the job.
    :param submitted_at: When it was submitted, in seconds since the epoch.
    :param poll_interval: The user's own interval in seconds, None for one that follows the job's age.
    :param model: The model's slug.
    :param durations: What is known of how long its jobs take; what this one took is added to it.
    """

    request_id: str
    submitted_at: float
    poll_interval: float | None = None
    model: str = DEFAULT_MODEL
    durations: JobDurations = field(default_factory=JobDurations, repr=False)
    outcome: Outcome = Outcome.PENDING
    state: str | None = None
    error: str | None = None
    inference_seconds: float | None = None
    completed_at: float | None = None
    polls: int = 0
    consecutive_errors: int = 0
    _retry_after: float = 0.0
    _age_not_done: float = 0.0

    @property
    def settled(self) -> bool:
        """Whether polling has nothing more to find out."""
        return self.outcome is not Outcome.PENDING

    @property
    def is_terminal_failure(self) -> bool:
        """Whether nothing can come of the job any more, and the ledger need not know it; all others are paid."""
        return self.outcome in (Outcome.FAILED, Outcome.CONTENT_BLOCKED, Outcome.EXPIRED)

    def hour_is_over(self, now: float) -> bool:
        """Return whether the vendor may have dropped the job: it is paid, and no "not found" before is its end."""
        return now >= self.submitted_at + RESULT_LIFETIME

    def on_status(self, status: RequestStatus, now: float) -> None:
        """Take in a status that was received at ``now``."""
        self.polls += 1
        self.consecutive_errors, self._retry_after = 0, 0.0
        self.outcome = Outcome.PENDING
        self.state, self.error, self.inference_seconds = status.state, status.error, status.inference_seconds
        if status.state == "COMPLETED":
            self.outcome, self.completed_at = Outcome.COMPLETED, now
            self._learn_duration()
        elif status.state == "FAILED":
            self.outcome = Outcome.CONTENT_BLOCKED if status.content_blocked else Outcome.FAILED
        else:
            self._age_not_done = now - self.submitted_at

    def _learn_duration(self) -> None:
        """Note how long the job took: the vendor's time for computing leaves out the one in its queue."""
        if self.inference_seconds is not None:
            self.durations.observe(self.model, max(self.inference_seconds, self._age_not_done))

    def on_error(self, error: IdeogramError, now: float) -> None:
        """Take in that a poll went wrong at ``now``."""
        self.polls += 1
        self.consecutive_errors += 1
        not_found, over = isinstance(error, IdeogramNotFound), self.hour_is_over(now)
        self.error = f"{error.reason}, {_TOO_EARLY}" if not_found and not over else error.reason
        self._retry_after = getattr(error, "retry_after", None) or 0.0
        if isinstance(error, IdeogramAuthenticationError | IdeogramPermissionError):
            self.outcome = Outcome.REFUSED
        elif not_found and over:
            self.outcome = Outcome.EXPIRED
        elif self.consecutive_errors >= MAX_CONSECUTIVE_ERRORS or not (
            not_found or isinstance(error, IdeogramTemporaryError)
        ):
            self.outcome = Outcome.UNREACHABLE

    def delay(self, now: float, rng: random.Random) -> float:
        """Return the seconds from ``now`` until the request is to be asked for next."""
        if self.consecutive_errors:
            return self._retry_after + back_off(self.consecutive_errors, rng)
        return next_poll(now - self.submitted_at, self.durations.poll_schedule_of(self.model), rng, self.poll_interval)

    def report(self) -> dict[str, Any]:
        """Return what a resumed task needs to know, as plain JSON without anything large or secret."""
        return {name: getattr(self, name) for name in _REPORTED} | {"outcome": self.outcome.value}

    def take_report(self, report: Mapping[str, Any]) -> None:
        """Take over what :meth:`report` of another process said."""
        for name in _REPORTED:
            setattr(self, name, report[name])
        self.outcome = Outcome(report["outcome"])

    def failure(self) -> IdeogramJobError:
        """Return the error that the outcome means, unless it is COMPLETED."""
        request = f"Request {self.request_id} was submitted and paid"
        if self.outcome in (Outcome.FAILED, Outcome.CONTENT_BLOCKED):
            return failure(self.request_id, RequestStatus("FAILED", self.inference_seconds, self.error))
        if self.outcome is Outcome.EXPIRED:
            return IdeogramResultExpired(
                f"{request}, but the vendor no longer knows it: status and result live one hour",
                "The image may still be in the account's request history. Another attempt of the task that submitted "
                "it, by its retries or after it was cleared, submits and pays for a new one.",
                request_id=self.request_id,
            )
        if self.outcome is Outcome.PENDING:
            last_error = f"; last error: {self.error}" if self.error else ""
            return IdeogramTimeout(
                f"{request}, but was not done in time (last state: {self.state or 'unknown'}{last_error})",
                "Raise the task's timeout; the vendor holds the result for one hour after the submission.",
                request_id=self.request_id,
            )
        return job_unreachable(self.request_id, self.error)


def deadline_of(submitted_at: float, timeout: float) -> float:
    """Return when waiting ends, in seconds since the epoch: at the timeout, in time to fetch at the latest."""
    return submitted_at + min(timeout, RESULT_LIFETIME - FETCH_MARGIN)
