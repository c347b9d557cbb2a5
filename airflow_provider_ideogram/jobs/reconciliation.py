"""
Reconciliation of a submit whose acceptance is unknown with the account's request history.

Invariant: a request that the history shows is adopted, unless another record holds it: the history can't tell equal
inputs of two targets apart. A new submit needs a reason: a person, or the user's argument, accepts that both may be
paid, or the submit was answered by an error of the server and a readable history does not show it for two minutes. A
history that can't be read says nothing: while it fails to respond, nothing is submitted; while it refuses the call,
only the user's argument is a reason. A connection without a history leaves it to the person.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from airflow_provider_ideogram.api.history import CLOCK_SKEW, HISTORY_LAG_MAX
from airflow_provider_ideogram.api.parsing import FAILED
from airflow_provider_ideogram.exceptions import (
    IdeogramError,
    IdeogramNotCharged,
    IdeogramSubmitFailed,
    IdeogramUnknownSubmit,
)
from airflow_provider_ideogram.storage.image_record import iso_utc

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.history import HistoryRow
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger
    from airflow_provider_ideogram.jobs.record import Intent, LedgerRecord

log = logging.getLogger(__name__)

#: Seconds until the history shows an accepted request as a rule. Public clients saw seconds; the vendor names two hours
#: as the longest delay.
HISTORY_LAG = 120.0
#: Seconds before a submit in which its row can be created, by clocks that differ. An earlier row may be of a previous
#: attempt: taken for the submit, it would hide a request that is charged and shown later.
_OWN_SKEW = 5.0
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

    :param found: The requests that may be it, the oldest first; None if the history can't be read.
    :param text: The result in words, after "the account's request history".
    :param is_temporary: Whether a later search may have another result because the history did not respond.
    """

    found: Sequence[HistoryRow] | None
    text: str
    is_temporary: bool = False


@dataclass(frozen=True, slots=True)
class Reconciler:
    """
    Search the history for a submit, and decide whether another one may follow.

    :param hook: The API.
    :param ledger: The ledger of the target's bucket.
    :param resubmit: Whether an unknown submit may be followed by another one without a person.
    :param resubmit_on_5xx: Whether an answered 500, 502 or 503 may be followed by another submit without a person.
    :param is_stored: Whether the target has the image of a request.
    """

    hook: IdeogramHook
    ledger: Ledger | NoLedger
    resubmit: bool
    resubmit_on_5xx: bool
    is_stored: Callable[[str], bool]

    def find(
        self,
        record: LedgerRecord,
        intent: Intent,
        *,
        owns: bool,
        durable: bool,
        answered: IdeogramUnknownSubmit | None = None,
    ) -> HistoryRow | None:
        """
        Return the record's request, None if a new one may be submitted.

        :param intent: What the task asks for now.
        :param owns: Whether the record is of this task instance.
        :param durable: Whether the record outlives this execution, so that the task can wait.
        :param answered: The error of the submit, if this execution sent it.
        :raises RetryLater: If the history may not show the request yet, or does not respond.
        :raises IdeogramUnknownSubmit: If no reason permits a new submit.
        """
        search = self._search(record)
        # Of several, one is taken only if this record's own submits explain them.
        if search.found and (len(search.found) == 1 or record.intent.unsettled_since is not None):
            log.warning(
                "The account's history shows that the submit was accepted as request %s", search.found[0].request_id
            )
            return search.found[0]
        unknown = _unknown(record, search.text, answered)
        if durable:
            _wait(record, unknown, is_temporary=search.is_temporary)
        reason = self._resubmit_reason(
            record, intent, owns, was_read=search.found is not None or not self.hook.has_history
        )
        if reason is None and durable and search.found == [] and self._may_repeat(record, intent):
            reason = "The submit was answered by an error of the server"
        if reason is None or search.is_temporary:
            raise unknown
        log.warning("%s. %s: a new request is submitted", unknown.reason, reason)
        return None

    def _search(self, record: LedgerRecord) -> _Search:
        intent = record.intent
        try:
            ids = self.hook.find_submitted(intent.request, intent.first_submit_at, intent.intent_at)
            ids.difference_update(intent.excluded_request_ids)
            others = list(self._others(record)) if ids else []
            if any(_may_be_submitting(other, intent) for other in others):
                return _Search(None, "shows a request that may be on its way for another target", is_temporary=True)
            rows = [self.hook.find_in_history(id_) for id_ in ids.difference(other.request_id for other in others)]
            found = self._own(sorted((row for row in rows if row is not None), key=attrgetter("created_at")), intent)
        except Exception as error:  # of any class: "could not be read" is never "is not there"
            # Without a history, or with one that refuses the key, another search has the same result.
            is_temporary = not isinstance(error, IdeogramNotCharged)
            reason = error.reason if isinstance(error, IdeogramError) else type(error).__name__
            return _Search(None, f"can't be read ({reason})", is_temporary)
        if intent.unsettled_since is not None:  # the failure of one does not settle the others
            found = [row for row in found if row.state != FAILED]
        return _Search(found, f"shows {len(found) or 'no'} requests with its inputs")

    def _own(self, rows: Sequence[HistoryRow], intent: Intent) -> list[HistoryRow]:
        """Return the rows that may be of an intent's submits, and not of an ended request of an earlier attempt."""
        own = [row for row in rows if row.created_at >= intent.first_submit_at - _OWN_SKEW]
        if own or time.time() < intent.intent_at + HISTORY_LAG:  # the submit's own row may be shown later
            return own
        return [row for row in rows if row.state != FAILED and not self.is_stored(row.request_id)]

    def is_held(self, record: LedgerRecord) -> bool:
        """Return whether another record has the same request; raise IdeogramStorageError if one can't be read."""
        return any(other.request_id == record.request_id for other in self._others(record))

    def _others(self, record: LedgerRecord) -> Iterator[LedgerRecord]:
        return self.ledger.others(record.key, record.intent.first_submit_at - 2 * CLOCK_SKEW)

    def _resubmit_reason(self, record: LedgerRecord, intent: Intent, owns: bool, *, was_read: bool) -> str | None:
        """Return why the user accepts that both requests may be paid, None if no reason is known."""
        if self.resubmit and record.intent.submit_attempts < MAX_SUBMITS:
            return "on_unknown_submit is 'resubmit'"
        if not was_read:
            return None
        if not owns:
            age = time.time() - record.intent.intent_at
            return "Another task sent the submit hours ago" if age > HISTORY_LAG_MAX else None
        if intent.max_tries != record.intent.max_tries:  # Airflow changes it on a clear only
            return "A person cleared the task"
        return "The inputs were changed" if intent.fingerprint != record.intent.fingerprint else None

    def _may_repeat(self, record: LedgerRecord, intent: Intent) -> bool:
        """Return whether the vendor's guidance applies: a submit that was answered 500, 502 or 503 is sent again."""
        same, sent = intent.fingerprint == record.intent.fingerprint, record.intent
        return self.resubmit_on_5xx and same and sent.is_answered and sent.submit_attempts < MAX_SUBMITS


