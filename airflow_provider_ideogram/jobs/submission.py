"""
Getting the request of a target: an existing one, or a new one.

Invariant: a submit follows an intent in the ledger that no other task holds, and an intent follows everything that can
fail without a submit. A request that the ledger or the account's history has is never submitted again; only its own
end, or a person, frees the target.
"""

from __future__ import annotations

import logging
import random
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram import metrics
from airflow_provider_ideogram.api.back_off import submit_delay
from airflow_provider_ideogram.api.polling import Outcome, RequestPoll
from airflow_provider_ideogram.exceptions import (
    IdeogramBudgetReached,
    IdeogramJobUnreachable,
    IdeogramRateLimited,
    IdeogramSubmitFailed,
    IdeogramTargetBusy,
    IdeogramUnknownSubmit,
)
from airflow_provider_ideogram.jobs.admission import settle_abandoned
from airflow_provider_ideogram.jobs.completion import poll_once
from airflow_provider_ideogram.jobs.identity import attempt_group
from airflow_provider_ideogram.jobs.ledger import RecordConflict
from airflow_provider_ideogram.jobs.previous_request import request_of_image
from airflow_provider_ideogram.jobs.reconciliation import RETRY_SECONDS, Reconciler, RetryLater
from airflow_provider_ideogram.jobs.record import Intent, LedgerRecord
from airflow_provider_ideogram.jobs.recovery import recover
from airflow_provider_ideogram.jobs.target_image import TargetImage
from airflow_provider_ideogram.jobs.target_record import TargetRecord
from airflow_provider_ideogram.storage.image_record import ImageRecord, made_from, paid_by_group

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_ideogram.api.job import Job
    from airflow_provider_ideogram.api.parameters import GenerationRequest
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.jobs.admission import Admission
    from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger
    from airflow_provider_ideogram.storage.image_store import ImageStore
    from airflow_provider_ideogram.storage.target import Target

log = logging.getLogger(__name__)

