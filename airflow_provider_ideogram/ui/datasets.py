"""
A dataset's rows, from its manifest or, while it runs, from the parts of it that are written already.

Invariant: memory is bounded by a page of rows, whatever the manifest's length. A row's name tells its part and the byte
where its line begins; the names of a running dataset are no names of the finished one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.storage.target import Target
from airflow_provider_ideogram.ui.lines import read_line, read_lines
from airflow_provider_ideogram.ui.records import Instance

_ROW = re.compile(r"(?:p(\d{1,9})\.)?(\d{1,15})")
_COUNTS = ("total", "done", "generated", "reused", "blocked", "failed", "in_flight")
_MEASURES = ("cost_usd", "images_per_minute", "seconds", "seconds_left")


@dataclass(frozen=True, slots=True)
class Dataset:
    """
    A dataset's task instance: how far it is and where its rows are.

    :param numbers: Its counts and measures, as far as they are known.
    :param target: Its manifest, or the prefix of its parts; None before the first is written.
    :param in_parts: Whether ``target`` is a prefix.
    """

    instance: Instance
    numbers: Mapping[str, float]
    target: Target | None
    in_parts: bool

    @classmethod
    def of(cls, instance: Instance) -> Dataset:
        """Read it from the XComs: the result if there is one, else the progress."""
        result, progress = instance.xcoms.get("return_value"), instance.xcoms.get("progress")
        has_ended = isinstance(result, Mapping)
        source: Mapping[str, Any] = next((one for one in (result, progress) if isinstance(one, Mapping)), {})
        numbers = {
            name: source[name]
            for name in (*_COUNTS, *_MEASURES)
            if isinstance(source.get(name), int | float) and source[name] >= 0
        }
        target = _target(source.get("manifest_uri" if has_ended else "parts"))
        return cls(instance, numbers, target, not has_ended)

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
        found: list[tuple[str, bytes]] = []
        for ordinal, target in enumerate(self._objects(client)):
            skipped, lines = read_lines(client, target, skip, limit - len(found))
            skip -= skipped
            prefix = f"p{ordinal}." if self.in_parts else ""
            found += [(f"{prefix}{offset}", line) for offset, line in lines]
            if len(found) >= limit:
                break
        return found

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


def _target(uri: Any) -> Target | None:
    try:
        return Target.parse(uri) if isinstance(uri, str) else None
    except IdeogramInvalidInput:
        return None
