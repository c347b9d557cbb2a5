"""
Files of rows: JSONL, CSV and Parquet, on S3 or on the worker.

Invariant: rows are read one after another. A row of JSONL or CSV takes at most :data:`_MAX_LINE` characters of memory,
also in a file that decompresses to one endless line. A row that can't be read is a ValueError in its place.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_ideogram.api.sanitize import sanitize_text
from airflow_provider_ideogram.api.values import shown
from airflow_provider_ideogram.datasets.arrow_rows import BATCH, arrow_rows
from airflow_provider_ideogram.datasets.columns import column_name
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramStorageError

if TYPE_CHECKING:
    from airflow_provider_ideogram.storage.objects import ObjectStore

#: Characters of a row at most, far above what parameters need.
_MAX_LINE = 1 << 20
#: The byte order marks of UTF-16, and of UTF-32, as they are read with ``surrogateescape``.
_UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")
_ENDINGS = {"jsonl": (".jsonl", ".ndjson"), "csv": (".csv",), "parquet": (".parquet", ".pq")}


def read_rows(
    path: str, objects: ObjectStore, needed_columns: Sequence[str] = ("prompt",)
) -> Iterator[tuple[str, Any]]:
    """
    Yield the rows of a file, each with its place, such as ``line 7``.

    :param path: A local path or ``s3://bucket/key``; the ending selects the format: JSONL, CSV with a header, both also
        with gzip, or Parquet.
    :param objects: The S3 layer.
    :param needed_columns: The columns that a header must have, as :func:`column_name` returns them.
    :raises IdeogramInvalidInput: If the format is unknown, or the file is missing or does not have it.
    """
    if problems := check_rows_path(path):
        raise IdeogramInvalidInput.of(problems)
    kind = _kind(path)
    with closing(_open(path, objects)) as file:
        if kind == "parquet":
            yield from _parquet(file)
            return
        is_packed = path.lower().endswith(".gz")
        raw: IO[bytes] = gzip.GzipFile(fileobj=file) if is_packed else file  # type: ignore[assignment]
        # Bytes that are not UTF-8 become surrogates here, and then an error of their own line.
        with io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            try:
                yield from _csv(text, needed_columns) if kind == "csv" else _jsonl(text)
            except (csv.Error, EOFError, OSError, zlib.error) as problem:
                raise IdeogramInvalidInput.of([f"prompts_path: {path!r} can't be read: {problem}"]) from problem


def check_rows_path(path: Any) -> list[str]:
    """Return the problems of a ``prompts_path`` that can be found without reading it."""
    if not isinstance(path, str):
        return [f"prompts_path: must be a path, not {shown(path)}"]
    if _kind(path) is None:
        return [f"prompts_path: {path!r} does not end in .jsonl, .csv (or with .gz) or .parquet"]
    scheme, is_address, rest = path.partition("://")
    if is_address and scheme not in ("s3", "file"):
        return [f"prompts_path: {path!r} is neither on S3 (s3://) nor a file on the worker"]
    if scheme == "s3" and "@" in rest.partition("/")[0]:
        return [f"prompts_path: {path!r} names another connection than aws_conn_id, by which S3 is read"]
    return []


def _kind(path: str) -> str | None:
    name = path.lower()
    plain = name.removesuffix(".gz")
    kind = next((kind for kind, endings in _ENDINGS.items() if plain.endswith(endings)), None)
    return None if kind == "parquet" and name != plain else kind


def version_of(path: str, objects: ObjectStore) -> list[Any]:
    """
    Return values that change when the file changes, without reading it.

    :raises IdeogramInvalidInput: If the file is missing.
    :raises IdeogramStorageError: If S3 can't be reached.
    """
    if address := _address(path):
        head = objects.head(*address)
        if head is None:
            raise _missing(path)
        return [path, head["ETag"]]
    try:
        status = _local(path).stat()
    except OSError as problem:
        raise IdeogramInvalidInput.of([f"prompts_path: {path!r} is not on this worker: {problem}"]) from problem
    return [path, status.st_size, status.st_mtime_ns]


def _open(path: str, objects: ObjectStore) -> IO[bytes]:
    if address := _address(path):
        try:
            return objects.open(*address)
        except IdeogramStorageError as problem:
            if problem.status_code == HTTPStatus.NOT_FOUND:
                raise _missing(path) from problem
            raise
    try:
        return _local(path).open("rb")
    except OSError as problem:
        raise IdeogramInvalidInput.of(
            [f"prompts_path: {path!r} can't be opened on this worker: {problem}"]
        ) from problem


def _missing(path: str) -> IdeogramInvalidInput:
    return IdeogramInvalidInput.of([f"prompts_path: {path!r} does not exist"])


def _address(path: str) -> tuple[str, str] | None:
    """Return bucket and key of a path on S3, None for a local path."""
    if not path.startswith("s3://"):
        return None
    bucket, _, key = path.removeprefix("s3://").partition("/")
    return bucket, key


def _local(path: str) -> Path:
    return Path(path.removeprefix("file://"))


class _Lines:
    """The lines of a text; a row of more than :data:`_MAX_LINE` characters raises IdeogramInvalidInput."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self._left = _MAX_LINE
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(self._left):
            self.number += 1
            self._left -= len(line)
            if self.number == 1 and ("\0" in line[:4] or line[:2] in _UTF_16):
                raise IdeogramInvalidInput.of(["prompts_path: the file is UTF-16 or UTF-32; save it as UTF-8"])
            if self._left <= 0:
                raise IdeogramInvalidInput.of(
                    [f"prompts_path: the row at line {self.number} is longer than {_MAX_LINE:,} characters"]
                )
            yield line

    def end_row(self) -> None:
        """Start counting the characters of the next row."""
        self._left = _MAX_LINE


