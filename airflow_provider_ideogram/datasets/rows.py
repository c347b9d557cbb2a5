"""
The rows of a prompt dataset.

Invariant: rows are streamed, each at most :data:`_MAX_LINE` long where the format allows to check that, and all are
checked before the first submit. A problem of a row is a short text with the row's place.
"""

from __future__ import annotations

import csv
import difflib
import functools
import gzip
import hashlib
import io
import json
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

from airflow_provider_ideogram.api.parameters import CHECKS, GenerationRequest
from airflow_provider_ideogram.api.sanitize import sanitize_text
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target, check_key

#: The manifest's name below the prefix, which no image may have.
MANIFEST = "manifest.jsonl"
#: Bad rows that an error lists.
MAX_LISTED = 20
#: Unknown columns that are remembered.
_MAX_COLUMNS = 50
#: Characters of a row at most.
_MAX_LINE = 1 << 20
#: Characters of a row's problem, which quotes its values.
_MAX_PROBLEM = 500
_ID = "id"
#: A column whose name is this similar to a parameter's is an error; others are the user's own.
_SLIP = 0.8
_PARQUET_BATCH = 500


@dataclass(frozen=True, slots=True)
class Item:
    """
    A valid row.

    :param row: Its position in the input, from 0.
    :param id: Its own id, or one derived from its inputs.
    :param request: Its request.
    :param key: The key of its image.
    :param copy_of: The key of another row's image that is copied, empty for a generated one. It is the item's own key
        if both rows have the same derived id.
    :param absent: Whether no object was at its key when the run was planned.
    """

    row: int
    id: str
    request: GenerationRequest
    key: str
    copy_of: str = ""
    absent: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the item as plain JSON."""
        return {**{item.name: getattr(self, item.name) for item in fields(self)}, "request": self.request.inputs()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Item:
        """Restore the item from :meth:`to_json`."""
        return cls(**{**value, "request": GenerationRequest.from_inputs(value["request"])})


class RowChecker:
    """
    Turn rows into items, and collect their problems.

    :param defaults: The request's parameters that a row does not have.
    :param prefix: Where the images go.
    :param key_template: The images' keys below that, with ``{id}`` and ``{row}``.
    :param dedupe: Whether rows with identical inputs share an image.
    """

    def __init__(self, defaults: Mapping[str, Any], prefix: Target, key_template: str, *, dedupe: bool = False) -> None:
        self._defaults = dict(defaults)
        self._prefix = prefix
        self._key_template = key_template
        # A digest and an id take about 140 MB for a million keys. The manifest's key has no id.
        self._ids: dict[bytes, str | None] = {_place(prefix.key + MANIFEST): None}
        self._made: dict[str, str] | None = {} if dedupe else None
        self.bad_rows = 0
        self.problems: list[str] = []
        self.unknown_columns: set[str] = set()

    def items(self, rows: Iterable[tuple[str, Any]]) -> Iterator[Item]:
        """
        Yield the rows that are valid.

        :param rows: Each row with its place, such as ``line 7``.
        """
        for row, (place, value) in enumerate(rows):
            try:
                yield self._item(row, value)
            except ValueError as problem:
                self.bad_rows += 1
                if len(self.problems) < MAX_LISTED:
                    self.problems.append(f"{place}: {_one_line(problem)}")

    def raise_for_bad_rows(self, total: int) -> None:
        """Raise IdeogramInvalidInput if any row was bad; it lists the first 20 and counts all."""
        if self.bad_rows:
            more = self.bad_rows - len(self.problems)
            rest = [f"… and {more} more bad rows"] if more else []
            raise IdeogramInvalidInput.of([f"{self.bad_rows} of {total} rows can't be used", *self.problems, *rest])

    def _item(self, row: int, value: Any) -> Item:
        if isinstance(value, ValueError):
            raise value
        columns = {"prompt": value} if isinstance(value, str) else value
        if not isinstance(columns, Mapping):
            raise ValueError(f"must be a prompt or a mapping, not {type(value).__name__}")
        given = {str(name): item for name, item in columns.items() if item is not None and item != ""}
        self._check_columns(given)
        if "prompt" not in given:
            raise ValueError("has no prompt")
        request = GenerationRequest(**self._defaults | _parameters(given))
        item_id = _id(given.get(_ID), request)
        key = self._key(row, item_id)
        made = None if self._made is None else self._made.get(request.fingerprint)
        if made != key or _ID in given:
            self._check_unique(key, item_id)
        if self._made is not None:
            self._made.setdefault(request.fingerprint, key)
        return Item(row, item_id, request, key, copy_of=made or "")

    def _check_columns(self, given: Mapping[str, Any]) -> None:
        for name in given.keys() - CHECKS.keys() - {_ID} - self.unknown_columns:
            if near := _slip(name):
                raise ValueError(f"column {name!r} is not a parameter. Did you mean {near!r}?")
            if len(self.unknown_columns) < _MAX_COLUMNS:
                self.unknown_columns.add(name)

    def _key(self, row: int, item_id: str) -> str:
        key = self._prefix.key + self._key_template.format(id=item_id, row=row)
        if problems := check_key(key, with_bucket=True, name="key"):
            raise ValueError("; ".join(problems))
        if key.endswith("/"):
            raise ValueError(f"its key {key!r} must not end in '/'")
        return key

    def _check_unique(self, key: str, item_id: str) -> None:
        place = _place(key)
        if place not in self._ids:
            self._ids[place] = item_id
            return
        first = self._ids[place]
        if first is None:
            raise ValueError(f"its key {key!r} must not be the manifest's")
        raise ValueError(
            f"id {item_id!r} and id {first!r} have the same key, or keys that differ only in case or in how accents "
            "are written, which macOS and Windows take for one. Give them other ids, or {row} in key_template. "
            "Identical rows without ids need ids of their own, or dedupe=True"
        )


def _place(key: str) -> bytes:
    """
    Return a digest that is the same for keys that macOS or Windows treat as the same file.

    S3 keeps them apart; copied to such a disk only the last one would remain.
    """
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", key).casefold())
    return hashlib.blake2b(folded.encode(), digest_size=12).digest()


@functools.lru_cache(maxsize=1000)
def _slip(name: str) -> str | None:
    """Return the parameter whose name a column's name resembles, None for a column of the user."""
    return next(iter(difflib.get_close_matches(name, CHECKS, n=1, cutoff=_SLIP)), None)


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {name: given[name] for name in CHECKS if name in given}
    if isinstance(parameters.get("model_params"), str):  # CSV has no other form
        try:
            parameters["model_params"] = json.loads(parameters["model_params"])
        except ValueError as problem:
            raise ValueError(f"model_params: {problem}") from None
    seed = parameters.get("seed")
    if isinstance(seed, float) and seed.is_integer():  # pandas writes integers with gaps so
        parameters["seed"] = int(seed)
    return parameters


