"""
The plan of a dataset's run: the items that are stored already, and those to generate.

Invariant: the whole input is read and checked before the plan exists, and the plan is complete before the first submit.
The run follows the plan, also if the input changes afterwards.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.api.sanitize import sanitize_text
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.manifest import gates_of
from airflow_provider_ideogram.datasets.state import UnsettledRequest
from airflow_provider_ideogram.datasets.workspace import (
    CHUNK_ROWS,
    GENERATED_STORED,
    PlanLost,
    Workspace,
    chunk_name,
    part_name,
)
from airflow_provider_ideogram.exceptions import IdeogramObjectExists

if TYPE_CHECKING:
    from airflow_provider_ideogram.datasets.earlier_images import EarlierImages
    from airflow_provider_ideogram.datasets.rows import Item, RowChecker
    from airflow_provider_ideogram.datasets.state import DatasetState

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Plan:
    """
    The plan of a run.

    :param rows: The number of rows.
    :param total: The number of their images.
    :param counts: The number of images that are stored already, by status.
    :param own_cost_usd: What the vendor charged for the images, rejected ones included, that the run itself generated.
    :param original_cost_usd: What the vendor charged for those when they were generated.
    :param cost_is_estimate: Whether a part of that is a list price.
    :param to_do: The number of items to generate, or at least to check at their target, by model.
    :param continued: The requests of an earlier plan that items of this one wait for, by the item's key.
    :param ended: The lines of stored images whose requests the state still has as open, by the item's key.
    :param recorded: The lines of stored images that still have a record in the ledger, by the item's key.
    :param todo_chunks: The number of their chunks, ``todo-000000.jsonl`` and so on.
    :param copy_chunks: The number of chunks of copied items, ``copy-000000.jsonl`` and so on.
    :param parts: The number of parts with the lines of stored images, ``part-000000.jsonl`` and so on.
    """

    rows: int = 0
    total: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    own_cost_usd: float = 0.0
    original_cost_usd: float = 0.0
    cost_is_estimate: bool = False
    to_do: Counter[str] = field(default_factory=Counter)
    continued: dict[str, UnsettledRequest] = field(default_factory=dict)
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    recorded: dict[str, dict[str, Any]] = field(default_factory=dict)
    todo_chunks: int = 0
    copy_chunks: int = 0
    parts: int = 0

    def add_stored(self, line: dict[str, Any], request: UnsettledRequest | None, *, is_recorded: bool) -> None:
        """
        Count the line of a stored image.

        :param request: The item's request that the state has as open, None for none.
        :param is_recorded: Whether the ledger has a record of the image.
        """
        self.counts[line["status"]] += 1
        self.own_cost_usd += line.get("cost_usd") or 0.0
        self.original_cost_usd += line.get("original_cost_usd") or 0.0
        self.cost_is_estimate |= bool(line.get("cost_is_estimate"))
        self._end(line, request)
        if is_recorded:
            self.recorded[line["key"]] = line

    def add_unchecked(self, item: Item, line: dict[str, Any], request: UnsettledRequest | None) -> None:
        """Count the cost of a stored image that is still to pass the gates, if the run itself has paid for it."""
        if line["status"] == ImageStatus.GENERATED:
            self.own_cost_usd += line.get("cost_usd") or 0.0
            self._end(line, request)
            cost = line.get("original_cost_usd") or 0.0  # without the rejected attempts, which have their own
            self.continued[item.key] = UnsettledRequest(line["request_id"], cost, 0.0, item.fingerprint)

    def add_to_do(self, item: Item, request: UnsettledRequest | None) -> None:
        """Count an item that is generated, or whose request is waited for."""
        self.own_cost_usd += sum(attempt["cost_usd"] or 0.0 for attempt in item.attempts)
        if request is not None and request.fingerprint == item.fingerprint:
            self.continued[item.key] = request
        else:
            self.to_do[item.request.model] += 1

    def _end(self, line: dict[str, Any], request: UnsettledRequest | None) -> None:
        if request is not None and request.request_id in (None, line["request_id"]):
            self.ended[line["key"]] = line


@dataclass(slots=True)
class _Chunks:
    """Lines that are written a chunk at a time."""

    workspace: Workspace
    plan: int
    kind: str
    written: int = 0
    lines: list[dict[str, Any]] = field(default_factory=list)

    def add(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if len(self.lines) == CHUNK_ROWS:
            self.flush()

    def flush(self) -> None:
        if self.lines:
            is_part = self.kind == "part"
            names = partial(part_name, self.plan, 0) if is_part else partial(chunk_name, self.plan, self.kind)
            self.workspace.write_lines(names(self.written), self.lines)
            self.written, self.lines = self.written + 1, []


def make_plan(
    rows: Iterable[tuple[str, Any]],
    checker: RowChecker,
    earlier: EarlierImages,
    workspace: Workspace,
    number: int,
    if_exists: str,
    open_requests: Mapping[str, UnsettledRequest],
    records: Container[str] = (),
    gates: Collection[str] = (),
) -> Plan:
    """
    Read and check all rows, and write the plan to the workspace.

    :param rows: Each row with its place in the input.
    :param number: The number of the plan.
    :param if_exists: What an object at an item's key means: ``reuse``, ``overwrite`` or ``fail``.
    :param open_requests: Requests of an earlier plan that may be charged, by the item's key.
    :param records: The keys of images that have a record in the ledger.
    :param gates: The gates that an image must have passed to be reused unseen.
    :raises IdeogramInvalidInput: If a row is not valid; nothing was submitted then.
    :raises IdeogramObjectExists: If ``if_exists`` is ``fail`` and an object is at an item's key.
    """
    plan, counted = Plan(), _CountedRows(rows)
    todo, copies, parts = (_Chunks(workspace, number, kind) for kind in ("todo", "copy", "part"))
    for item in checker.items(counted):
        request = open_requests.get(item.key)
        is_own = earlier.is_own(item, request)
        line = earlier.line_of(item, request) if if_exists == "reuse" or is_own else None
        if line is not None and set(gates).issubset(gates_of(line)):
            plan.add_stored(line, request, is_recorded=item.key in records)
            parts.add(line)
        elif if_exists == "fail" and earlier.has(item) and not is_own:
            raise _exists(item)
        elif item.copy_of:
            copies.add(replace(item, own=is_own).to_json())
        else:
            planned = replace(item, own=is_own, earlier=earlier.rejected_attempts(item))
            if line is not None:
                plan.add_unchecked(planned, line, request)
            else:
                planned = replace(planned, absent=is_own or not earlier.has(item))
                plan.add_to_do(planned, request)
            todo.add(planned.to_json())
    plan.rows, plan.total = counted.rows, checker.images
    checker.raise_for_bad_rows(plan.rows)
    for chunks in (todo, copies, parts):
        chunks.flush()
    plan.todo_chunks, plan.copy_chunks, plan.parts = todo.written, copies.written, parts.written
    if checker.unknown_columns:
        names = sanitize_text(", ".join(sorted(checker.unknown_columns)))
        log.info("Columns that are not parameters are ignored: %s", names)
    return plan


def _exists(item: Item) -> IdeogramObjectExists:
    return IdeogramObjectExists(
        f"Row {item.row}: {item.key!r} exists and if_exists is 'fail'",
        "Nothing was charged. Choose another prefix, or if_exists='reuse' or 'overwrite'.",
    )


def plan_failed_items(
    workspace: Workspace, state: DatasetState, statuses: Sequence[ImageStatus], left_out: Container[str] = ()
) -> None:
    """
    Plan items without an image again, for a new attempt; those that wait or run already are not planned twice.

    :param state: The state at the end of the last attempt; it is changed.
    :param statuses: The statuses of those items.
    :param left_out: The keys of items that are not attempted again.
    :raises PlanLost: If a row can't be copied since another row's stored image was replaced or deleted.
    """
    failed: dict[int, tuple[str, Any]] = {}
    for line in map(json.loads, workspace.part_lines(state.plan)):
        failed.pop(line["row"], None)
        if line["status"] in statuses and line["key"] not in left_out:
            failed[line["row"]] = line["status"], line["rejected_attempts"]
    for row in _undecided_rows(workspace, state):
        failed.pop(row, None)
    _check_sources(workspace, state, failed)
    for status, _ in failed.values():
        state.counts[status] -= 1
    state.todo_chunks = _append(workspace, state.plan, "todo", state.todo_chunks, failed)
    state.copy_chunks = _append(workspace, state.plan, "copy", state.copy_chunks, failed)
    state.examples = []


def _check_sources(workspace: Workspace, state: DatasetState, failed: Container[int]) -> None:
    """Raise PlanLost if a failed row is a copy of one whose image was stored: that is no longer there."""
    sources: set[str] = set()
    for number in range(state.copy_chunks):
        lines = workspace.read_lines(chunk_name(state.plan, "copy", number))
        sources.update(line["copy_of"] for line in lines if line["row"] in failed)
    stored: dict[str, bool] = {}
    for line in map(json.loads, workspace.part_lines(state.plan)) if sources else ():
        if line["key"] in sources:
            stored[line["key"]] = line["error"] is None
    if lost := [key for key, is_stored in stored.items() if is_stored]:
        raise PlanLost(f"{lost[0]} was replaced or deleted since it was stored", GENERATED_STORED)


def _undecided_rows(workspace: Workspace, state: DatasetState) -> Iterator[int]:
    """Yield the rows that are in flight, delayed, or still to be taken from the plan."""
    yield from (in_flight.item.row for in_flight in state.in_flight)
    yield from (delayed.item.row for delayed in state.delayed)
    offset = state.next_offset
    for number in range(state.next_chunk, state.todo_chunks):
        for line in workspace.read_lines(chunk_name(state.plan, "todo", number))[offset:]:
            yield line["row"]
        offset = 0
    for number in range(state.copied_chunks, state.copy_chunks):
        for line in workspace.read_lines(chunk_name(state.plan, "copy", number)):
            yield line["row"]


def _append(workspace: Workspace, plan: int, kind: str, chunks: int, rows: dict[int, tuple[str, Any]]) -> int:
    """
    Move rows from the mapping to new chunks behind those of a kind; return the number of chunks.

    :param rows: The status and the rejected attempts by row.
    """
    appended = _Chunks(workspace, plan, kind, chunks)
    for number in range(chunks) if rows else ():
        for line in workspace.read_lines(chunk_name(plan, kind, number)):
            if failed := rows.pop(line["row"], None):
                appended.add(line | {"earlier": failed[1]})
    appended.flush()
    return appended.written


class _CountedRows:
    def __init__(self, rows: Iterable[tuple[str, Any]]) -> None:
        self._rows = rows
        self.rows = 0

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for self.rows, row in enumerate(self._rows, 1):  # noqa: B020
            yield row
