"""
The plan of a dataset's run: the images that are stored already, and those to be generated.

Invariant: the whole input is read and checked before the plan is written, and the plan is written before the first
submit. Later changes of the input do not change the run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.api.sanitize import sanitize_text
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.manifest import EarlierImages
from airflow_provider_ideogram.datasets.workspace import CHUNK_ROWS, Workspace, chunk_name
from airflow_provider_ideogram.exceptions import IdeogramObjectExists

if TYPE_CHECKING:
    from airflow_provider_ideogram.datasets.rows import RowChecker
    from airflow_provider_ideogram.datasets.state import DatasetState

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Plan:
    """
    The counts of a plan.

    :param total: Rows.
    :param reused: Images that are stored already.
    :param to_do: Images to be generated, or at least checked.
    :param chunks: Chunks of these, as ``todo-000000.jsonl`` and so on.
    :param copies: Chunks of rows that get another row's image, as ``copy-000000.jsonl`` and so on.
    :param parts: Parts with the lines of the other rows, as ``part-000000.jsonl`` and so on.
    """

    total: int = 0
    reused: int = 0
    to_do: int = 0
    chunks: int = 0
    copies: int = 0
    parts: int = 0


@dataclass(slots=True)
class _Chunks:
    """Lines that are written a chunk at a time."""

    workspace: Workspace
    kind: str
    written: int = 0
    lines: list[dict[str, Any]] = field(default_factory=list)

    def add(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if len(self.lines) == CHUNK_ROWS:
            self.flush()

    def flush(self) -> None:
        if self.lines:
            self.workspace.write_lines(chunk_name(self.kind, self.written), self.lines)
            self.written, self.lines = self.written + 1, []


def make_plan(
    rows: Iterable[tuple[str, Any]],
    checker: RowChecker,
    earlier: EarlierImages,
    workspace: Workspace,
    if_exists: str,
) -> Plan:
    """
    Read and check all rows, and write the plan.

    :param rows: Each row with its place.
    :param checker: Turns rows into items.
    :param earlier: The images that are stored already.
    :param workspace: Where the plan is written.
    :param if_exists: What an image at an item's key means.
    :raises IdeogramInvalidInput: If any row is invalid.
    :raises IdeogramObjectExists: If ``if_exists`` is ``fail`` and an image is stored already.
    """
    workspace.clear()  # the objects of an earlier attempt with another input
    try:
        return _plan(rows, checker, earlier, workspace, if_exists)
    except Exception:
        workspace.clear()
        raise


def _plan(
    rows: Iterable[tuple[str, Any]],
    checker: RowChecker,
    earlier: EarlierImages,
    workspace: Workspace,
    if_exists: str,
) -> Plan:
    plan, counted = Plan(), _Counted(rows)
    to_do, copies, parts = (_Chunks(workspace, kind) for kind in ("todo", "copy", "part"))
    for item in checker.items(counted):
        line = earlier.line_of(item) if if_exists == "reuse" else None
        if line is not None:
            plan.reused += 1
            parts.add(line)
        elif if_exists == "fail" and earlier.has(item):
            raise IdeogramObjectExists(
                f"Row {item.row}: {item.key!r} exists and if_exists is 'fail'",
                "Nothing was charged. Choose another prefix, or if_exists='reuse' or 'overwrite'.",
            )
        elif item.copy_of:
            copies.add(item.to_json())
        else:
            plan.to_do += 1
            to_do.add(replace(item, absent=not earlier.has(item)).to_json())
    plan.total = counted.rows
    checker.raise_for_bad_rows(plan.total)
    for chunks in (to_do, copies, parts):
        chunks.flush()
    plan.chunks, plan.copies, plan.parts = to_do.written, copies.written, parts.written
    if checker.unknown_columns:
        names = sanitize_text(", ".join(sorted(checker.unknown_columns)))
        log.info("Columns that are not parameters are ignored: %s", names)
    return plan


def plan_again(workspace: Workspace, state: DatasetState, statuses: Sequence[ImageStatus]) -> None:
    """
    Plan the items without an image again, for a new attempt.

    :param state: The state of the previous attempt; it is changed.
    :param statuses: The statuses of the items that are planned.
    """
    found: dict[int, str] = {}
    for number in range(state.parts):
        for line in workspace.read_lines(chunk_name("part", number)):
            found.pop(line["row"], None)
            if line["status"] in statuses:
                found[line["row"]] = line["status"]
    for status in found.values():
        state.counts[status] -= 1
    state.chunks = _append(workspace, "todo", state.chunks, found)
    state.copies = _append(workspace, "copy", state.copies, found)
    state.consecutive_same_failures, state.examples = 0, []


def _append(workspace: Workspace, kind: str, chunks: int, rows: dict[int, str]) -> int:
    """Append chunks with the items of some rows, which are removed from ``rows``; return the number of chunks."""
    appended = _Chunks(workspace, kind, chunks)
    for number in range(chunks) if rows else ():
        for line in workspace.read_lines(chunk_name(kind, number)):
            if rows.pop(line["row"], None):
                appended.add(line)
    appended.flush()
    return appended.written


class _Counted:
    def __init__(self, rows: Iterable[tuple[str, Any]]) -> None:
        self._rows = rows
        self.rows = 0

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for self.rows, row in enumerate(self._rows, 1):  # noqa: B020
            yield row