def _id(value: Any, request: GenerationRequest) -> str:
    """Return the row's id as text; a row without one gets an id derived from its inputs."""
    if value is None:
        return request.fingerprint[:16]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"id {value!r} must be text or an integer")
    text = str(value)
    if not text.strip() or not text.isprintable() or "/" in text:
        raise ValueError(f"id {text!r} must be printable, not blank, and without '/'")
    return text


def _one_line(problem: ValueError) -> str:
    fact = problem.reason if isinstance(problem, IdeogramInvalidInput) else str(problem)
    text = " ".join(fact.split())
    return f"{text[:_MAX_PROBLEM]}…" if len(text) > _MAX_PROBLEM else text


def read_rows(path: str, objects: ObjectStore) -> Iterator[tuple[str, Any]]:
    """
    Read a file's rows: JSONL, CSV with a header, or Parquet; the first two also with gzip.

    A row that can't be read is yielded as a ValueError.

    :param path: A local path or ``s3://bucket/key``; its ending names the format.
    :param objects: The S3 layer.
    :raises IdeogramInvalidInput: If the format is unknown, or the file does not have it.
    """
    name = path.lower()
    plain = name.removesuffix(".gz")
    kind = next((kind for kind, endings in _ENDINGS.items() if plain.endswith(endings)), None)
    if kind is None or (kind == "parquet" and name != plain):
        raise IdeogramInvalidInput.of(
            [f"prompts_path: {path!r} does not end in .jsonl, .csv (or with .gz) or .parquet"]
        )
    with closing(_open(path, objects)) as file:
        if kind == "parquet":
            yield from _parquet(file)
            return
        raw: IO[bytes] = gzip.GzipFile(fileobj=file) if name != plain else file  # type: ignore[assignment]
        # Invalid UTF-8 is read as surrogates, so that it is reported with its line.
        with io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            try:
                yield from _csv(text) if kind == "csv" else _jsonl(text)
            except (csv.Error, EOFError, OSError, zlib.error) as problem:
                raise IdeogramInvalidInput.of([f"prompts_path: {path!r} can't be read: {problem}"]) from problem