def _may_be_submitting(other: LedgerRecord, intent: Intent) -> bool:
    """Return whether the same request may be on its way for another target."""
    age = time.time() - other.intent.intent_at
    return other.is_in_doubt and age < HISTORY_LAG and other.intent.request == intent.request


def _wait(record: LedgerRecord, unknown: IdeogramUnknownSubmit, *, is_temporary: bool) -> None:
    """Raise RetryLater while the history may not show the request yet, or does not respond."""
    seconds_left = HISTORY_LAG - (time.time() - record.intent.intent_at)
    jitter = random.Random().uniform(0.0, RETRY_SECONDS)
    if seconds_left > 0 and record.intent.is_answered:
        # The history rarely shows a failed submit: one wait for the whole lag takes fewer slots of workers.
        raise RetryLater(seconds_left + jitter, unknown)
    if seconds_left > 0:
        raise RetryLater(min(seconds_left, RETRY_SECONDS), unknown)
    if is_temporary:
        raise RetryLater(RETRY_SECONDS + jitter, unknown)


def _unknown(record: LedgerRecord, history: str, answered: IdeogramUnknownSubmit | None) -> IdeogramUnknownSubmit:
    intent = record.intent
    submits = intent.submits_before + 1
    end = "was answered by an error of the server" if intent.is_answered else "has no response"
    what = answered.reason if answered else f"A submit of {intent.owner} at {iso_utc(intent.intent_at)} {end}"
    times = f" ({submits} submits)" if submits > 1 else ""
    kind = IdeogramSubmitFailed if intent.is_answered else IdeogramUnknownSubmit
    return kind(
        f"{what}{times}; the account's request history {history}",
        f"The request for {intent.target} may have been accepted, and is charged if it completes; rows of the history "
        "may be hours late. Each later attempt searches again before it pays, unless the task has durable=False. Clear "
        f"the task {intent.owner} to submit a new request once the history can be read and does not show it, or set "
        "on_unknown_submit='resubmit'.",
        status_code=answered.status_code if answered else None,
    )
