"""
The results of decided items: their lines, written in parts, and what they change in the state.

Invariant: a line is written before the state counts it. A request's cost is counted once, also if a later attempt
completes the request of an item that failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_ideogram import metrics
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.budget import estimated_cost
from airflow_provider_ideogram.datasets.manifest import failed_line, stored_line
from airflow_provider_ideogram.datasets.rows import MAX_LISTED, Item
from airflow_provider_ideogram.datasets.slice import SliceContext
from airflow_provider_ideogram.datasets.state import DatasetState, UnsettledRequest
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

#: Times, sizes, addresses and ids in an error's text.
_WORD_WITH_DIGIT = re.compile(r"\S*\d\S*")


@dataclass(frozen=True, slots=True)
class ItemResult:
    """
    The result of a decided item.

    :param line: Its line in the manifest.
    :param error: Why it has no image; None if it has one.
    :param unsettled: Its request, if that may still be charged or completed by a later attempt.
    """

    line: Mapping[str, Any]
    error: IdeogramError | None = None
    unsettled: UnsettledRequest | None = None

    @classmethod
    def of_record(cls, context: SliceContext, item: Item, record: ImageRecord) -> ItemResult:
        """Return the result of an item whose image is stored; ``price_usd`` replaces a cost that is unknown."""
        line = stored_line(item, record)
        if not record.reused and record.cost_usd is None and (price := context.options.price_usd) is not None:
            line |= {"cost_usd": price, "original_cost_usd": price, "cost_is_estimate": True}
        return cls(line)

    @classmethod
    def of_error(cls, item: Item, error: IdeogramError, *, cost_usd: float | None) -> ItemResult:
        """Return the result of an item whose request, if any, has ended; None as the cost means unknown."""
        metrics.failed(error.code)
        return cls(failed_line(item, error, cost_usd), error)

    @classmethod
    def of_unsettled(
        cls, context: SliceContext, item: Item, error: IdeogramError, *, cost_usd: float | None = None
    ) -> ItemResult:
        """Return the result of an item whose request may still be charged, or is charged and may be completed."""
        metrics.failed(error.code)
        unsettled = unsettled_request(context, item, error.request_id, cost_usd=cost_usd)
        return cls(failed_line(item, error, cost_usd), error, unsettled)


def unsettled_request(
    context: SliceContext, item: Item, request_id: str | None, *, cost_usd: float | None = None
) -> UnsettledRequest:
    """Return an item's request; without a known cost, the estimate is reserved in the budget."""
    estimate = estimated_cost(context.options, context.state, item.request.model) if cost_usd is None else 0.0
    return UnsettledRequest(request_id, cost_usd or 0.0, estimate, item.request.fingerprint)


def write_outcomes(context: SliceContext, results: Iterable[ItemResult]) -> None:
    """Write the lines of decided items as a part, and count them in the state."""
    results = list(results)
    if not results:
        return
    state = context.state
    name = part_name(state.plan, state.slices, state.parts)
    context.workspace.write_lines(name, [result.line for result in results])
    state.parts += 1
    for result in results:
        context.state.counts[result.line["status"]] += 1
        _count_cost(context.state, result)
        _note_failure(context.state, result)


def _count_cost(state: DatasetState, result: ItemResult) -> None:
    line, cost = result.line, result.line["cost_usd"]
    before = state.unsettled_requests.pop(line["key"], None)
    counted = before.counted_usd if before and before.request_id == line["request_id"] else 0.0
    state.cost_usd += (cost or 0.0) - counted
    state.original_cost_usd += line["original_cost_usd"] or 0.0
    state.cost_is_estimate |= line["cost_is_estimate"]
    if result.unsettled:
        state.unsettled_requests[line["key"]] = result.unsettled
    if line["status"] != ImageStatus.GENERATED:
        return
    if cost is None:
        state.images_without_cost += 1
    elif not line["cost_is_estimate"]:
        state.observed_costs[line["model"]] = max(cost, state.observed_costs.get(line["model"], 0.0))


def _note_failure(state: DatasetState, result: ItemResult) -> None:
    """Keep examples of failures, and count equal ones that follow each other."""
    line, error = result.line, result.error
    if error is None:
        state.last_failure, state.consecutive_same_failures = "", 0
        return
    if len(state.examples) < MAX_LISTED:
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
