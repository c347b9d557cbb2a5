"""
What a poll's response or error means for a request.

Invariant: the deferred path (a trigger) and the blocking path (a worker) feed the same :class:`RequestPoll` and act on
its outcome only, so that they cannot differ.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from airflow_provider_ideogram.api.back_off import back_off
from airflow_provider_ideogram.api.history import HistoryRow
from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL
from airflow_provider_ideogram.api.parsing import COMPLETED, FAILED, RequestStatus, failure
from airflow_provider_ideogram.api.poll_schedule import JobDurations, next_poll
from airflow_provider_ideogram.exceptions import (
    STILL_AVAILABLE,
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

#: Seconds from the submission for which the vendor serves status and result.
RESULT_LIFETIME = 3600.0
#: Seconds for which the vendor keeps the image file.
FILE_LIFETIME = 7 * 86400.0
#: Consecutive errors after which polling ends: with the back-off 2 to 3 minutes without the API.
MAX_CONSECUTIVE_ERRORS = 12
#: A request that FAILED after so few seconds did not run: the vendor validates parameters after it accepts a submit.
_LATE_VALIDATION_SECONDS = 1.0
_REPORTED = (
    "state",
    "error",
    "inference_seconds",
    "cost_usd",
    "remaining_credits",
    "image_url",
    "completed_at",
    "polls",
)
#: A 404 within the hour comes from a gateway, a replica that lags behind, or another account.
_EARLY_NOT_FOUND = "within the hour in which the vendor serves it: check the connection's base URL and API key"


class Outcome(StrEnum):
    """What polling found out about a request."""

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"
    CONTENT_BLOCKED = "content_blocked"
    #: Status or result answer 404 after the hour; the image may still be in the account's history.
    RECORD_GONE = "record_gone"
    #: The image can no longer be had; only :mod:`airflow_provider_ideogram.jobs.recovery` decides this.
    EXPIRED = "expired"
    #: The API refused the key (401 or 403).
    REFUSED = "refused"
    #: Too many consecutive polls failed.
    UNREACHABLE = "unreachable"


@dataclass(slots=True)
class RequestPoll:
    """
    The polling of one request.

    :param request_id: The vendor's id.
    :param submitted_at: When it was submitted, in seconds since the epoch.
    :param poll_interval: The user's own interval in seconds, None for one that follows the request's age.
    :param model: The model's slug.
    :param durations: The observed durations of all models, to which this request's is added.
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
    cost_usd: float | None = None
    remaining_credits: float | None = None
    image_url: str | None = None
    completed_at: float | None = None
    polls: int = 0
    consecutive_errors: int = 0
    _retry_after: float = 0.0
    _age_not_done: float = 0.0

    @property
    def settled(self) -> bool:
        """Whether further polls can't change the outcome."""
        return self.outcome is not Outcome.PENDING

    @property
    def is_terminal_failure(self) -> bool:
        """Whether the request will never have an image, so that the ledger need not keep it."""
        return self.outcome in (Outcome.FAILED, Outcome.CONTENT_BLOCKED, Outcome.EXPIRED)

    def hour_is_over(self, now: float) -> bool:
        """Return whether the vendor may have dropped the request's record."""
        return now >= self.submitted_at + RESULT_LIFETIME

    def on_status(self, status: RequestStatus, now: float) -> None:
        """Record a status that was received at ``now``."""
        self.polls += 1
        self.consecutive_errors, self._retry_after = 0, 0.0
        self.state, self.error, self.inference_seconds = status.state, status.error, status.inference_seconds
        self.cost_usd, self.remaining_credits = status.cost_usd, status.remaining_credits
        self.outcome = Outcome.PENDING
        if status.state == COMPLETED:
            self.outcome, self.completed_at = Outcome.COMPLETED, now
            self._observe_duration()
        elif status.state == FAILED:
            self.outcome = Outcome.CONTENT_BLOCKED if status.content_blocked else Outcome.FAILED
            # The time of the poll tells nothing: the first one comes later than such a failure.
            ran = status.inference_seconds
            if self.outcome is Outcome.FAILED and ran is not None and ran <= _LATE_VALIDATION_SECONDS:
                self.error = f"the model refused its parameters: {status.error or 'no reason given'}"
        else:
            self._age_not_done = now - self.submitted_at

    def on_history(self, row: HistoryRow, now: float) -> None:
        """Record what the account's history shows of the request."""
        self.state, self.error = row.state, row.error
        self.outcome = Outcome.PENDING
        if row.state == COMPLETED and row.image_url:
            self.outcome, self.image_url, self.cost_usd = Outcome.COMPLETED, row.image_url, row.cost_usd
            self.completed_at = self.completed_at or now
        elif row.state == FAILED:
            blocked = RequestStatus(FAILED, error=row.error).content_blocked
            self.outcome = Outcome.CONTENT_BLOCKED if blocked else Outcome.FAILED

    def _observe_duration(self) -> None:
        """Add the request's duration: the vendor's computing time leaves out the time in its queue."""
        if self.inference_seconds is not None:
            self.durations.observe(self.model, max(self.inference_seconds, self._age_not_done))

    def on_error(self, error: IdeogramError, now: float) -> None:
        """Record that a poll failed at ``now``."""
        self.polls += 1
        self.consecutive_errors += 1
        not_found, over = isinstance(error, IdeogramNotFound), self.hour_is_over(now)
        self.error = f"{error.reason}, {_EARLY_NOT_FOUND}" if not_found and not over else error.reason
        self._retry_after = getattr(error, "retry_after", None) or 0.0
        if isinstance(error, IdeogramAuthenticationError | IdeogramPermissionError):
            self.outcome = Outcome.REFUSED
        elif not_found and over:
            self.outcome = Outcome.RECORD_GONE
        elif self.consecutive_errors >= MAX_CONSECUTIVE_ERRORS or not (
            not_found or isinstance(error, IdeogramTemporaryError)
        ):
            self.outcome = Outcome.UNREACHABLE

    def delay(self, now: float, rng: random.Random) -> float:
        """Return the seconds from ``now`` until the request is polled next."""
        if self.consecutive_errors:
            return self._retry_after + back_off(self.consecutive_errors, rng)
        return next_poll(now - self.submitted_at, self.durations.schedule(self.model), rng, self.poll_interval)

    def report(self) -> dict[str, Any]:
        """Return what a resumed task needs, as plain JSON without anything large or secret."""
        return {name: getattr(self, name) for name in _REPORTED} | {"outcome": self.outcome.value}

    def take_report(self, report: Mapping[str, Any]) -> None:
        """Restore what :meth:`report` of another process returned."""
        for name in _REPORTED:
            setattr(self, name, report[name])
        self.outcome = Outcome(report["outcome"])

    def failure(self) -> IdeogramJobError:
        """Return the error that the outcome means, unless it is COMPLETED."""
        if self.outcome in (Outcome.FAILED, Outcome.CONTENT_BLOCKED):
            return failure(self.request_id, RequestStatus(FAILED, self.inference_seconds, self.error))
        if self.outcome is Outcome.EXPIRED:
            return IdeogramResultExpired(
                f"The vendor no longer holds the image of request {self.request_id}",
                "It was charged if it completed. Another attempt of the task that submitted it, by its retries or "
                "after a clear, submits and pays for a new request.",
                request_id=self.request_id,
            )
        if self.outcome is Outcome.PENDING:
            last_error = f"; last error: {self.error}" if self.error else ""
            return IdeogramTimeout(
                f"Request {self.request_id} was not done in time (last state: {self.state or 'unknown'}{last_error})",
                f"{STILL_AVAILABLE} Raise the task's timeout to wait longer.",
                request_id=self.request_id,
            )
        return job_unreachable(self.request_id, self.error)


def deadline_of(submitted_at: float, timeout: float) -> float:
    """Return when waiting for a request ends, in seconds since the epoch."""
    return submitted_at + timeout
