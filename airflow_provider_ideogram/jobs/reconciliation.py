"""
Reconciliation of a submit whose acceptance is unknown with the account's request history.

Invariant: a new submit follows only a readable history that does not show the request, for as long as rows may be late,
and a reason that permits it. "Could not read the history" is never "not in the history".
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_ideogram.api.history import HISTORY_LAG_MAX
from airflow_provider_ideogram.exceptions import (
    IdeogramError,
    IdeogramSubmitFailed,
    IdeogramTargetBusy,
    IdeogramUnknownSubmit,
)
from airflow_provider_ideogram.storage.image_record import iso_utc

if TYPE_CHECKING:
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.jobs.ledger import Intent, LedgerRecord

log = logging.getLogger(__name__)

#: Seconds until the history shows an accepted request as a rule. Public clients saw seconds; the vendor names two hours
#: as the longest delay.
HISTORY_LAG = 120.0
#: Seconds between two searches of the history.
RETRY_SECONDS = 20.0
#: Submits of one request at most, if all were answered 500, 502 or 503.
MAX_SUBMITS = 3


class RetryLater(Exception):
    """
    The decision takes time, and the task is to be deferred.

    :param delay: Seconds until the next attempt.
    :param error: The error to raise when the task no longer waits.
    """

    def __init__(self, delay: float, error: IdeogramError) -> None:
        super().__init__(error.reason)
        self.delay = delay
        self.error = error


@dataclass(frozen=True, slots=True)
class Reconciler:
    """
    Search the history for a submit, and decide whether another one may follow.

    :param hook: The API.
    :param resubmit: Whether an unknown submit may be followed by another one without a person.
    :param resubmit_on_5xx: Whether an answered 500, 502 or 503 may be followed by another submit without a person.
    """

    hook: IdeogramHook
    resubmit: bool
    resubmit_on_5xx: bool

    def find(
        self,
        record: LedgerRecord,
        intent: Intent,
        *,
        owns: bool,
        durable: bool,
        answered: IdeogramUnknownSubmit | None = None,
    ) -> str | None:
        """
        Return the id of the record's request, None if a new one may be submitted.

        :param intent: What the task asks for now.
        :param owns: Whether the record is of this task instance.
        :param durable: Whether the record outlives this execution, so that the task can wait.
        :param answered: The error of the submit, if this execution sent it.
        :raises RetryLater: If the history may not show the request yet, or can't be read.
        :raises IdeogramUnknownSubmit: If no reason permits a new submit.
        """
        readable = True
        try:
            found = self.hook.find_submitted(record.intent.request, record.intent.intent_at)
            found -= set(record.intent.excluded_request_ids)
        except IdeogramError as error:
            # A gateway's connection has no history: there waiting does not help.
            readable = not self.hook.has_history
            unknown = _unknown(record, f"can't be read ({error.reason})", answered)
        else:
            if len(found) == 1:
                (request_id,) = found
                log.warning("The account's history shows that the submit was accepted as request %s", request_id)
                return request_id
            shown = f"{len(found)} requests" if found else "no request"
            unknown = _unknown(record, f"shows {shown} with its inputs", answered)
        if durable:
            self._wait(record, unknown, readable)
        reason = self._resubmit_reason(record, intent, owns)
        if reason is None or not readable:
            raise unknown
        log.warning("%s. %s: a new request is submitted", unknown.reason, reason)
        return None

    def _wait(self, record: LedgerRecord, unknown: IdeogramUnknownSubmit, readable: bool) -> None:
        """Raise RetryLater while the history may be late, or can't be read."""
        seconds_left = HISTORY_LAG - (time.time() - record.intent.intent_at)
        rng = random.Random()
        if seconds_left > 0:
            # A failed submit is rarely in the history: one wait for the whole lag costs fewer workers.
            failed = record.intent.submit_attempts > 0
            delay = seconds_left if failed else min(seconds_left, RETRY_SECONDS)
            raise RetryLater(delay + (rng.uniform(0.0, RETRY_SECONDS) if failed else 0.0), unknown)
        if not readable:
            raise RetryLater(RETRY_SECONDS + rng.uniform(0.0, RETRY_SECONDS), unknown)

    def _resubmit_reason(self, record: LedgerRecord, intent: Intent, owns: bool) -> str | None:
        """Return why another submit may follow, None if it may not."""
        age = time.time() - record.intent.intent_at
        if self.resubmit:
            return "on_unknown_submit is 'resubmit'"
        if record.intent.submit_attempts and self.resubmit_on_5xx:
            if record.intent.submit_attempts < MAX_SUBMITS:
                return "The submit was answered by an error of the server"
        elif not owns and age > HISTORY_LAG_MAX:
            return "The account's history has not shown it for hours"
        if owns and intent.max_tries != record.intent.max_tries:  # Airflow changes it on a clear only
            return "A person cleared the task"
        if owns and intent.fingerprint != record.intent.fingerprint:
            return "The inputs were changed"
        return None


def target_busy(why: str) -> IdeogramTargetBusy:
    """Return the error of a target that another task uses."""
    return IdeogramTargetBusy(
        f"The target is in use: {why}",
        "Nothing was charged. A retry checks again; give each task its own key, or run the tasks one after another.",
    )


def _unknown(record: LedgerRecord, history: str, answered: IdeogramUnknownSubmit | None) -> IdeogramUnknownSubmit:
    intent = record.intent
    what = answered.reason if answered else f"A submit of {intent.owner} at {iso_utc(intent.intent_at)} has no response"
    failed = intent.submit_attempts > 0
    kind = IdeogramSubmitFailed if failed else IdeogramUnknownSubmit
    times = f" ({intent.submit_attempts} submits)" if intent.submit_attempts > 1 else ""
    return kind(
        f"{what}{times}; the account's request history {history}",
        f"The request for {intent.target} may have been accepted, and is charged if it completes; rows of the history "
        f"may be hours late. Each later attempt searches again before it pays. Clear the task {intent.owner} to submit "
        "a new request, or set on_unknown_submit='resubmit'.",
        status_code=answered.status_code if answered else None,
    )
