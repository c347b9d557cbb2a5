"""
The place of a row in a manifest.

Invariant: the rows of a manifest are in ascending order, so that a row is found with few short reads, however far down
it is. Where the lines are not rows, the search ends early, and the lines are counted from there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_provider_ideogram.storage.target import Target
from airflow_provider_ideogram.ui.objects import Reader

#: The beginning of a row's line.
ROW = re.compile(rb'\{"row": (\d{1,15}),')
_PROBE_BYTES = 32 * 1024
#: So many bytes up to the row, at the lines' average length, are read through rather than probed: that is one read.
_NEAR_BYTES = 512 * 1024
#: Rows that are not looked for, since they are most likely within those bytes.
_NEAR_ROWS = 500
_MAX_PROBES = 24


@dataclass(frozen=True, slots=True)
class Place:
    """The offset of a line and its row."""

    offset: int
    row: int


def place_before(reader: Reader, target: Target, row: int, rows: int) -> Place:
    """
    Return the place of a row, or of one at most some hundred KB before it.

    :param rows: How many rows the manifest has.
    :raises IdeogramStorageError: If S3 does not return it.
    """
    low = Place(0, 0)
    if row < _NEAR_ROWS:
        return low
    high = Place(reader.size(target), max(rows, row + 1))
    for probe in range(_MAX_PROBES):
        room = high.offset - low.offset
        part = (row - low.row) / (high.row - low.row)
        if row <= low.row or part * room <= _NEAR_BYTES:
            break
        share = part if probe % 2 == 0 else 0.5
        # A bit too early is a place that can be used.
        guess = low.offset + min(max(int(room * share) - _PROBE_BYTES // 2, _PROBE_BYTES), room - _PROBE_BYTES)
        found = _first_place(reader.read_range(target, guess, _PROBE_BYTES), guess)
        if found is None or not low.row < found.row < high.row:
            break
        low, high = (found, high) if found.row <= row else (low, Place(guess, found.row))
    return low


def _first_place(content: bytes, offset: int) -> Place | None:
    """Return the first place in a part of a manifest, None if no row begins in it."""
    start = content.find(b"\n") + 1
    match = ROW.match(content, start)
    return Place(offset + start, int(match[1])) if start and match else None
