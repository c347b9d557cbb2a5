"""
Reconciliation of a submit whose acceptance is unknown with the account's request history.

Invariant: a request that the history shows is adopted. A new submit needs a reason: a person, or the user's argument,
accepts that both may be paid, or the submit was answered by an error of the server and a readable history does not show
it for two minutes. While the history fails to respond, nothing is submitted.
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
    IdeogramNotCharged,
    IdeogramSubmitFailed,
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
#: Submits of one request without a person at most, if all were answered 500, 502 or 503.
MAX_SUBMITS = 3


class RetryLater(Exception):
    """
    The decision takes time, the rate limit is reached or the target is busy: the task is to be deferred.

    :param delay: Seconds until the next attempt.
    :param error: The error to raise when the task no longer waits.
    """

    def __init__(self, delay: float, error: IdeogramError) -> None:
        super().__init__(error.reason)
        self.delay = delay
        self.error = error


@dataclass(frozen=True, slots=True)
class _Search:
    """
    The result of a search of the history for a submit.

    :param found: The ids of the requests that may be it; None if the history can't be read.
    :param text: The result in words, after "the account's request history".
    :param is_temporary: Whether a later search may have another result because the history did not respond.
    """

    found: frozenset[str] | None
    text: str
    is_temporary: bool = False


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
        :raises RetryLater: If the history may not show the request yet, or does not respond.
        :raises IdeogramUnknownSubmit: If no reason permits a new submit.
        """
        search = self._search(record)
        if search.found is not None and len(search.found) == 1:
            (request_id,) = search.found
            log.warning("The account's history shows that the submit was accepted as request %s", request_id)
            return request_id
        unknown = _unknown(record, search.text, answered)
        if durable:
            _wait(record, unknown, is_temporary=search.is_temporary)
        reason = self._resubmit_reason(record, intent, owns)
        if reason is None and durable and search.found == frozenset() and self._may_repeat(record, intent):
            reason = "The submit was answered by an error of the server"
        if reason is None or search.is_temporary:
            raise unknown
        log.warning("%s. %s: a new request is submitted", unknown.reason, reason)
        return None

    def _search(self, record: LedgerRecord) -> _Search:
        try:
            found = self.hook.find_submitted(record.intent.request, record.intent.intent_at)
        except IdeogramError as error:
            # Without a history, or with one that refuses the key, another search has the same result.
            is_temporary = not isinstance(error, IdeogramNotCharged)
            return _Search(None, f"can't be read ({error.reason})", is_temporary)
        found -= set(record.intent.excluded_request_ids)
        return _Search(frozenset(found), f"shows {len(found) or 'no'} requests with its inputs")

    def _resubmit_reason(self, record: LedgerRecord, intent: Intent, owns: bool) -> str | None:
        """Return why the user accepts that both requests may be paid, None if no reason is known."""
        if self.resubmit and record.intent.submit_attempts < MAX_SUBMITS:
            return "on_unknown_submit is 'resubmit'"
        if not owns:
            age = time.time() - record.intent.intent_at
            return "Another task sent the submit hours ago" if age > HISTORY_LAG_MAX else None
        if intent.max_tries != record.intent.max_tries:  # Airflow changes it on a clear only
            return "A person cleared the task"
        return "The inputs were changed" if intent.fingerprint != record.intent.fingerprint else None

    def _may_repeat(self, record: LedgerRecord, intent: Intent) -> bool:
        """Return whether the vendor's guidance applies: a submit that was answered 500, 502 or 503 is sent again."""
        same = intent.fingerprint == record.intent.fingerprint
        return self.resubmit_on_5xx and same and 0 < record.intent.submit_attempts < MAX_SUBMITS


def _wait(record: LedgerRecord, unknown: IdeogramUnknownSubmit, *, is_temporary: bool) -> None:
    """Raise RetryLater while the history may not show the request yet, or does not respond."""
    seconds_left = HISTORY_LAG - (time.time() - record.intent.intent_at)
    jitter = random.Random().uniform(0.0, RETRY_SECONDS)
    if seconds_left > 0 and record.intent.submit_attempts:
        # The history rarely shows a failed submit: one wait for the whole lag takes fewer slots of workers.
        raise RetryLater(seconds_left + jitter, unknown)
    if seconds_left > 0:
        raise RetryLater(min(seconds_left, RETRY_SECONDS), unknown)
    if is_temporary:
        raise RetryLater(RETRY_SECONDS + jitter, unknown)


def _unknown(record: LedgerRecord, history: str, answered: IdeogramUnknownSubmit | None) -> IdeogramUnknownSubmit:
    intent = record.intent
    attempts = intent.submit_attempts
    end = "was answered by an error of the server" if attempts else "has no response"
    what = answered.reason if answered else f"A submit of {intent.owner} at {iso_utc(intent.intent_at)} {end}"
    times = f" ({attempts} submits)" if attempts > 1 else ""
    kind = IdeogramSubmitFailed if attempts else IdeogramUnknownSubmit
    return kind(
        f"{what}{times}; the account's request history {history}",
        f"The request for {intent.target} may have been accepted, and is charged if it completes; rows of the history "
        "may be hours late. Each later attempt searches again before it pays, unless the task has durable=False. Clear "
        f"the task {intent.owner} to submit a new request, or set on_unknown_submit='resubmit'.",
        status_code=answered.status_code if answered else None,
    )
