"""
The first step of a slice: the results of the items in flight.

Invariant: an image is stored and its line written before its ledger record is deleted. A request is abandoned, with its
record kept for a later attempt, only when its time is over.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

from airflow_provider_ideogram.account import reservations
from airflow_provider_ideogram.account.reservations import Settlement
from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.poll_schedule import EXPECTED_SECONDS
from airflow_provider_ideogram.api.polling import RESULT_LIFETIME, Outcome, RequestPoll, deadline_of
from airflow_provider_ideogram.datasets.attempts import Attempts
from airflow_provider_ideogram.datasets.outcomes import ItemResult, write_outcomes
from airflow_provider_ideogram.datasets.slice import RETRY_SECONDS, SliceContext, SliceProgress, gather
from airflow_provider_ideogram.datasets.state import InFlightItem
from airflow_provider_ideogram.exceptions import (
    IdeogramError,
    IdeogramJobError,
    IdeogramJobFailed,
    IdeogramJobUnreachable,
    IdeogramResultExpired,
    IdeogramTemporaryError,
    job_unreachable,
)
from airflow_provider_ideogram.jobs.completion import poll_once
from airflow_provider_ideogram.jobs.recovery import recover
from airflow_provider_ideogram.storage.image_record import ImageRecord, made_by

#: The trigger's report of each request, by request id.
Reports: TypeAlias = Mapping[str, Mapping[str, Any]]


def settle(
    context: SliceContext, progress: SliceProgress, pool: ThreadPoolExecutor, reports: Reports
) -> list[IdeogramError]:
    """
    Store the images of completed requests, and write the lines of all that have ended.

    :return: Errors that concern all items.
    """
    settler, in_flight = _Settler(context, progress), context.state.in_flight
    results: list[ItemResult | None]
    results, errors = gather(pool, lambda item: settler.result_of(item, reports.get(item.job.request_id)), in_flight)
    settled = [(item, result) for item, result in zip(in_flight, results, strict=True) if result is not None]
    write_outcomes(context, [result for _, result in settled])
    context.state.in_flight = [item for item, result in zip(in_flight, results, strict=True) if result is None]
    ended = [(item.job, result) for item, result in settled if result.unsettled is None]
    costs = [Settlement(job.reservation, *_cost_of(result), _lost_id(job, result)) for job, result in ended]
    if reservations.settle(context.store.objects, costs):
        list(pool.map(settler.delete_record, [job for job, _ in ended]))
    return errors


def _cost_of(result: ItemResult) -> tuple[float | None, bool]:
    """Return what the vendor charged for a request that has ended, None if unknown, and whether it made no image."""
    if isinstance(result.error, IdeogramJobFailed):
        return 0.0, True
    if result.record is not None:
        return result.record.charged_usd, False
    return result.cost_usd or None, False  # 0 is what this run paid for another task's request


def _lost_id(job: Job, result: ItemResult) -> str | None:
    """Return the id of a request whose image can no longer be had."""
    return job.request_id if isinstance(result.error, IdeogramResultExpired) else None


@dataclass(frozen=True, slots=True)
class _Settler:
    context: SliceContext
    progress: SliceProgress

    def result_of(self, in_flight: InFlightItem, report: Mapping[str, Any] | None) -> ItemResult | None:
        """Return the result of an item whose request has ended, or whose time is over; None for others."""
        job = in_flight.job
        poll = RequestPoll(job.request_id, job.submitted_at)
        if report is not None:
            poll.take_report(report)
        age = time.time() - job.submitted_at
        if poll.outcome is Outcome.UNREACHABLE or (poll.outcome is Outcome.PENDING and age > EXPECTED_SECONDS):
            poll_once(self.context.hook, poll)  # it may have ended since the trigger fired
        if poll.outcome is Outcome.REFUSED:
            raise poll.failure()
        try:
            return (
                self._recovered(in_flight, poll)
                if poll.outcome is Outcome.RECORD_GONE
                else self._ended(in_flight, poll)
            )
        except IdeogramJobUnreachable as error:
            return self._wait_or_abandon(in_flight, poll, error)

    def delete_record(self, job: Job) -> None:
        """Delete the ledger's record of a request that has ended."""
        if job.record_key and job.record_etag:
            self.context.ledger.delete(job.record_key, job.record_etag)

    def _recovered(self, in_flight: InFlightItem, poll: RequestPoll) -> ItemResult | None:
        """Return the result of a request whose record is gone: a slice that died may have stored its image."""
        stored = self._stored_image(in_flight)
        if stored is not None:
            return stored
        recover(self.context.hook, poll, in_flight.job.request)
        return self._ended(in_flight, poll)

    def _ended(self, in_flight: InFlightItem, poll: RequestPoll) -> ItemResult | None:
        if poll.outcome is Outcome.COMPLETED:
            return self._store(in_flight, poll)
        if poll.is_terminal_failure:
            return self._failed(in_flight, poll, poll.failure())
        return self._wait_or_abandon(in_flight, poll, poll.failure())

    def _store(self, in_flight: InFlightItem, poll: RequestPoll) -> ItemResult | None:
        context, job = self.context, in_flight.job
        try:
            result = Attempts(context).fetch(in_flight.item, job, poll)
        except IdeogramTemporaryError as error:
            self.progress.store_errors.append(error)
            text = f"Request {job.request_id} is completed, but its image is not stored yet: {error.reason}"
            self.progress.notes.append((f"image {error.code}", f"{text}. Next attempt in {RETRY_SECONDS:.0f} s"))
            return self._wait_or_abandon(in_flight, poll, job_unreachable(job.request_id, error.reason))
        except IdeogramJobUnreachable:
            raise
        except IdeogramJobError as error:
            return self._failed(in_flight, poll, error)
        self.progress.stored_ids.add(job.request_id)
        return result

    def _wait_or_abandon(
        self, in_flight: InFlightItem, poll: RequestPoll, error: IdeogramJobError
    ) -> ItemResult | None:
        """Return None while there is time to wait for the request, else the item's result."""
        job, now = in_flight.job, time.time()
        deadline = deadline_of(job.submitted_at, self.context.options.timeout)
        if poll.outcome is Outcome.COMPLETED:  # only the image is missing
            deadline = max(deadline, job.submitted_at + RESULT_LIFETIME)
        if now >= deadline:
            return self._failed(in_flight, poll, error)
        if poll.outcome is not Outcome.PENDING or poll.hour_is_over(now):  # the trigger can't poll it
            self.progress.recheck_ids.add(job.request_id)
        return None

    def _failed(self, in_flight: InFlightItem, poll: RequestPoll, error: IdeogramJobError) -> ItemResult:
        """Return the result of an item without an image, unless a slice that died has stored it."""
        context, item = self.context, in_flight.item
        if isinstance(error, IdeogramJobFailed):
            return ItemResult.of_error(item, error, cost_usd=0.0)
        stored = self._stored_image(in_flight)
        if stored is not None:
            return stored
        cost = 0.0 if in_flight.job.paid_by_other_task else poll.cost_usd
        if poll.is_terminal_failure:
            return ItemResult.of_error(item, error, cost_usd=cost)
        return ItemResult.of_unsettled(context, item, error, cost_usd=cost)

    def _stored_image(self, in_flight: InFlightItem) -> ItemResult | None:
        """Return the result of an item whose image is at its target."""
        context, item, job = self.context, in_flight.item, in_flight.job
        target = context.target(item.key)
        head = context.store.head(target)
        if head is None or made_by(head) != job.request_id:
            return None
        record = ImageRecord.of_object(target, head, item.request, own=not job.paid_by_other_task)
        return Attempts(context).accept(item, record)
