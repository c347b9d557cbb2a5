"""
Lines of objects in S3.

Invariant: memory is bounded by a chunk and a line, however many lines are skipped. A line is addressed by the offset of
its first byte, so that it can be read alone; an offset at which no line begins has no line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import closing

from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.jobs.record import MAX_BYTES as MAX_RECORD_BYTES
from airflow_provider_ideogram.storage.target import Target
from airflow_provider_ideogram.ui.objects import Reader

#: The bytes of a line that are kept: more than a line has whose model_params fill a record of the ledger.
MAX_LINE_BYTES = 2 * MAX_RECORD_BYTES
#: The bytes that are read for a line, one size after another: enough for a prompt of usual length, for one of 10,000
#: characters, and for every line.
_READ_BYTES = (8 * 1024, 256 * 1024, MAX_LINE_BYTES)
_RANGE_NOT_SATISFIABLE = 416
_NEWLINES = re.compile(rb"\n*")


def iter_lines(reader: Reader, target: Target) -> Iterator[tuple[int, bytes]]:
    """
    Yield the lines of an object that are not empty, each with the offset of its first byte.

    :raises IdeogramStorageError: If S3 does not return it.
    """
    with closing(reader.chunks(target)) as chunks:
        lines = Lines(chunks)
        while (found := lines.next()) is not None:
            if found[1]:
                yield found
            lines.skip_empty()


def read_lines(
    reader: Reader, target: Target, skip: int, limit: int, start: int = 0
) -> tuple[int, list[tuple[int, bytes]]]:
    """
    Read some lines of an object, each with the offset of its first byte.

    :param start: The offset of a line, from which on lines are skipped.
    :return: The number of skipped lines, which is less than ``skip`` if the object has fewer, and the lines.
    :raises IdeogramStorageError: If S3 does not return it.
    """
    with closing(reader.chunks(target, start)) as chunks:
        lines = Lines(chunks, start)
        skipped = lines.skip(skip)
        found: list[tuple[int, bytes]] = []
        while len(found) < limit and (line := lines.next()) is not None:
            found.append(line)
        return skipped, found


def read_line(reader: Reader, target: Target, offset: int) -> bytes | None:
    """
    Return the line that begins at an offset, None if no line begins there, or one above :data:`MAX_LINE_BYTES`.

    :raises IdeogramStorageError: If S3 does not return it.
    """
    before = min(offset, 1)  # the byte before must be the end of a line
    for size in _READ_BYTES:
        try:
            content = reader.read_range(target, offset - before, size + before)
        except IdeogramStorageError as error:
            if error.status_code == _RANGE_NOT_SATISFIABLE:
                return None
            raise
        if content[:before] != b"\n"[:before]:
            return None
        line, newline, _ = content[before:].partition(b"\n")
        if newline or len(line) < size:
            return line or None
    return None


class Lines:
    """
    The lines of a stream of bytes with their offsets.

    Only the rest of one chunk, and a line that continues in the next, are in memory.

    :param offset: The offset of the first byte.
    """

    def __init__(self, chunks: Iterable[bytes], offset: int = 0) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._position = 0  # in the buffer
        self._offset = offset  # of the buffer
        self._is_cut = False  # whether the rest of the last line was not read

    def skip(self, count: int) -> int:
        """Skip up to ``count`` lines, and return how many there were."""
        self._skip_rest()
        skipped = 0
        while skipped < count:
            newlines = self._buffer.count(b"\n", self._position)
            if newlines >= count - skipped:
                for _ in range(count - skipped):
                    self._position = self._buffer.index(b"\n", self._position) + 1
                return count
            skipped += newlines
            is_within_line = max(self._buffer.rfind(b"\n") + 1, self._position) < len(self._buffer)
            self._position = len(self._buffer) - is_within_line  # a byte is left of a line that continues
            if not self._read():
                self._position = len(self._buffer)
                return skipped + is_within_line
        return skipped

    def skip_empty(self) -> None:
        """Skip empty lines, as far as they are in memory."""
        if match := _NEWLINES.match(self._buffer, self._position):
            self._position = match.end()

    def next(self) -> tuple[int, bytes] | None:
        """
        Return the next line's offset and the line, None at the end.

        A line above :data:`MAX_LINE_BYTES` is cut; its rest is no line.
        """
        self._skip_rest()
        searched = self._position
        while (end := self._buffer.find(b"\n", searched)) < 0:
            size = len(self._buffer) - self._position
            self._is_cut = size >= MAX_LINE_BYTES
            if self._is_cut or not self._read():
                end = len(self._buffer)
                break
            searched = size
        offset = self._offset + self._position
        line = self._buffer[self._position : min(end, self._position + MAX_LINE_BYTES)]
        has_newline = end < len(self._buffer)
        self._position = end + has_newline
        return (offset, line) if line or has_newline else None

    def _skip_rest(self) -> None:
        """Skip the rest of a line that was cut: only now, since it may be without an end."""
        if self._is_cut:
            self._is_cut = False
            self.skip(1)

    def _read(self) -> bool:
        """Read another chunk, and return whether there is one."""
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        self._buffer = self._buffer[self._position :] + chunk
        self._offset += self._position
        self._position = 0
        return True
