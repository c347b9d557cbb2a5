"""
A dataset's rows: from its manifest, or from its parts while it is running.

Invariant: memory is bounded by a page of rows; if a retry has replaced some, also by a part and an integer for each
row. A row's name is its part and the offset of its line; the names of a running dataset are not valid for the finished
one.

More users can write XComs than DAGs. So an XCom alone never decides which object is read: a manifest only at the
operator's own ``s3_prefix``, and parts only in the task instance's own workspace.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.rows import MANIFEST
from airflow_provider_ideogram.datasets.workspace import Workspace
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.jobs.identity import owner_id
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target
from airflow_provider_ideogram.ui.lines import read_line, read_lines
from airflow_provider_ideogram.ui.records import Instance
from airflow_provider_ideogram.ui.rendering import is_number

_ROW = re.compile(r"(?:p(\d{1,9})\.)?(\d{1,15})")
#: The beginning of a part's line.
_LINE = re.compile(rb'\{"row": (\d{1,15}),')
_NOT_OWN = "its XCom names a manifest that is not the task's own."
_NOT_KNOWN = "Airflow keeps a task's s3_prefix for the last runs only, so the address of its manifest is unknown."
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
        result, progress = instance.xcoms.get("return_value"), instance.xcoms.get("progress")
        source: Mapping[str, Any] = next((one for one in (result, progress) if isinstance(one, Mapping)), {})
        numbers = {
            name: source[name] for name in (*_COUNTS, *_MEASURES) if is_number(source.get(name)) and source[name] >= 0
        }
        if not isinstance(result, Mapping) and source.get("manifest_uri") is None:
            return cls(instance, numbers, _own_parts(instance, source.get("parts")), in_parts=True)
        manifest = _own_manifest(instance)
        if manifest is not None and source.get("manifest_uri") == manifest.uri:
            return cls(instance, numbers, manifest, in_parts=False)
        why = _NOT_KNOWN if manifest is None else _NOT_OWN
        problem = f"The rows of {instance.label} are not shown: {why}"
        return cls(instance, numbers, None, in_parts=False, problem=problem)

    @property
    def is_running(self) -> bool:
        """Whether rows may be added; the parts of a failed dataset stay."""
        return self.in_parts and self.instance.state != "failed"

    @property
    def rows(self) -> int:
        """The number of rows that can be shown."""
        return 0 if self.target is None else int(self.numbers.get("done" if self.in_parts else "total", 0))

    def page(self, objects: ObjectStore, skip: int, limit: int) -> list[tuple[str, bytes]]:
        """
        Return the names and lines of some rows.

        :raises IdeogramStorageError: If S3 does not return them.
        """
        if self.in_parts and self.instance.tries > 1:
            return self._last_lines(objects, skip, limit)
        found: list[tuple[str, bytes]] = []
        for ordinal, target in enumerate(self._targets(objects)):
            skipped, lines = read_lines(objects, target, skip, limit - len(found))
            skip -= skipped
            prefix = f"p{ordinal}." if self.in_parts else ""
            found += [(f"{prefix}{offset}", line) for offset, line in lines]
            if len(found) >= limit:
                break
        return found

    def _last_lines(self, objects: ObjectStore, skip: int, limit: int) -> list[tuple[str, bytes]]:
        """Return a page of rows that a retry may have replaced: the last line of each."""
        seen: set[int] = set()
        page: dict[int, tuple[str, bytes]] = {}
        for ordinal, target in enumerate(self._targets(objects)):
            for offset, line in read_lines(objects, target, 0, sys.maxsize)[1]:
                if (match := _LINE.match(line)) is None:
                    continue
                row = int(match[1])
                is_new = row not in seen
                seen.add(row)
                if row in page or (is_new and skip < len(seen) <= skip + limit):
                    page[row] = (f"p{ordinal}.{offset}", line)
        return list(page.values())

    def line(self, objects: ObjectStore, row: str) -> bytes | None:
        """Return the line of a row, None if it does not exist."""
        match = _ROW.fullmatch(row)
        if match is None or (match[1] is not None) != self.in_parts:
            return None
        target = next(islice(self._targets(objects), int(match[1] or 0), None), None)
        return None if target is None else read_line(objects, target, int(match[2]))

    def _targets(self, objects: ObjectStore) -> Iterator[Target]:
        """Return the manifest, or its parts in the order of their names."""
        if self.target is None:
            return
        if not self.in_parts:
            yield self.target
            return
        for item in objects.list(self.target.bucket, self.target.key):
            yield Target(self.target.bucket, item.key)


def _own_manifest(instance: Instance) -> Target | None:
    """Return the address of the operator's manifest, None if Airflow no longer keeps its arguments."""
    images = _images(instance)
    return Target(images.bucket, images.key + MANIFEST) if images else None


def _own_parts(instance: Instance, uri: Any) -> Target | None:
    """Return the prefix of parts if it is in the workspace of this task instance."""
    parts, images = _target(uri), _images(instance)
    if parts is None or (images is not None and parts.bucket != images.bucket):
        return None
    # The ledger's prefix is unknown here, and so is the s3_prefix of older runs.
    own = f"{Workspace.all_of(images or Target('', ''), '')}{Workspace.name_of(owner_id(instance))}part-"
    return parts if parts.key.endswith(own) else None


def _images(instance: Instance) -> Target | None:
    prefix = instance.rendered.get("s3_prefix")
    return _target(f"{prefix.removesuffix('/')}/") if isinstance(prefix, str) else None


def _target(uri: Any) -> Target | None:
    try:
        return Target.parse(uri) if isinstance(uri, str) else None
    except IdeogramInvalidInput:
        return None
