"""
Lines of objects in S3.

Invariant: memory is bounded by a chunk and a line, however many lines are skipped. A line is addressed by the offset of
its first byte, so that it can be read alone; an offset at which no line begins has no line.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import Any

from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.storage.objects import NOTHING_CHARGED, ObjectStore
from airflow_provider_ideogram.storage.target import Target

#: A prompt has at most 10,000 characters, each at most 12 bytes of JSON; the other fields are short.
MAX_LINE_BYTES = 256 * 1024
#: Enough for a line with a prompt of usual length.
_FIRST_READ_BYTES = 8 * 1024
_CHUNK_BYTES = 64 * 1024
_RANGE_NOT_SATISFIABLE = 416


def read_lines(objects: ObjectStore, target: Target, skip: int, limit: int) -> tuple[int, list[tuple[int, bytes]]]:
    """
    Read some lines of an object, each with the offset of its first byte.

    :return: The number of skipped lines, which is less than ``skip`` if the object has fewer, and the lines.
    :raises IdeogramStorageError: If S3 does not return it.
    """
    with closing(_open(objects, target)) as body:
        lines = Lines(body.iter_chunks(_CHUNK_BYTES))
        skipped = lines.skip(skip)
        found: list[tuple[int, bytes]] = []
        while len(found) < limit and (line := lines.next()) is not None:
            found.append(line)
        return skipped, found


def read_line(objects: ObjectStore, target: Target, offset: int) -> bytes | None:
    """
    Return the line that begins at an offset, None if no line begins there.

    :raises IdeogramStorageError: If S3 does not return it.
    """
    before = min(offset, 1)  # the byte before must be the end of a line
    for size in (_FIRST_READ_BYTES, MAX_LINE_BYTES):
        try:
            with closing(_open(objects, target, f"bytes={offset - before}-{offset + size - 1}")) as body:
                content: bytes = body.read(size + before)
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


def _open(objects: ObjectStore, target: Target, byte_range: str | None = None) -> Any:
    options = {} if byte_range is None else {"Range": byte_range}
    response = objects.stream(target.bucket, target.key, **options)
    if response is None:
        raise IdeogramStorageError(f"{target.uri} is missing", NOTHING_CHARGED)
    return response["Body"]


class Lines:
    """
    The lines of a stream of bytes with their offsets.

    Only the rest of one chunk, and a line that continues in the next, are in memory.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._offset = 0

    def skip(self, count: int) -> int:
        """Skip up to ``count`` lines, and return how many there were."""
        skipped = 0
        while skipped < count:
            if (newline := self._buffer.find(b"\n")) >= 0 and self._buffer.count(b"\n") >= count - skipped:
                for _ in range(count - skipped - 1):
                    newline = self._buffer.find(b"\n", newline + 1)
                self._drop(newline + 1)
                return count
            skipped += self._buffer.count(b"\n")
            rest = self._buffer[self._buffer.rfind(b"\n") + 1 :]
            chunk = next(self._chunks, None)
            if chunk is None:
                self._drop(len(self._buffer))
                return skipped + bool(rest)
            self._drop(len(self._buffer) - bool(rest))  # a byte is left of a line that continues
            self._buffer += chunk
        return skipped

    def next(self) -> tuple[int, bytes] | None:
        """Return the next line's offset and its first :data:`MAX_LINE_BYTES`, None at the end."""
        searched = 0
        while (newline := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            chunk = next(self._chunks, None) if searched < MAX_LINE_BYTES else None
            if chunk is None:
                break
            self._buffer += chunk
        offset = self._offset
        line = self._buffer if newline < 0 else self._buffer[:newline]
        self._drop(len(line) + (newline >= 0))
        return (offset, line) if line or newline >= 0 else None

    def _drop(self, size: int) -> None:
        self._buffer = self._buffer[size:]
        self._offset += size
