"""
Lines of objects in S3.

Invariant: memory is bounded by a chunk and a line, however much is skipped. A line is named by the byte where it
begins, so that it can be read without those before it; where no line begins there is nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import Any

from botocore.exceptions import ClientError

from airflow_provider_ideogram.storage.target import Target

#: A prompt has 10,000 characters at most, each at most 12 bytes of JSON, and the other fields are short.
MAX_LINE_BYTES = 256 * 1024
#: Enough for the line of a prompt of usual length.
_FIRST_READ_BYTES = 8 * 1024
_CHUNK_BYTES = 64 * 1024


def read_lines(client: Any, target: Target, skip: int, limit: int) -> tuple[int, list[tuple[int, bytes]]]:
    """
    Read some lines of an object, each with the offset of its first byte.

    :return: How many lines were skipped, which is fewer than asked for where the object has no more, and the lines.
    :raises ClientError: If S3 does not permit it.
    """
    with closing(_get(client, target)) as body:
        lines = Lines(body.iter_chunks(_CHUNK_BYTES))
        skipped = lines.skip(skip)
        found: list[tuple[int, bytes]] = []
        while len(found) < limit and (line := lines.next()) is not None:
            found.append(line)
        return skipped, found


def read_line(client: Any, target: Target, offset: int) -> bytes | None:
    """
    Return the line that begins at a byte, None if none does.

    :raises ClientError: If S3 does not permit it.
    """
    before = min(offset, 1)  # the byte before must end a line
    for size in (_FIRST_READ_BYTES, MAX_LINE_BYTES):
        try:
            with closing(_get(client, target, f"bytes={offset - before}-{offset + size - 1}")) as body:
                content: bytes = body.read(size + before)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "InvalidRange":
                return None
            raise
        if content[:before] != b"\n"[:before]:
            return None
        line, newline, _ = content[before:].partition(b"\n")
        if newline or len(line) < size:
            return line or None
    return None


def _get(client: Any, target: Target, byte_range: str | None = None) -> Any:
    arguments = {} if byte_range is None else {"Range": byte_range}
    return client.get_object(Bucket=target.bucket, Key=target.key, **arguments)["Body"]


class Lines:
    """
    The lines of a stream of bytes, one after the other, with where each begins.

    Only the end of the chunk at hand, and a line that goes on into the next, are in memory.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._offset = 0

    def skip(self, count: int) -> int:
        """Drop up to so many lines, and return how many there were."""
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
            self._drop(len(self._buffer) - bool(rest))  # a byte is left of a line that goes on
            self._buffer += chunk
        return skipped

    def next(self) -> tuple[int, bytes] | None:
        """Return where the next line begins and its first :data:`MAX_LINE_BYTES`, None at the end."""
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
