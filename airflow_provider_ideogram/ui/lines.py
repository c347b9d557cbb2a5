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
from airflow_provider_ideogram.storage.target import Target
from airflow_provider_ideogram.ui.objects import Reader

#: A prompt has at most 10,000 characters, each at most 12 bytes of JSON; the other fields are short.
MAX_LINE_BYTES = 256 * 1024
#: Enough for a line with a prompt of usual length.
_FIRST_READ_BYTES = 8 * 1024
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
    Return the line that begins at an offset, None if no line begins there.

    :raises IdeogramStorageError: If S3 does not return it.
    """
    before = min(offset, 1)  # the byte before must be the end of a line
    for size in (_FIRST_READ_BYTES, MAX_LINE_BYTES):
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

    def skip(self, count: int) -> int:
        """Skip up to ``count`` lines, and return how many there were."""
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
        """Return the next line's offset and its first :data:`MAX_LINE_BYTES`, None at the end."""
        searched = self._position
        while (end := self._buffer.find(b"\n", searched)) < 0:
            size = len(self._buffer) - self._position
            if size >= MAX_LINE_BYTES or not self._read():
                end = len(self._buffer)
                break
            searched = size
        offset, line = self._offset + self._position, self._buffer[self._position : end]
        has_newline = end < len(self._buffer)
        self._position = end + has_newline
        return (offset, line) if line or has_newline else None

    def _read(self) -> bool:
        """Read another chunk, and return whether there is one."""
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        self._buffer = self._buffer[self._position :] + chunk
        self._offset += self._position
        self._position = 0
        return True