def _jsonl(text: IO[str]) -> Iterator[tuple[str, Any]]:
    lines = _Lines(text)
    for line in lines:
        lines.end_row()
        if not line.strip():
            continue
        try:
            yield f"line {lines.number}", _utf8(line) or json.loads(line)
        except (ValueError, RecursionError) as problem:
            yield f"line {lines.number}", ValueError(f"is not JSON: {problem}")


def _csv(text: IO[str], needed_columns: Sequence[str]) -> Iterator[tuple[str, Any]]:
    lines = _Lines(text)
    header: list[str] = []
    try:
        for row in _csv_reader(lines, needed_columns):
            lines.end_row()
            if not any(row):  # a blank line, or cells that a spreadsheet has added
                continue
            if not header:
                header = _header(row, needed_columns)
                continue
            yield f"line {lines.number}", _utf8("".join(row)) or _columns(header, row)
    except csv.Error as problem:
        raise csv.Error(f"line {lines.number}: {problem}") from problem


def _csv_reader(lines: _Lines, needed_columns: Sequence[str]) -> Iterator[list[str]]:
    """Return the reader of a file whose delimiter is a comma, semicolon or tab, or stands in a ``sep=`` line."""
    unread = iter(lines)
    first = ""
    while not first.strip() and (first := next(unread, "")):
        lines.end_row()
    is_separator = first.strip('"\r\n')[:4].casefold() == "sep="
    delimiter = first.strip('"\r\n')[4:] if is_separator else _delimiter(first, needed_columns)
    if len(delimiter) != 1:
        raise csv.Error(f"{sanitize_text(first)!r} names no delimiter of one character")
    return csv.reader(unread if is_separator else itertools.chain([first], unread), delimiter=delimiter, strict=True)


def _delimiter(header: str, needed_columns: Sequence[str]) -> str:
    """Return the delimiter that finds most of the needed columns in a header, then most columns."""

    def columns_found(delimiter: str) -> tuple[int, int]:
        names = [column_name(name) for name in next(csv.reader([header], delimiter=delimiter), [])]
        return sum(name in needed_columns for name in names), len(names)

    return max(",;\t", key=columns_found)


def _header(row: list[str], needed_columns: Sequence[str]) -> list[str]:
    """Return the names of the columns, without the empty ones at the end."""
    names = [column_name(name) for name in row]
    while not names[-1]:
        names.pop()
    named = [name for name in names if name]
    if len(set(named)) < len(named):
        raise csv.Error(f"the header {sanitize_text(str(row))} has a column twice")
    if missing := [name for name in needed_columns if name not in named]:
        raise csv.Error(f"the header {sanitize_text(str(row))} has no column {missing[0]!r}")
    return [name.strip() for name in row[: len(names)]]


def _columns(header: list[str], row: list[str]) -> dict[str, str] | ValueError:
    if len(row) < len(header) or any(row[len(header) :]):
        return ValueError(f"has {len(row)} values, and the header has {len(header)} columns")
    return {name: value for name, value in zip(header, row, strict=False) if name}


def _utf8(text: str) -> ValueError | None:
    """Return the error of a line whose bytes are not UTF-8, None for a valid line."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return ValueError("is not UTF-8")
    return None


def _parquet(file: IO[bytes]) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise IdeogramInvalidInput.of(
            ["prompts_path: Parquet needs the provider's extra 'parquet' (pyarrow)"]
        ) from None
    try:
        # Parquet is read from its end, so the whole compressed file is in memory; its rows are decompressed in batches.
        batches = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(file.read())).iter_batches(BATCH)
        for number, row in enumerate(arrow_rows(batches), 1):
            yield f"row {number}", row
    # A damaged file raises OSError; a value that Python can't represent, such as a late date, one of the others.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as problem:
        raise IdeogramInvalidInput.of(
            [f"prompts_path: the file is not Parquet, or has values that can't be read: {sanitize_text(str(problem))}"]
        ) from problem
