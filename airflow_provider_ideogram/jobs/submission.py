"""
Getting a paid job: the one that is there already, or a new one.

Invariant: a submit follows an intent in the ledger that nobody else holds, and a job that the ledger or the
account's history knows is never submitted again. Only what became of it, or a person, sets the target free.
"""

from __future__ import annotations

import logging
import random
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram import metrics
from airflow_provider_ideogram.api.back_off import submit_delay
from airflow_provider_ideogram.api.polling import RESULT_LIFETIME, Outcome, RequestPoll
from airflow_provider_ideogram.api.prices import list_price
from airflow_provider_ideogram.exceptions import (
    IdeogramError,
    IdeogramLedgerError,
    IdeogramObjectExists,
    IdeogramRateLimited,
    IdeogramTargetBusy,
    IdeogramUnknownSubmit,
    job_unreachable,
)
from airflow_provider_ideogram.jobs.completion import look
from airflow_provider_ideogram.jobs.identity import attempt_group
from airflow_provider_ideogram.jobs.ledger import Intent, LedgerRecord, RecordConflict
from airflow_provider_ideogram.storage.image_record import (
    ImageRecord,
    fingerprint_of,
    iso_utc,
    made_by,
    made_from,
    paid_by_group,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_ideogram.api.job import Job
    from airflow_provider_ideogram.api.parameters import GenerationRequest
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger
    from airflow_provider_ideogram.storage.image_store import ImageStore
    from airflow_provider_ideogram.storage.target import Target

log = logging.getLogger(__name__)

#: Seconds until an accepted request is taken to be known everywhere at the vendor, who names no number.
HISTORY_LAG = 120.0
#: Seconds that a submit may be under way, its repeats included; until then an intent is somebody's who is at it.
SUBMIT_SECONDS = 60.0
#: Seconds between two looks at what is not decided yet.
LOOK_AGAIN_SECONDS = 20.0

#: Seconds from its submission in which a completed request's own task is left the time to store the image.
STORING_SECONDS = 600.0


class RetryLater(Exception):
    """
    Nothing can be done for some time, and a worker is not for waiting.

    :param delay: Seconds until it is worth another try.
    :param error: What to fail with when patience is over.
    """

    def __init__(self, delay: float, error: IdeogramError) -> None:
        super().__init__(error.reason)
        self.delay = delay
        self.error = error


@dataclass(frozen=True, slots=True)
class Submitter:
    """
    Get the job of one target.

    :param hook: The API.
    :param store: The images in S3.
    :param ledger: The ledger of the target's bucket.
    :param target: Where the image goes.
    :param owner: Who asks: ``dag_id/run_id/task_id/map_index``.
    :param max_tries: The task's, which changes when a person clears it.
    :param if_exists: What an object at the target means: ``reuse``, ``overwrite`` or ``fail``.
    :param resubmit: Whether a submit whose fate stays unknown may be paid again without a person.
    :param tried_since: When earlier attempts of the task may have begun, in seconds since the epoch; None without any.
    """

    hook: IdeogramHook
    store: ImageStore
    ledger: Ledger | NoLedger
    target: Target
    owner: str
    max_tries: int
    if_exists: str
    resubmit: bool
    tried_since: float | None = None

    def get_or_submit(
        self, request: GenerationRequest, *, absent: bool = False
    ) -> ImageRecord | tuple[Job, RequestPoll]:
        """
        Find the image, attach to the target's job, or submit a new one.

        :param absent: Whether a listing has shown lately that there is no object at the target, and the bucket is
            known to be there. With a ledger it is looked at once more anyway, right before the submit.
        :return: The image, if it is stored already; else the job, and what is known of it.
        :raises IdeogramObjectExists: If an object is at the target and ``if_exists`` is ``fail``.
        :raises RetryLater: If it takes time to find out, or the rate limit is reached.
        :raises IdeogramTargetBusy: If another task's job for the same target is alive and has other inputs.
        :raises IdeogramUnknownSubmit: If a submit may have been paid, and nothing tells.
        """
        result = self._get_or_submit(request, absent=absent)
        if isinstance(result, ImageRecord) and result.reused:
            metrics.reused()
        return result

    def _get_or_submit(self, request: GenerationRequest, *, absent: bool) -> ImageRecord | tuple[Job, RequestPoll]:
        head = None if absent and self.ledger.is_durable else self.store.find(self.target)
        stored = self._stored(head, request) if head else None
        if stored is not None:
            return stored
        sent = request.with_seed(random.SystemRandom())
        # The time is from before the POST: the result's hour can only end later than counted.
        intent = Intent(sent, request.fingerprint, self.target.uri, time.time(), self.owner, self.max_tries)
        try:
            entry = self.ledger.write_intent(self._record_key, intent)
            return self._stored_meanwhile(head, entry, request) or self._submit(entry)
        except RecordConflict:
            found = self.ledger.read(self._record_key)
        if found is not None:
            with suppress(RecordConflict):
                if not found.not_submitted:
                    return self._reattach(found, intent)
                entry = self._replace(found, intent)
                return self._stored_meanwhile(head, entry, request) or self._submit(entry)
        raise RetryLater(LOOK_AGAIN_SECONDS, _busy(f"another task just changed the record {self._record_key}"))

    def find_previous_request(self) -> GenerationRequest | None:
        """
        Return what an earlier attempt of this task has asked for, None if there was none since a person cleared it.

        :raises IdeogramJobUnreachable: If its image is stored, and nothing tells any more what was asked for.
        """
        group = attempt_group(self.owner, self.max_tries)
        entry = self.ledger.read(self._record_key)
        if entry is not None:
            own = entry.intent.attempt_group == group
            return entry.intent.request.as_asked(entry.intent.fingerprint) if own else None
        target, head = self._own_below() or (self.target, self.store.find(self.target))
        if head is None or not paid_by_group(head, group):
            return None
        # The attempt died between the record's removal and its end.
        stored = ImageRecord.of_object(target, head, None)
        since = datetime.fromisoformat(stored.submitted_at or "").timestamp()
        row = self.hook.find_request(stored.request_id or "", stored.model or "", since)
        request = row.request(stored.model or "") if row else None
        if request is None:
            why = "the account's request history does not tell what it asked for, and another may be asked for now"
            raise job_unreachable(stored.request_id or "", f"its image is stored at {target.uri}, but {why}")
        return request.as_asked(fingerprint_of(head))

    @property
    def _record_key(self) -> str:
        return self.ledger.key_of(self.target, self.owner)

    def _stored(self, head: Mapping[str, Any], request: GenerationRequest) -> ImageRecord | None:
        """Return the image that is at the target, if it is this task's own or is to be reused."""
        same = made_from(head, request)
        if same:
            self.ledger.delete_for_request(self._record_key, made_by(head))
        if same and paid_by_group(head, attempt_group(self.owner, self.max_tries)):
            log.info("%s is this task's own: an earlier attempt died right after storing it", self.target.uri)
            return ImageRecord.of_object(self.target, head, request, own=True)
        if self.if_exists == "fail":
            raise IdeogramObjectExists(
                f"{self.target.uri} exists and if_exists is 'fail'. Nothing was charged. Choose another key, or "
                "if_exists='reuse' or 'overwrite'."
            )
        if same and self.if_exists == "reuse":
            log.info("%s was made from the same inputs: reused, nothing is paid", self.target.uri)
            return ImageRecord.of_object(self.target, head, request)
        log.info(
            "%s is there, made from %s inputs, and will be replaced", self.target.uri, "the same" if same else "other"
        )
        return None

    def _stored_meanwhile(
        self, before: Mapping[str, Any] | None, entry: LedgerRecord, request: GenerationRequest
    ) -> ImageRecord | None:
        """
        Return the image that was stored, and its record removed, after the target was looked at.

        Airflow may have given up a part of this very task that was still at it.
        """
        if not self.ledger.is_durable:
            return None
        try:
            target, head = self._own_below() or (self.target, self.store.look(self.target))
        except IdeogramError:
            self.ledger.cancel_intent(entry)  # nothing was submitted: nobody is to wonder about it
            raise
        if head is None or not made_from(head, request) or (before and made_by(before) == made_by(head)):
            return None
        self.ledger.cancel_intent(entry)
        log.info("%s was just stored, made from the same inputs: nothing more is paid", target.uri)
        return ImageRecord.of_object(target, head, request, own=paid_by_group(head, entry.intent.attempt_group))

    def _own_below(self) -> tuple[Target, Mapping[str, Any]] | None:
        """Return the image that an earlier attempt has stored below a prefix, where no key of the target tells."""
        if not self.target.is_prefix or self.tried_since is None:
            return None
        group = attempt_group(self.owner, self.max_tries)
        return self.store.find_below(self.target, self.tried_since, lambda head: paid_by_group(head, group))

    def _reattach(self, entry: LedgerRecord, intent: Intent) -> tuple[Job, RequestPoll]:
        """Go on with the record of an earlier attempt or of another task."""
        if entry.request_id is None:
            left = SUBMIT_SECONDS - (time.time() - entry.intent.intent_at)
            if left > 0:
                raise RetryLater(
                    min(left, LOOK_AGAIN_SECONDS), _busy(f"{entry.intent.owner} is just submitting for it")
                )
            entry = self._settle(entry, intent)
            if entry.request_id is None:
                return self._submit(entry)
        own, same = self._owns(entry), entry.intent.fingerprint == intent.fingerprint
        poll = self._look(entry)
        if not same and not own and self._is_alive(entry, poll):
            state = poll.state or "perhaps running"
            raise _busy(f"request {entry.request_id} of {entry.intent.owner}, with other inputs, is {state}")
        if not same:
            log.warning(
                "Request %s of %s was paid for %s with other inputs. It is given up, and a new one is submitted",
                entry.request_id,
                entry.intent.owner,
                entry.intent.target,
            )
            return self._submit(self._replace(entry, intent))
        if poll.outcome in (Outcome.FAILED, Outcome.EXPIRED):
            log.warning("%s. A new request is submitted and charged", poll.failure().reason)
            return self._submit(self._replace(entry, intent))
        log.info("Request %s of %s is taken up: nothing is submitted", entry.request_id, entry.intent.owner)
        # A clear has begun a new lineage: what is stored for it must be known as its own by the attempts to come.
        return replace(
            entry.job, paid_by_other_task=not own, attempt_group=(intent if own else entry.intent).attempt_group
        ), poll

    def _submit(self, entry: LedgerRecord, *, again: bool = False) -> tuple[Job, RequestPoll]:
        """Submit what the record intends; ``again`` after an unanswered submit, which happens once in an execution."""
        sent = entry.intent.request
        try:
            submission = self.hook.submit(sent)
        except IdeogramUnknownSubmit as unknown:
            log.warning("%s: it is looked up in the account's request history", unknown.reason)
            settled = self._settle(entry, entry.intent)
            if settled.request_id is None and again:
                raise
            if settled.request_id is None:
                return self._submit(settled, again=True)
            return settled.job, RequestPoll(settled.request_id, entry.intent.intent_at)
        except IdeogramRateLimited as limited:
            self.ledger.cancel_intent(entry)
            raise RetryLater(submit_delay(limited.retry_after, random.Random()), limited) from None
        except IdeogramError:
            # Refused or never sent: nothing was charged, and nobody is to wait for it.
            self.ledger.cancel_intent(entry)
            raise
        request_id = submission.request_id
        left = submission.remaining_credits
        log.debug("Submitted request %s; credits left: %s", request_id, left)
        return self._recorded(entry, request_id).job, RequestPoll(request_id, entry.intent.intent_at)

    def _recorded(self, entry: LedgerRecord, request_id: str) -> LedgerRecord:
        """Note a request that was accepted."""
        metrics.submitted(entry.intent.request.model, list_price(entry.intent.request.model))
        try:
            return self.ledger.record_request(entry, request_id)
        except (RecordConflict, IdeogramLedgerError) as problem:
            why = problem.reason if isinstance(problem, IdeogramLedgerError) else "another task wrote over its record"
            log.error(
                "Request %s is submitted and paid, but the ledger does not know its id (%s). The task goes on. If "
                "it dies before the image is stored, the next attempt looks the request up in the account's history; "
                "the vendor holds its result for one hour",
                request_id,
                why,
            )
            return replace(entry, request_id=request_id)

    def _settle(self, entry: LedgerRecord, intent: Intent) -> LedgerRecord:
        """
        Find out what became of a submit that nobody answered.

        :return: The record with the request's id, or a new one to submit from.
        """
        try:
            found = self.hook.find_submitted(entry.intent.request, entry.intent.intent_at) - set(
                entry.intent.excluded_request_ids
            )
        except IdeogramError as error:
            unknown = _unknown(entry, f"can't be read ({error.reason})")
        else:
            if len(found) == 1:
                (request_id,) = found
                log.warning(
                    "The submit was accepted, as the account's history tells: request %s is taken up", request_id
                )
                return self._recorded(entry, request_id)
            unknown = _unknown(entry, f"shows {len(found) or 'no'} requests with its inputs")
        left = HISTORY_LAG - (time.time() - entry.intent.intent_at)
        if left > 0 and self.ledger.is_durable:
            raise RetryLater(min(left, LOOK_AGAIN_SECONDS), unknown)
        consent = self._resubmit_reason(entry, intent)
        if consent is None:
            raise unknown
        log.warning("%s. Since %s, a new request is submitted and charged", unknown.reason, consent)
        return self._replace(entry, intent)

    def _resubmit_reason(self, entry: LedgerRecord, intent: Intent) -> str | None:
        """Return why a submit whose fate is unknown may be followed by another, None if it may not."""
        if self.resubmit:
            return "on_unknown_submit is 'resubmit'"
        if self._owns(entry):
            # Airflow changes it with a clear only, and to a lower one where the DAG's retries were lowered in between.
            if intent.max_tries != entry.intent.max_tries:
                return "a person cleared the task"
            return None if intent.fingerprint == entry.intent.fingerprint else "the inputs were changed"
        return (
            "the vendor no longer holds its result" if time.time() > entry.intent.intent_at + RESULT_LIFETIME else None
        )

    def _is_alive(self, entry: LedgerRecord, poll: RequestPoll) -> bool:
        """Return whether another task's request still needs its target."""
        if poll.outcome is Outcome.COMPLETED:
            return time.time() < entry.intent.intent_at + STORING_SECONDS
        return not poll.is_terminal_failure

    def _owns(self, entry: LedgerRecord) -> bool:
        return entry.intent.owner == self.owner

    def _replace(self, entry: LedgerRecord, intent: Intent) -> LedgerRecord:
        """Write the intent over the record; the same inputs ask for the same image, by the seed drawn before."""
        same = entry.intent.fingerprint == intent.fingerprint
        request = entry.intent.request if same else intent.request
        # Otherwise the history could take the request that has ended for the one that is about to be sent.
        excluded = entry.intent.excluded_request_ids + ((entry.request_id,) if entry.request_id else ())
        return self.ledger.replace(
            entry, replace(intent, request=request, intent_at=time.time(), excluded_request_ids=excluded)
        )

    def _look(self, entry: LedgerRecord) -> RequestPoll:
        poll = RequestPoll(entry.job.request_id, entry.intent.intent_at)
        look(self.hook, poll)
        return poll


def _busy(why: str) -> IdeogramTargetBusy:
    return IdeogramTargetBusy(
        f"The target is taken: {why}",
        "Nothing was charged. A retry looks again; give each task a key of its own, or run them one after the other.",
    )


def _unknown(entry: LedgerRecord, history: str) -> IdeogramUnknownSubmit:
    return IdeogramUnknownSubmit(
        f"A submit of {entry.intent.owner} for {entry.intent.target} at {iso_utc(entry.intent.intent_at)} may have "
        f"been accepted and charged: nobody answered it, and the account's request history {history}",
        f"Clear the task to submit, and pay for, a new one, that is {entry.intent.owner}; on_unknown_submit='resubmit' "
        f"does so by itself, and any other task from {iso_utc(entry.intent.intent_at + RESULT_LIFETIME)} on.",
    )
