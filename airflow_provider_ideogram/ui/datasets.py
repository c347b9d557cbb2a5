"""
A dataset's rows, from its manifest or, while it runs, from the parts of it that are written already.

Invariant: memory is bounded by a page of rows, whatever the manifest's length, and by a number for each row where a
retry has written some anew. A row's name tells its part and the byte where its line begins; the names of a running
dataset are no names of the finished one.

XComs can be written by more users than those who write DAGs. So no object is read because one names it: a manifest only
at the place that the operator was told, and parts only in the task instance's own workspace.
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
from airflow_provider_ideogram.storage.target import Target
from airflow_provider_ideogram.ui.lines import read_line, read_lines
from airflow_provider_ideogram.ui.records import Instance

_ROW = re.compile(r"(?:p(\d{1,9})\.)?(\d{1,15})")
#: How the lines of parts begin.
_LINE = re.compile(rb'\{"row": (\d{1,15}),')
_NOT_OWN = "its XCom names another manifest than the task writes."
_NOT_KNOWN = (
    "Airflow keeps the s3_prefix that a task was given for the last runs only; nothing else tells its manifest."
)
_COUNTS = ("total", "done", *ImageStatus, "in_flight")
_MEASURES = ("cost_usd", "images_per_minute", "seconds", "seconds_left")


@dataclass(frozen=True, slots=True)
class Dataset:
    """
    A dataset's task instance: how far it is and where its rows are.

    :param numbers: Its counts and measures, as far as they are known.
    :param target: Its manifest, or the prefix of its parts; None before the first is written.
    :param in_parts: Whether ``target`` is a prefix.
    :param problem: Why its rows are not shown, None where they are.
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
            name: source[name]
            for name in (*_COUNTS, *_MEASURES)
            if isinstance(source.get(name), int | float) and source[name] >= 0
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
        """Whether there is more to come; the parts of one that failed stay."""
        return self.in_parts and self.instance.state != "failed"

    @property
    def rows(self) -> int:
        """How many rows there are to show."""
        return 0 if self.target is None else int(self.numbers.get("done" if self.in_parts else "total", 0))

    def page(self, client: Any, skip: int, limit: int) -> list[tuple[str, bytes]]:
        """
        Return the names and lines of some rows.

        :param client: An S3 client.
        :raises ClientError: If S3 does not permit it.
        """
        if self.in_parts and self.instance.tries > 1:
            return self._last_lines(client, skip, limit)
        found: list[tuple[str, bytes]] = []
        for ordinal, target in enumerate(self._objects(client)):
            skipped, lines = read_lines(client, target, skip, limit - len(found))
            skip -= skipped
            prefix = f"p{ordinal}." if self.in_parts else ""
            found += [(f"{prefix}{offset}", line) for offset, line in lines]
            if len(found) >= limit:
                break
        return found

    def _last_lines(self, client: Any, skip: int, limit: int) -> list[tuple[str, bytes]]:
        """Return what :meth:`page` does of rows that a retry may have written anew: the last line of each."""
        seen: set[int] = set()
        page: dict[int, tuple[str, bytes]] = {}
        for ordinal, target in enumerate(self._objects(client)):
            for offset, line in read_lines(client, target, 0, sys.maxsize)[1]:
                if (match := _LINE.match(line)) is None:
                    continue
                row = int(match[1])
                is_new = row not in seen
                seen.add(row)
                if row in page or (is_new and skip < len(seen) <= skip + limit):
                    page[row] = (f"p{ordinal}.{offset}", line)
        return list(page.values())

    def line(self, client: Any, row: str) -> bytes | None:
        """Return the line of a row, None if there is no row of that name."""
        match = _ROW.fullmatch(row)
        if match is None or (match[1] is not None) != self.in_parts:
            return None
        target = next(islice(self._objects(client), int(match[1] or 0), None), None)
        return None if target is None else read_line(client, target, int(match[2]))

    def _objects(self, client: Any) -> Iterator[Target]:
        """Return the manifest, or its parts in the order of their names."""
        if self.target is None:
            return
        if not self.in_parts:
            yield self.target
            return
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.target.bucket, Prefix=self.target.key)
        for page in pages:
            yield from (Target(self.target.bucket, one["Key"]) for one in page.get("Contents", ()))


def _own_manifest(instance: Instance) -> Target | None:
    """Return where the operator was told to write the manifest, None if Airflow no longer knows."""
    images = _images(instance)
    return Target(images.bucket, images.key + MANIFEST) if images else None


def _own_parts(instance: Instance, uri: Any) -> Target | None:
    """Return the prefix of parts if it is the instance's own, whose workspace has a SHA-256 of its ids for a name."""
    parts, images = _target(uri), _images(instance)
    if parts is None or (images is not None and parts.bucket != images.bucket):
        return None
    # Where the ledger is, is not known here, nor where the images of older runs are.
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
