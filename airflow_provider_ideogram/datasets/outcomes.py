"""
The outcomes of a dataset's items: their lines, counts and costs.

Invariant: a line is written before it is counted, and each image's cost is counted once, also if a later attempt
completes a request that an earlier one abandoned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram import metrics
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.manifest import failed_line
from airflow_provider_ideogram.datasets.rows import MAX_LISTED
from airflow_provider_ideogram.datasets.workspace import chunk_name

if TYPE_CHECKING:
    from airflow_provider_ideogram.datasets.rows import Item
    from airflow_provider_ideogram.datasets.state import DatasetState
    from airflow_provider_ideogram.datasets.workspace import Workspace
    from airflow_provider_ideogram.exceptions import IdeogramError

#: Times, sizes, addresses and ids within the text of an error.
_WITH_DIGITS = re.compile(r"\S*\d\S*")


def write_outcomes(workspace: Workspace, state: DatasetState, lines: list[dict[str, Any]]) -> None:
    """Write the lines of decided items as a part, and count them."""
    if not lines:
        return
    workspace.write_lines(chunk_name("part", state.parts), lines)
    state.parts += 1
    for line in lines:
        state.counts[line["status"]] += 1
        state.add_cost(line)
        _note_failure(state, line)


def line_of_error(item: Item, error: IdeogramError, request_id: str | None = None) -> dict[str, Any]:
    """Return the line of an item that ended with an error, and count it in the metrics."""
    metrics.failed(error.code)
    status = ImageStatus.of_error(error.code)
    cost = 0.0 if error.charged is False else None
    return failed_line(item, status, str(error), request_id or error.request_id, cost)


def _note_failure(state: DatasetState, line: Mapping[str, Any]) -> None:
    """Note an item without an image: an example for the error, and whether failures are all the same."""
    if line["error"] is None:
        state.failure, state.consecutive_same_failures = "", 0
        return
    if len(state.examples) < MAX_LISTED:
        state.examples.append(f"{line['id']}: {line['error']}")
    if line["status"] == ImageStatus.FAILED:
        error = _common_part(line)
        state.consecutive_same_failures = state.consecutive_same_failures + 1 if error == state.failure else 1
        state.failure = error


def _common_part(line: Mapping[str, Any]) -> str:
    """Return a line's error without its key, its request and all words with digits."""
    error = str(line["error"]).replace(str(line["key"]), "0").replace(str(line["request_id"]), "0")
    return _WITH_DIGITS.sub("…", error)