def version_of(path: str, objects: ObjectStore) -> list[Any]:
    """
    Return what identifies the version of a file, without reading it.

    :raises IdeogramInvalidInput: If there is no such file.
    """
    if path.startswith("s3://"):
        bucket, _, key = path.removeprefix("s3://").partition("/")
        head = objects.head(bucket, key)
        if head is None:
            raise IdeogramInvalidInput.of([f"prompts_path: {path!r} does not exist"])
        return [path, head["ETag"]]
    try:
        status = Path(path).stat()
    except OSError as problem:
        raise IdeogramInvalidInput.of([f"prompts_path: {path!r} is not on this worker: {problem}"]) from problem
    return [path, status.st_size, status.st_mtime_ns]


def _open(path: str, objects: ObjectStore) -> IO[bytes]:
    if path.startswith("s3://"):
        bucket, _, key = path.removeprefix("s3://").partition("/")
        return objects.open(bucket, key)
    try:
        return Path(path).open("rb")
    except OSError as problem:
        raise IdeogramInvalidInput.of(
            [f"prompts_path: {path!r} can't be opened on this worker: {problem}"]
        ) from problem


_ENDINGS = {"jsonl": (".jsonl", ".ndjson"), "csv": (".csv",), "parquet": (".parquet", ".pq")}


class _Lines:
    """The lines of a text, whose rows have at most :data:`_MAX_LINE` characters."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self._left = _MAX_LINE
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(self._left):
            self.number += 1
            self._left -= len(line)
            if self._left <= 0:
                raise IdeogramInvalidInput.of(
                    [f"prompts_path: the row at line {self.number} is longer than {_MAX_LINE:,} characters"]
                )
            yield line

    def end_row(self) -> None:
        """Reset the count for the next row."""
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


def _csv(text: IO[str]) -> Iterator[tuple[str, Any]]:
    lines = _Lines(text)
    reader = csv.reader(lines, strict=True)
    header: list[str] = []
    try:
        for row in reader:
            lines.end_row()
            if not row:
                continue
            if not header:
                header = _header(row)
                continue
            value: Any = _utf8("".join(row)) or dict(zip(header, row, strict=False))
            if len(row) != len(header):
                value = ValueError(f"has {len(row)} values, and the header has {len(header)} columns")
            yield f"line {lines.number}", value
    except csv.Error as problem:
        raise csv.Error(f"line {lines.number}: {problem}") from problem


def _header(row: list[str]) -> list[str]:
    names = [name.strip() for name in row]
    if "prompt" not in names or len(set(names)) < len(names):
        raise csv.Error(f"the header {sanitize_text(str(names))} names no prompt, or a column twice")
    return names


def _utf8(text: str) -> ValueError | None:
    """Return the problem of a line with invalid UTF-8, None for a valid one."""
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
        # Parquet is read from its end, so the compressed file is read whole; the rows are streamed.
        batches = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(file.read())).iter_batches(_PARQUET_BATCH)
        number = 0
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    # A damaged file is an OSError; values beyond Python's own, such as dates, raise the others.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as problem:
        raise IdeogramInvalidInput.of(
            [f"prompts_path: the file is not Parquet, or holds what can't be read: {sanitize_text(str(problem))}"]
        ) from problem
