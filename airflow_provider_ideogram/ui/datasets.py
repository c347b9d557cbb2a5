"""
A dataset's rows: from its manifest, or from its parts while it is running.

Invariant: memory is bounded by a page of rows; if a retry has replaced some, also by a byte for each of
:data:`_MAX_REPLACED_ROWS`. A row's name is its part and the offset of its line; the names of a running dataset are not
valid for the finished one.

More users can write XComs than DAGs. So an XCom alone never decides which object is read: a manifest only at the
operator's own ``s3_prefix``, and parts only in the task instance's own workspace for that prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.rows import MANIFEST
from airflow_provider_ideogram.datasets.workspace import Workspace
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.jobs.identity import owner_id
from airflow_provider_ideogram.reviews.store import IMAGES
from airflow_provider_ideogram.storage.target import Target
from airflow_provider_ideogram.ui.lines import iter_lines, read_line, read_lines
from airflow_provider_ideogram.ui.objects import Reader
from airflow_provider_ideogram.ui.records import Instance
from airflow_provider_ideogram.ui.rendering import is_number
from airflow_provider_ideogram.ui.reviews import REVIEW_XCOM, review_prefix
from airflow_provider_ideogram.ui.seek import ROW, place_before

_ROW = re.compile(r"(?:p(\d{1,9})\.)?(\d{1,15})")
#: The rows of which the last line is looked for; of a retried dataset no others are shown.
_MAX_REPLACED_ROWS = 1_000_000
_NOT_OWN = "its XCom names objects that are not the task's own."
_NOT_KNOWN = "Airflow keeps a task's s3_prefix for the last runs only, so the address of its rows is unknown."
_ELSEWHERE = "its number of rows is in a custom XCom backend, which only workers can read."
_COUNTS = ("total", "done", *ImageStatus, "in_flight")
_MEASURES = ("cost_usd", "images_per_minute", "seconds", "seconds_left")


@dataclass(frozen=True, slots=True)
class Dataset:
    """
    A dataset's task instance: its progress and its rows.

    :param numbers: Its known counts and measures.
    :param target: Its manifest, or the prefix of its parts; None before the first part.
    :param in_parts: Whether ``target`` is a prefix.
    :param problem: Why its rows are not shown, None if they are.
    """

    instance: Instance
    numbers: Mapping[str, float]
    target: Target | None
    in_parts: bool
    problem: str | None = None

    @classmethod
    def of(cls, instance: Instance) -> Dataset:
        """Read it from the XComs: the result if there is one, else the progress."""
        if (review := review_prefix(instance)) is not None:
            total = instance.xcoms[REVIEW_XCOM].get("total")
            lines = Target(review.bucket, review.key + IMAGES)
            return cls(instance, {"total": total} if is_number(total) else {}, lines, in_parts=False)
        result, progress = instance.xcoms.get("return_value"), instance.xcoms.get("progress")
        source: Mapping[str, Any] = next((one for one in (result, progress) if isinstance(one, Mapping)), {})
        numbers = {
            name: source[name] for name in (*_COUNTS, *_MEASURES) if is_number(source.get(name)) and source[name] >= 0
        }
        in_parts = result is None and source.get("manifest_uri") is None
        if "total" not in numbers and _is_elsewhere(progress if result is None else result):
            return cls(instance, numbers, None, in_parts, f"The rows of {instance.label} are not shown: {_ELSEWHERE}")
        images = _images(instance)
        named = source.get("parts" if in_parts else "manifest_uri")
        own = None if images is None else _own_parts(instance, images, named) if in_parts else _own_manifest(images)
        if own is not None and _is_elsewhere(result):
            named = (
                own.uri
            )  # the unreadable result names no other: the manifest is at the prefix that the task was given
        if own is not None and own.uri == named:
            return cls(instance, numbers, own, in_parts)
        if in_parts and named is None:
            return cls(instance, numbers, None, in_parts)
        problem = f"The rows of {instance.label} are not shown: {_NOT_KNOWN if images is None else _NOT_OWN}"
        return cls(instance, numbers, None, in_parts, problem)

    @property
    def is_running(self) -> bool:
        """Whether rows may be added; the parts of a failed dataset stay."""
        return self.in_parts and self.instance.state != "failed"

    @property
    def rows(self) -> int:
        """The number of rows that can be shown."""
        return 0 if self.target is None else int(self.numbers.get("done" if self.in_parts else "total", 0))

    def page(self, reader: Reader, skip: int, limit: int) -> list[tuple[str, bytes]]:
        """
        Return the names and lines of some rows.

        :raises IdeogramStorageError: If S3 does not return them.
        """
        if self.target is None:
            return []
        if not self.in_parts:
            return [(str(offset), line) for offset, line in self._manifest_lines(reader, self.target, skip, limit)]
        if self.instance.tries > 1:
            return self._last_lines(reader, skip, limit)
        found: list[tuple[str, bytes]] = []
        for ordinal, target in enumerate(self._targets(reader)):
            skipped, lines = read_lines(reader, target, skip, limit - len(found))
            skip -= skipped
            found += [(f"p{ordinal}.{offset}", line) for offset, line in lines]
            if len(found) >= limit:
                break
        return found

    def _manifest_lines(self, reader: Reader, target: Target, skip: int, limit: int) -> list[tuple[int, bytes]]:
        place = place_before(reader, target, skip, self.rows)
        return read_lines(reader, target, skip - place.row, limit, place.offset)[1]

    def _last_lines(self, reader: Reader, skip: int, limit: int) -> list[tuple[str, bytes]]:
        """Return a page of rows that a retry may have replaced: the last line of each."""
        seen = bytearray(_MAX_REPLACED_ROWS)
        count = 0
        page: dict[int, tuple[str, bytes]] = {}
        for name, line in self.lines(reader):
            match = ROW.match(line)
            row = int(match[1]) if match else _MAX_REPLACED_ROWS
            if row >= _MAX_REPLACED_ROWS:
                continue
            is_new = not seen[row]
            seen[row] = True
            count += is_new
            if row in page or (is_new and skip < count <= skip + limit):
                page[row] = (name, line)
        return list(page.values())

    def last_lines(self, reader: Reader) -> Iterator[tuple[str, bytes]]:
        """
        Yield the names and lines of all rows, of a row that a retry has replaced the last line.

        :raises IdeogramStorageError: If S3 does not return them.
        """
        if not self.in_parts or self.instance.tries <= 1:
            yield from self.lines(reader)
            return
        rows: dict[bytes, tuple[str, bytes]] = {}
        for name, line in self.lines(reader):
            match = ROW.match(line)
            if match:
                rows[match[1]] = (name, line)
        yield from rows.values()

    def lines(self, reader: Reader) -> Iterator[tuple[str, bytes]]:
        """
        Yield the names and lines of all rows, of a retried dataset also the replaced ones.

        :raises IdeogramStorageError: If S3 does not return them.
        """
        for ordinal, target in enumerate(self._targets(reader)):
            prefix = f"p{ordinal}." if self.in_parts else ""
            for offset, line in iter_lines(reader, target):
                yield f"{prefix}{offset}", line

    def line(self, reader: Reader, row: str) -> bytes | None:
        """Return the line of a row, None if it does not exist."""
        match = _ROW.fullmatch(row)
        if match is None or (match[1] is not None) != self.in_parts:
            return None
        target = next(islice(self._targets(reader), int(match[1] or 0), None), None)
        return None if target is None else read_line(reader, target, int(match[2]))

    def _targets(self, reader: Reader) -> Iterator[Target]:
        """Return the manifest, or its parts in the order of their names."""
        if self.target is None:
            return
        if self.in_parts:
            yield from reader.keys(self.target)
        else:
            yield self.target


def _is_elsewhere(value: Any) -> bool:
    """Return whether an XCom's value is in a custom XCom backend; the database has a reference to it."""
    return value is not None and not isinstance(value, Mapping)


def _own_manifest(images: Target) -> Target:
    """Return the address of the operator's manifest."""
    return Target(images.bucket, images.key + MANIFEST)


def _own_parts(instance: Instance, images: Target, uri: Any) -> Target | None:
    """Return the prefix of parts if it is in the workspace of this task instance; the ledger's prefix is unknown."""
    own = f"{Workspace.all_of(images, '')}{Workspace.name_of(owner_id(instance))}part-"
    parts = _target(uri)
    return parts if parts is not None and parts.bucket == images.bucket and parts.key.endswith(own) else None


def _images(instance: Instance) -> Target | None:
    prefix = instance.rendered.get("s3_prefix")
    return _target(f"{prefix.removesuffix('/')}/") if isinstance(prefix, str) else None


def _target(uri: Any) -> Target | None:
    try:
        return Target.parse(uri) if isinstance(uri, str) else None
    except IdeogramInvalidInput:
        return None
