"""
The results of decided items: their lines, written in parts, and what they change in the state.

Invariant: a line is written before the state counts it. A request's cost is counted once, also if a later attempt
completes the request of an item that failed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram import metrics
from airflow_provider_ideogram.datasets.budget import estimated_cost
from airflow_provider_ideogram.datasets.manifest import failed_line, rejected_line, stored_line
from airflow_provider_ideogram.datasets.rows import MAX_LISTED, Item
from airflow_provider_ideogram.datasets.slice import SliceContext
from airflow_provider_ideogram.datasets.state import DatasetState, DelayedItem, UnsettledRequest
from airflow_provider_ideogram.datasets.workspace import part_name
from airflow_provider_ideogram.exceptions import (
    IdeogramContentBlocked,
    IdeogramError,
    IdeogramJobUnreachable,
    IdeogramTemporaryError,
    IdeogramTimeout,
    IdeogramUnknownSubmit,
)
from airflow_provider_ideogram.storage.image_record import ImageRecord

if TYPE_CHECKING:
    from airflow_provider_ideogram.datasets.gates import Rejection

#: Times, sizes, addresses and ids in an error's text.
_WORD_WITH_DIGIT = re.compile(r"\S*\d\S*")


@dataclass(frozen=True, slots=True)
class ItemResult:
    """
    The result of a decided item.

    :param line: Its line in the manifest.
    :param cost_usd: What the run pays for its request; None if unknown.
    :param record: Its image, accepted or not; None without one.
    :param error: Why it has no image; None if it has one.
    :param unsettled: Its request, if that may still be charged or completed by a later attempt.
    :param redone: The item of the next attempt; it is not decided then.
    """

    line: Mapping[str, Any]
    cost_usd: float | None
    record: ImageRecord | None = None
    error: IdeogramError | None = None
    unsettled: UnsettledRequest | None = None
    redone: Item | None = None

    @classmethod
    def of_record(cls, context: SliceContext, item: Item, record: ImageRecord) -> ItemResult:
        """Return the result of an item whose image is stored and accepted."""
        record = _priced(context, item, record)
        return cls(stored_line(item, record, context.options.gates), record.cost_usd, record)

    @classmethod
    def of_rejection(
        cls,
        context: SliceContext,
        item: Item,
        record: ImageRecord,
        rejection: Rejection,
        error: IdeogramError,
        *,
        is_redone: bool,
    ) -> ItemResult:
        """
        Return the result of an item whose image is stored and not accepted.

        :param record: The image, at the address where it is kept.
        :param error: What is wrong with it.
        :param is_redone: Whether there is another attempt.
        """
        record = _priced(context, item, record)
        known = next((each for each in item.earlier if each["request_id"] == record.request_id), {})
        attempt = {
            "attempt": len(item.rejected) + 1,
            "gate": rejection.gate,
            "reason": rejection.reason,
            "seed": record.seed,
            "request_id": record.request_id,
            "uri": record.uri,
            "sha256": record.sha256,
            "cost_usd": known.get("cost_usd", record.cost_usd),
            "cost_is_estimate": record.cost_is_estimate and not record.reused,
        }
        line = rejected_line(item, error, attempt)
        if not is_redone:
            metrics.failed(error.code)
        return cls(line, record.cost_usd, record, error, redone=item.redone(attempt) if is_redone else None)

    @classmethod
    def of_error(cls, item: Item, error: IdeogramError, *, cost_usd: float | None) -> ItemResult:
        """Return the result of an item whose request, if any, has ended; None as the cost means unknown."""
        metrics.failed(error.code)
        return cls(failed_line(item, error, cost_usd), cost_usd, error=error)

    @classmethod
    def of_unsettled(
        cls, context: SliceContext, item: Item, error: IdeogramError, *, cost_usd: float | None = None
    ) -> ItemResult:
        """Return the result of an item whose request may still be charged, or is charged and may be completed."""
        metrics.failed(error.code)
        unsettled = unsettled_request(context, item, error.request_id, cost_usd=cost_usd)
        return cls(failed_line(item, error, cost_usd), cost_usd, error=error, unsettled=unsettled)


def _priced(context: SliceContext, item: Item, record: ImageRecord) -> ImageRecord:
    """Return a record with the run's own costs; ``price_usd`` replaces a cost that is unknown."""
    before = context.state.unsettled_requests.get(item.key)
    is_own = (
        before is not None
        and before.request_id == record.request_id
        and (before.estimate_usd != 0 or before.counted_usd > 0)  # that of another task has neither
    )
    if record.reused and is_own:  # also after a clear
        record = replace(record, reused=False, cost_usd=record.original_cost_usd)
    price = context.options.price_usd
    if record.reused or record.cost_usd is not None or price is None:
        return record
    return replace(record, cost_usd=price, original_cost_usd=price, cost_is_estimate=True)


