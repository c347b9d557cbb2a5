"""
Settling the requests of a slice: storing completed images, and noting those that failed.

Invariant: an image is stored and its line written before the ledger's record of its request is deleted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from airflow_provider_ideogram.api.poll_schedule import EXPECTED_SECONDS
from airflow_provider_ideogram.api.polling import Outcome, RequestPoll, deadline_of
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.manifest import failed_line, stored_line
from airflow_provider_ideogram.datasets.outcomes import line_of_error, write_outcomes
from airflow_provider_ideogram.datasets.rows import Item
from airflow_provider_ideogram.datasets.slice import SliceContext, SliceProgress, gather
from airflow_provider_ideogram.datasets.state import InFlightItem
from airflow_provider_ideogram.datasets.workspace import chunk_name
from airflow_provider_ideogram.exceptions import (
    IdeogramError,
    IdeogramJobError,
    IdeogramJobUnreachable,
    IdeogramTemporaryError,
)
from airflow_provider_ideogram.jobs.completion import fetch_and_store, poll_once
from airflow_provider_ideogram.jobs.recovery import recover
from airflow_provider_ideogram.storage.image_record import ImageRecord, made_by, made_from

log = logging.getLogger(__name__)


class ItemResult(NamedTuple):
    """
    The end of an item.

    :param line: Its line.
    :param is_final: Whether its request can't have an image later, so that its record in the ledger is deleted.
    """

    line: dict[str, Any]
    is_final: bool = True


@dataclass(frozen=True, slots=True)
class Settler:
    """Settle the requests of a slice."""

    context: SliceContext
    progress: SliceProgress

    def settle(self, pool: ThreadPoolExecutor, reports: Mapping[str, Mapping[str, Any]]) -> list[IdeogramError]:
        """
        Store completed images and write the lines of all requests that ended.

        :param reports: The trigger's reports by request id.
        :return: Errors that concern all items.
        """
        state, items = self.context.state, self.context.state.in_flight

        def end_of(item: InFlightItem) -> ItemResult | None:
            return self._end_of(item, reports.get(item.job.request_id))

        results, errors = gather(pool, end_of, items)
        ended = [(item, result) for item, result in zip(items, results, strict=True) if result is not None]
        write_outcomes(self.context.workspace, state, [result.line for _, result in ended])
        state.in_flight = [item for item, result in zip(items, results, strict=True) if result is None]
        state.abandoned_request_ids += [item.job.request_id for item, result in ended if not result.is_final]
        list(pool.map(self._delete_record, [item for item, result in ended if result.is_final]))
        return errors

    def _end_of(self, item: InFlightItem, report: Mapping[str, Any] | None) -> ItemResult | None:
        """Return the end of an item, whose image is stored if it has one; None while its request is running."""
        job, now = item.job, time.time()
        poll = RequestPoll(job.request_id, job.submitted_at)
        if report is not None:
            poll.take_report(report)
        time_left = now < deadline_of(job.submitted_at, self.context.timeout)
        is_overdue = now - job.submitted_at > EXPECTED_SECONDS
        if poll.outcome is Outcome.UNREACHABLE or (poll.outcome is Outcome.PENDING and is_overdue):
            poll_once(self.context.hook, poll)  # it may have ended since the trigger fired
        try:
            if poll.outcome is Outcome.RECORD_GONE:
                recover(self.context.hook, poll, job.request)
            if poll.outcome is Outcome.COMPLETED:
                return self._store(item, poll)
        except IdeogramJobUnreachable as error:  # the image can still be had
            if time_left:
                self.progress.recheck_ids.add(job.request_id)
                return None
            return self._abandon(item, poll, error)
        if poll.outcome is Outcome.REFUSED:
            raise poll.failure()
        if poll.outcome in (Outcome.PENDING, Outcome.UNREACHABLE) and time_left:
            if poll.outcome is Outcome.UNREACHABLE or poll.hour_is_over(now):
                self.progress.recheck_ids.add(job.request_id)
            return None
        return self._abandon(item, poll, poll.failure())

    def _store(self, item: InFlightItem, poll: RequestPoll) -> ItemResult | None:
        try:
            record = fetch_and_store(self.context.hook, self.context.store, item.job, poll)
        except IdeogramTemporaryError as error:
            log.warning(
                "Request %s is completed, but its image is not stored yet: %s. It is attempted again",
                item.job.request_id,
                error.reason,
            )
            self.progress.recheck_ids.add(item.job.request_id)
            self.progress.store_errors.append(error)
            return None
        except IdeogramJobUnreachable:
            raise
        except IdeogramJobError as error:
            return self._abandon(item, poll, error)
        self.progress.stored += 1
        return ItemResult(stored_line(item.item, record))

    def _abandon(self, item: InFlightItem, poll: RequestPoll, error: IdeogramError) -> ItemResult:
        """Return the end of an item without an image, unless a slice that died had stored it."""
        if poll.outcome not in (Outcome.FAILED, Outcome.CONTENT_BLOCKED) and (found := self._find_stored(item)):
            return found
        return ItemResult(line_of_error(item.item, error, item.job.request_id), poll.is_terminal_failure)

    def _find_stored(self, item: InFlightItem) -> ItemResult | None:
        target, job = self.context.target(item.item.key), item.job
        head = self.context.store.find(target)
        if head is None or made_by(head) != job.request_id:
            return None
        record = ImageRecord.of_object(target, head, item.item.request, own=not job.paid_by_other_task)
        return ItemResult(stored_line(item.item, record))

    def _delete_record(self, item: InFlightItem) -> None:
        if item.job.record_key and item.job.record_etag:
            self.context.ledger.delete(item.job.record_key, item.job.record_etag)

    def copy(self, pool: ThreadPoolExecutor) -> list[IdeogramError]:
        """Copy images for the rows with identical inputs, when all images are stored."""
        state = self.context.state
        if state.in_flight or self.context.has_items_to_submit:
            return []
        while state.copied_chunks < state.copies:
            name = chunk_name("copy", state.copied_chunks)
            items = [Item.from_json(line) for line in self.context.workspace.read_lines(name)]
            lines, errors = gather(pool, self._copied_line, items)
            if errors:
                return errors
            write_outcomes(self.context.workspace, state, lines)
            state.copied_chunks += 1
        return []

    def _copied_line(self, item: Item) -> dict[str, Any]:
        source, target = self.context.target(item.copy_of), self.context.target(item.key)
        if source == target:  # rows without ids have the same key
            head = self.context.store.find(target)
            same = head if head and made_from(head, item.request) else None
            record = ImageRecord.of_object(target, same, item.request) if same else None
        else:
            record = self.context.store.copy(source, target, item.request)
        if record is None:
            error = f"The row with the same inputs, {item.copy_of}, has no image. Nothing was charged for this one."
            return failed_line(item, ImageStatus.FAILED, error, None, 0.0)
        return stored_line(item, record)