#: Seconds in which an intent without a request id is treated as in progress. Later it is an unknown submit, and the
#: history is searched for it, also if the submit is still running.
SUBMIT_SECONDS = 60.0
#: Seconds from its submission in which a completed request's own task is given the time to store the image.
STORING_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Submitter:
    """
    Get the request of one target.

    :param hook: The API.
    :param store: The images in S3.
    :param ledger: The ledger of the target's bucket.
    :param target: Where the image goes.
    :param owner: The task instance: ``dag_id/run_id/task_id/map_index``.
    :param max_tries: The task instance's, which changes on a clear.
    :param if_exists: What an object at the target means: ``reuse``, ``overwrite`` or ``fail``.
    :param resubmit: Whether an unknown submit may be followed by another one without a person.
    :param admission: The account's rate limit and budget; what it raises passes through before an intent is written.
    :param resubmit_on_5xx: Whether an answered 500, 502 or 503 may be followed by another submit without a person.
    :param tried_since: When the task's first attempt began at the earliest, in seconds since the epoch by Airflow's
        clock; None if that is unknown.
    :param before_second: Called before a request is submitted in place of one that is or may be charged; what it raises
        passes through.
    :param before_first: Called before a request is submitted where the ledger has no earlier one; what it raises passes
        through.
    :param keeps_first_inputs: Whether another attempt sends the inputs that the first one recorded, instead of its own.
    """

    hook: IdeogramHook
    store: ImageStore
    ledger: Ledger | NoLedger
    target: Target
    owner: str
    max_tries: int
    if_exists: str
    resubmit: bool
    admission: Admission
    resubmit_on_5xx: bool = True
    tried_since: float | None = None
    keeps_first_inputs: bool = False
    before_second: Callable[[], None] = lambda: None
    before_first: Callable[[], None] = lambda: None

    def get_or_submit(
        self, request: GenerationRequest, *, absent: bool = False
    ) -> ImageRecord | tuple[Job, RequestPoll]:
        """
        Find the image, reattach to the target's request, or submit a new one.

        :param absent: Whether a recent listing shows no object at the target, and the bucket exists. With a ledger the
            target is read again right before the submit.
        :return: The image if it is stored; else the request and its poll.
        :raises IdeogramObjectExists: If an object is at the target and ``if_exists`` is ``fail``.
        :raises RetryLater: If the decision takes time, or the rate limit is reached.
        :raises IdeogramTargetBusy: If another task's request for the target is running and has other inputs.
        :raises IdeogramUnknownSubmit: If a submit may have been accepted, and the history does not show it.
        """
        try:
            result = self._get_or_submit(request, absent=absent)
        except IdeogramRateLimited as late:  # the task was held up before its intent was written
            raise RetryLater(late.retry_after or 0.0, late) from None
        if isinstance(result, ImageRecord) and result.reused:
            metrics.reused()
        return result

    def _get_or_submit(self, request: GenerationRequest, *, absent: bool) -> ImageRecord | tuple[Job, RequestPoll]:
        self.hook.get_conn()  # an error of the connection precedes the intent
        head = None if absent and self.ledger.is_durable else self.store.find(self.target)
        stored = self._stored(head, request) if head else None
        if stored is not None:
            return stored
        with_seed = request.with_seed(random.SystemRandom())
        # The time is from before the POST, so that the request's hour never ends later than counted.
        intent = Intent(with_seed, request.fingerprint, self.target.uri, time.time(), self.owner, self.max_tries)
        # A request that exists needs no admission.
        existing = self._record.read() if self.admission.is_shared else None
        try:
            if existing is None:
                record = self._record.write(intent)
                return self._stored_meanwhile(head, record, request) or self._submit(record)
        except RecordConflict:
            existing = self._record.read()
        if existing is not None:
            if absent and (stored := self._image.stored_since(None, request)):  # its slice died, or another task's is
                self._record.end(existing, stored, request.fingerprint)
                return stored
            if self.keeps_first_inputs and existing.intent.attempt_group == self._group:
                intent = replace(intent, request=existing.intent.request, fingerprint=existing.intent.fingerprint)
            with suppress(RecordConflict):
                if existing.not_submitted:
                    return self._submit_over(existing, intent, head, settled=True, is_free=True)
                return self._reattach(existing, intent, head)
        raise RetryLater(RETRY_SECONDS, _target_busy(f"its record {self.record_key} was changed just now"))

    def find_previous_request(self) -> GenerationRequest | None:
        """
        Return the request of an earlier attempt of this task, None if there was none since the last clear.

        :raises IdeogramJobUnreachable: If its image is stored, and its inputs are unknown.
        """
        record = self._record.read()
        if record is not None:
            own = record.intent.attempt_group == self._group
            return record.intent.request.as_asked(record.intent.fingerprint) if own else None
        own_image = self._image.own()  # the attempt ended between the deletion of the record and its own end
        return request_of_image(self.hook, *own_image) if own_image else None

    @property
    def record_key(self) -> str:
        """The key of the target's record in the ledger."""
        return self._record.key

    @property
    def _group(self) -> str:
        return attempt_group(self.owner, self.max_tries)

    @property
    def _record(self) -> TargetRecord:
        return TargetRecord(self.ledger, self.admission, self.target, self.owner)

    @property
    def _image(self) -> TargetImage:
        return TargetImage(self.store, self.target, self._group, self.if_exists, self.tried_since)

    def _stored(self, head: Mapping[str, Any], request: GenerationRequest) -> ImageRecord | None:
        """Return the image at the target if it is this task's own or is to be reused."""
        if self.keeps_first_inputs and paid_by_group(head, self._group):
            request = request_of_image(self.hook, self.target, head)
        record = self._record.read() if made_from(head, request) else None
        if record is not None:
            image = ImageRecord.of_object(self.target, head, request)
            self._record.end(record, image, request.fingerprint, is_result=self.if_exists == "reuse")
        return self._image.usable(head, request)

    def _stored_meanwhile(
        self,
        before: Mapping[str, Any] | None,
        record: LedgerRecord,
        request: GenerationRequest,
        replaced: LedgerRecord | None = None,
    ) -> ImageRecord | None:
        """
        Return the image that was stored, and its record deleted, since the target was read.

        :raises IdeogramObjectExists: If another object was, and ``if_exists`` is ``fail``; nothing is open then.
        """
        if not self.ledger.is_durable:
            return None
        try:
            stored = self._image.stored_since(before, request, refuses_others=replaced is None)
            if stored is None and self.keeps_first_inputs and (own := self._image.own()):
                stored = ImageRecord.of_object(*own, request_of_image(self.hook, *own), own=True)
        except BaseException:  # also Airflow's timeout: nothing was submitted
            self._record.take_back(record, replaced)
            raise
        if stored is not None:
            is_ended = replaced is not None and self._record.is_ended_by_image(replaced, request.fingerprint)
            self._record.take_back(record, None if is_ended else replaced)
        return stored

    def _reattach(
        self, record: LedgerRecord, intent: Intent, head: Mapping[str, Any] | None
    ) -> ImageRecord | tuple[Job, RequestPoll]:
        """
        Go on with the record of an earlier attempt or of another task.

        :param head: S3's description of the object that was at the target.
        """
        if record.request_id is None:
            seconds_left = SUBMIT_SECONDS - (time.time() - record.intent.intent_at)
            if seconds_left > 0 and not record.intent.is_answered:
                raise RetryLater(min(seconds_left, RETRY_SECONDS), self._submit_under_way(record))
            found = self._reconcile(record, intent)
            if found is None:
                return self._submit_over(record, intent, head, is_free=record.intent.is_answered)
            record = found
        own, same = self._record.owns(record), record.intent.fingerprint == intent.fingerprint
        poll = RequestPoll(record.job.request_id, record.intent.intent_at)
        poll_once(self.hook, poll)
        if poll.outcome is Outcome.RECORD_GONE and same:
            self._recover(record, poll)
        if not same and not own and self._is_needed_by_other_task(record, poll):
            state = poll.state or "perhaps running"
            raise _target_busy(
                f"request {record.request_id} of {self._record.whose(record)}, with other inputs, is {state}"
            )
        if not same:
            log.warning(
                "Request %s of %s was submitted for %s with other inputs. It is abandoned, and a new one is submitted",
                record.request_id,
                self._record.whose(record),
                record.intent.target,
            )
            settle_abandoned(self.admission, record.intent.reservation, poll)
            return self._submit_over(record, intent, head, settled=poll.is_terminal_failure, is_free=_is_free(poll))
        is_retry = record.intent.attempt_group == self._group
        if poll.outcome in (Outcome.FAILED, Outcome.EXPIRED) or (
            poll.outcome is Outcome.CONTENT_BLOCKED and not is_retry
        ):
            log.warning("%s. A new request is submitted", poll.failure().reason)
            settle_abandoned(self.admission, record.intent.reservation, poll)
            return self._submit_over(record, intent, head, settled=True, is_free=_is_free(poll))
        log.info("Reattached to request %s of %s: nothing is submitted", record.request_id, self._record.whose(record))
        # A clear begins a new attempt group: later attempts must recognise the stored image as their own.
        group = (intent if own else record.intent).attempt_group
        return replace(record.job, paid_by_other_task=not own, attempt_group=group), poll

    def _recover(self, record: LedgerRecord, poll: RequestPoll) -> None:
        """Search the history for a request; the error says if another task has paid for it."""
        try:
            recover(self.hook, poll, record.intent.request)
        except IdeogramJobUnreachable as error:
            error.paid_by_other_task = not self._record.owns(record)
            raise

    def _submit_over(
        self,
        existing: LedgerRecord,
        intent: Intent,
        head: Mapping[str, Any] | None,
        *,
        settled: bool = False,
        is_free: bool = False,
    ) -> ImageRecord | tuple[Job, RequestPoll]:
        """
        Submit a new request in place of a record's, unless its image was stored since the target was read.

        :param settled: Whether the record's request will never have an image.
        :param is_free: Whether it is not charged, as far as the vendor's answers say.
        """
        if not is_free:
            self.before_second()
        try:
            record = self._record.replace(existing, intent)
        except IdeogramBudgetReached:
            if settled:  # its record would pass for an open request
                self.ledger.delete(existing.key, existing.etag)
            raise
        replaced = None if settled else existing
        request = intent.request.as_asked(intent.fingerprint)
        return self._stored_meanwhile(head, record, request, replaced) or self._submit(record, replaced)

    def _submit(
        self, record: LedgerRecord, replaced: LedgerRecord | None = None, *, repeated: bool = False
    ) -> tuple[Job, RequestPoll]:
        """
        Submit the request of an intent.

        :param replaced: The record that the intent replaced, whose request may still be accepted or running.
        :param repeated: Whether it follows an unknown submit of this execution: at most once.
        """
        try:
            if replaced is None:
                self.before_first()
            self.admission.check()
            submission = self.hook.submit(record.intent.request, is_admitted=self.admission.is_shared)
        except IdeogramUnknownSubmit as unknown:
            log.warning("%s: the account's request history is searched for it", unknown.reason)
            self.admission.submitted()
            if isinstance(unknown, IdeogramSubmitFailed):
                record = self._record.add_failed_submit(record)
            found = self._reconcile(record, record.intent, unknown, may_resubmit=not repeated)
            if found is not None:
                return found.job, RequestPoll(found.job.request_id, found.intent.intent_at)
            if not record.intent.is_answered:
                self.before_second()
            return self._submit(self._record.replace(record, record.intent), record, repeated=True)
        except Exception as error:  # refused or never sent, see IdeogramHook.submit
            self._record.take_back(record, replaced)
            if isinstance(error, IdeogramRateLimited):
                delay = submit_delay(error.retry_after, random.Random())
                if error.status_code is not None:  # of the API, not of the account's own limit
                    self.admission.limited(delay)
                raise RetryLater(delay, error) from None
            raise
        recorded = self._record.add_request(record, submission.request_id)
        self.admission.submitted()
        metrics.remaining_credits(submission.remaining_credits)
        return recorded.job, RequestPoll(submission.request_id, record.intent.intent_at)

    def _reconcile(
        self,
        record: LedgerRecord,
        intent: Intent,
        unknown: IdeogramUnknownSubmit | None = None,
        *,
        may_resubmit: bool = True,
    ) -> LedgerRecord | None:
        """Return the record with its request, None if a new one may be submitted."""
        reconciler = Reconciler(
            self.hook,
            self.ledger,
            resubmit=self.resubmit and may_resubmit,
            resubmit_on_5xx=self.resubmit_on_5xx and may_resubmit,
            is_stored=partial(self.store.has_image_of, target=self.target),
        )
        found = reconciler.find(
            record, intent, owns=self._record.owns(record), durable=self.ledger.is_durable, answered=unknown
        )
        if found is None:
            return None
        # No later than the request, so that its hour never ends later than counted.
        submitted_at = min(record.intent.intent_at, max(record.intent.first_submit_at, found.created_at))
        settled = replace(record, intent=replace(record.intent, intent_at=submitted_at))
        recorded = self._record.add_request(settled, found.request_id)
        if reconciler.is_held(recorded):  # two tasks found it at the same time: each lets go, and searches again
            self.ledger.restore(recorded, record)
            busy = _target_busy(f"request {found.request_id} was just found for another target with the same inputs")
            raise RetryLater(random.Random().uniform(RETRY_SECONDS, 2 * RETRY_SECONDS), busy)
        return recorded

    def _submit_under_way(self, record: LedgerRecord) -> IdeogramTargetBusy:
        whose = self._record.whose(record)
        if not self._record.owns(record):
            return _target_busy(f"{whose} may be submitting a request for it")
        return IdeogramTargetBusy(
            f"A submit of {whose} may be on its way",
            "It is charged if it is accepted and completes. A retry searches the account's history for it.",
            charged=None,
        )

    def _is_needed_by_other_task(self, record: LedgerRecord, poll: RequestPoll) -> bool:
        """Return whether the request of another task still needs the target."""
        if poll.outcome is Outcome.COMPLETED:
            return time.time() < record.intent.intent_at + STORING_SECONDS
        return not poll.is_terminal_failure and poll.outcome is not Outcome.RECORD_GONE


def _is_free(poll: RequestPoll) -> bool:
    """Return whether a request certainly is not charged."""
    return poll.is_terminal_failure and poll.outcome is not Outcome.EXPIRED


def _target_busy(why: str) -> IdeogramTargetBusy:
    """Return the error of a target that another attempt or task uses."""
    return IdeogramTargetBusy(
        f"The target is in use: {why}",
        "Nothing was charged. A retry checks again; give each task its own key, or run the tasks one after another.",
    )