def unsettled_request(
    context: SliceContext, item: Item, request_id: str | None, *, cost_usd: float | None = None
) -> UnsettledRequest:
    """Return an item's request; without a known cost, the estimate is reserved in the budget."""
    before = context.state.unsettled_requests.get(item.key)
    if request_id is None and before is not None and before.counted_usd:
        return before  # it is charged; a second request is counted by itself
    estimate = estimated_cost(context.options, context.state, item.request.model) if cost_usd is None else 0.0
    return UnsettledRequest(request_id, cost_usd or 0.0, estimate, item.fingerprint)


def write_outcomes(context: SliceContext, results: Iterable[ItemResult]) -> None:
    """Write the lines of decided items as a part, and count them in the state; the others are attempted again."""
    results, state, now = list(results), context.state, time.time()
    lines = [result.line for result in results if result.redone is None]
    if lines:
        context.workspace.write_lines(part_name(state.plan, state.slices, state.parts), lines)
        state.parts += 1
    for result in results:
        _count_cost(state, result)
        _note_failure(state, result)
        if result.redone is None:
            state.counts[result.line["status"]] += 1
        else:
            state.delayed.append(DelayedItem(result.redone, now, now))


def _count_cost(state: DatasetState, result: ItemResult) -> None:
    line, record = result.line, result.record
    before = state.unsettled_requests.pop(line["key"], None)
    counted = before.counted_usd if before and before.request_id == line["request_id"] else 0.0
    counted = state.counted_usd.pop(line["request_id"], counted)
    state.cost_usd += (result.cost_usd or 0.0) - counted
    state.original_cost_usd += line["original_cost_usd"] or 0.0
    state.cost_is_estimate |= line["cost_is_estimate"]
    if result.unsettled:
        state.unsettled_requests[line["key"]] = result.unsettled
    elif record is None and result.cost_usd:
        state.counted_usd[line["request_id"]] = result.cost_usd
    if record is None or record.reused:
        return
    if record.cost_usd is None:
        state.images_without_cost += 1
    elif not record.cost_is_estimate:
        state.observed_costs[line["model"]] = max(record.cost_usd, state.observed_costs.get(line["model"], 0.0))


def _note_failure(state: DatasetState, result: ItemResult) -> None:
    """Keep examples of failures, and count equal ones that follow each other."""
    line, error = result.line, result.error
    if error is None:
        state.last_failure, state.consecutive_same_failures = "", 0
        return
    if result.redone is None and len(state.examples) < MAX_LISTED:
        state.examples.append(f"{line['id']}: {error}")
    # An outage of submits has an end of its own, and says nothing about the items.
    if not isinstance(error, IdeogramContentBlocked | IdeogramTemporaryError | IdeogramUnknownSubmit):
        failure = _without_particulars(error.reason, line)
        is_same = failure == state.last_failure
        state.consecutive_same_failures = state.consecutive_same_failures + 1 if is_same else 1
        state.last_failure = failure
        state.last_failure_is_temporary = isinstance(error, IdeogramTimeout | IdeogramJobUnreachable)


def _without_particulars(reason: str, line: Mapping[str, Any]) -> str:
    """Return a reason without the item's key, its request and all words with digits, which differ between items."""
    text = reason.replace(str(line["key"]), "0").replace(str(line["request_id"]), "0")
    return _WORD_WITH_DIGIT.sub("…", text)
