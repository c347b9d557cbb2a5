"""
The ledger's record of a target, as one task writes it.

Invariant: the account admits a submit before its intent is written. An intent whose submit was refused or never sent is
taken back together with its reservation.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_provider_ideogram import metrics
from airflow_provider_ideogram.exceptions import IdeogramBudgetReached, IdeogramLedgerError
from airflow_provider_ideogram.jobs.admission import admitted, settle_replaced
from airflow_provider_ideogram.jobs.ledger import RecordConflict

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from airflow_provider_ideogram.jobs.admission import Admission
    from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger
    from airflow_provider_ideogram.jobs.record import Intent, LedgerRecord
    from airflow_provider_ideogram.storage.image_record import ImageRecord
    from airflow_provider_ideogram.storage.target import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TargetRecord:
    """
    The record of a target.

    :param ledger: The ledger of the target's bucket.
    :param admission: The account's rate limit and budget.
    :param target: Where the image goes.
    :param owner: The task instance: ``dag_id/run_id/task_id/map_index``.
    """

    ledger: Ledger | NoLedger
    admission: Admission
    target: Target
    owner: str

    @property
    def key(self) -> str:
        """The record's own key."""
        return self.ledger.key_of(self.target, self.owner)

    def read(self) -> LedgerRecord | None:
        """Return the record, None if it is missing; raises as :meth:`Ledger.read` does."""
        return self.ledger.read(self.key)

    def owns(self, record: LedgerRecord) -> bool:
        """Return whether the record is of this task instance."""
        return record.intent.owner == self.owner

    def whose(self, record: LedgerRecord) -> str:
        """Return the record's task in words."""
        return "an earlier attempt of this task" if self.owns(record) else f"the task {record.intent.owner}"

    def write(self, intent: Intent) -> LedgerRecord:
        """Write the first record; raises as :meth:`Ledger.write_intent` and the admission do."""
        with self._admitted(intent) as reserved:
            return self.ledger.write_intent(self.key, reserved)

    def replace(self, record: LedgerRecord, intent: Intent) -> LedgerRecord:
        """Write an intent over the record; raises as :meth:`Ledger.replace` and the admission do."""
        in_doubt = record.is_in_doubt
        try:
            with self._admitted(record.followed_by(intent, time.time())) as reserved:
                if in_doubt:  # both submits may be charged
                    settle_replaced(self.admission, record.intent.reservation, None)
                return self.ledger.replace(record, reserved)
        except IdeogramBudgetReached as reached:
            raise (reached.after_unknown_submit() if in_doubt else reached) from None

    def take_back(self, record: LedgerRecord, replaced: LedgerRecord | None) -> None:
        """
        Leave the ledger as it was before an intent whose submit was refused or never sent.

        :param replaced: The record that the intent replaced, None for none.
        """
        if replaced is None:
            self.ledger.cancel_intent(record)
        else:
            self.ledger.restore(record, replaced)
        self.admission.cancel(record.intent.reservation)

    def add_failed_submit(self, record: LedgerRecord) -> LedgerRecord:
        """Record that the submit was answered 500, 502 or 503; without a record it stays an unknown submit."""
        attempts = record.intent.submit_attempts + 1
        try:
            return self.ledger.replace(record, replace(record.intent, submit_attempts=attempts))
        except (RecordConflict, IdeogramLedgerError) as problem:
            log.warning("The failed submit could not be recorded: %s", _reason_of(problem))
            return record

    def add_request(self, record: LedgerRecord, request_id: str) -> LedgerRecord:
        """Record the id of an accepted request."""
        try:
            recorded = self.ledger.record_request(record, request_id)
        except (RecordConflict, IdeogramLedgerError) as problem:
            log.error(
                "Request %s is submitted, but its id could not be recorded in the ledger (%s). The task continues. If "
                "it ends before the image is stored, the next attempt searches the account's history for the request",
                request_id,
                _reason_of(problem),
            )
            recorded = replace(record, request_id=request_id)
        metrics.submitted(record.intent.request.model)
        return recorded

    def end(self, record: LedgerRecord, image: ImageRecord, fingerprint: str, *, is_result: bool = True) -> None:
        """
        Settle and delete a record that the image at the target ends: that of its request, or of no known one.

        :param fingerprint: The fingerprint of the image's inputs.
        :param is_result: Whether the image is the task's result.
        """
        cost = None
        if record.is_of_image(image.request_id, image.submitted_at):
            cost = image.charged_usd
        elif not is_result or not self.is_ended_by_image(record, fingerprint):
            return
        if self.admission.settle(record.intent.reservation, cost):
            self.ledger.delete(record.key, record.etag)

    def is_ended_by_image(self, record: LedgerRecord, fingerprint: str) -> bool:
        """Return whether a stored image of these inputs ends the record, which is of another request."""
        return record.is_ended_by_image(self.owner, fingerprint, time.time())

    def _admitted(self, intent: Intent) -> AbstractContextManager[Intent]:
        self.ledger.check_store()  # before the slot, which passes meanwhile
        return admitted(self.admission, intent, self.ledger.url_of(self.key))


def _reason_of(problem: RecordConflict | IdeogramLedgerError) -> str:
    """Return why a record could not be written; the advice of a ledger's error is about a task without a submit."""
    return problem.reason if isinstance(problem, IdeogramLedgerError) else "its record was replaced meanwhile"
