"""
The lines of a dataset's items, and the manifest.

Invariant: a line is plain JSON with the same keys for every status; the manifest has one line a row in input order, and
is written completely or not at all.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from array import array
from collections.abc import Mapping
from dataclasses import fields
from typing import IO, Any

from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.rows import MANIFEST, Item
from airflow_provider_ideogram.datasets.workspace import Workspace
from airflow_provider_ideogram.exceptions import IdeogramLedgerError
from airflow_provider_ideogram.storage.image_record import ImageRecord
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target

#: Bytes of a manifest that are kept in memory before it goes to disk.
_SPOOL_BYTES = 8 << 20
_NO_LINE = -1


_RECORD_FIELDS = tuple(item.name for item in fields(ImageRecord))


def stored_line(item: Item, record: ImageRecord) -> dict[str, Any]:
    """Return the line of an item whose image is stored."""
    status = ImageStatus.REUSED if record.reused else ImageStatus.GENERATED
    return {**_head(item, status, None), **record.to_xcom()}


def failed_line(
    item: Item, status: ImageStatus, error: str, request_id: str | None, cost_usd: float | None
) -> dict[str, Any]:
    """Return the line of an item without an image; unknown fields are null."""
    inputs = {name: value for name, value in item.request.inputs().items() if name in _RECORD_FIELDS}
    empty = dict.fromkeys(_RECORD_FIELDS)
    known = {
        "key": item.key,
        "request_id": request_id,
        "cost_usd": cost_usd,
        "cost_is_estimate": False,
        "reused": False,
    }
    return {**_head(item, status, error), **empty, **inputs, **known}


def _head(item: Item, status: ImageStatus, error: str | None) -> dict[str, Any]:
    return {
        "row": item.row,
        "id": item.id,
        "status": status.value,
        "error": error,
        "fingerprint": item.request.fingerprint,
        "model_params": item.request.model_params or None,
    }


class EarlierImages:
    """
    The images below the prefix, by the listing, the last manifest and unfinished runs.

    :param objects: The S3 layer.
    :param output_prefix: The prefix.
    :param workspaces: The prefix of the workspaces of all runs for it.
    """

    def __init__(self, objects: ObjectStore, output_prefix: Target, workspaces: str) -> None:
        bucket = self._bucket = output_prefix.bucket
        self._etags = {item.key: item.etag for item in objects.list(bucket, output_prefix.key)}
        self._manifest: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115
        self._offsets: dict[bytes, int] = {}
        if self._etags.pop(output_prefix.key + MANIFEST, None):
            self._index(objects.open(bucket, output_prefix.key + MANIFEST))
        for item in objects.list(bucket, workspaces):
            if "/part-" in item.key:
                self._index(objects.open(bucket, item.key))

    def has(self, item: Item) -> bool:
        """Return whether an object exists at the item's key."""
        return item.key in self._etags

    def line_of(self, item: Item) -> dict[str, Any] | None:
        """Return the line of an unchanged image that was made from the same inputs, None without one."""
        offset = self._offsets.get(_digest(item.key), _NO_LINE)
        if offset == _NO_LINE or not self.has(item):
            return None
        self._manifest.seek(offset)
        line: dict[str, Any] = json.loads(self._manifest.readline())
        if (line.get("fingerprint"), line.get("etag")) != (item.request.fingerprint, self._etags[item.key]):
            return None
        return {**line, **_head(item, ImageStatus.REUSED, None), "reused": True, "cost_usd": 0.0}

    def close(self) -> None:
        """Remove the temporary file."""
        self._manifest.close()

    def _index(self, body: IO[bytes]) -> None:
        with body:
            for text in body:
                offset = self._manifest.tell()
                self._manifest.write(text)
                try:
                    line = json.loads(text)
                    # A copied prefix has lines that name the bucket it was copied from.
                    if line["status"] in (ImageStatus.GENERATED, ImageStatus.REUSED) and line["bucket"] == self._bucket:
                        self._offsets[_digest(line["key"])] = offset
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    continue  # not a line of this provider: the submit reads the metadata of the object


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=12).digest()


def write_manifest(
    workspace: Workspace,
    output_prefix: Target,
    total: int,
    parts: int,
    objects: ObjectStore,
    extra_args: Mapping[str, Any],
) -> None:
    """
    Write the lines of all parts into one manifest, in input order.

    :param total: The number of rows.
    :param parts: The number of parts.
    :param extra_args: The user's arguments of ``put_object``.
    :raises IdeogramLedgerError: If a row has no line, since a part was removed.
    """
    target = Target(output_prefix.bucket, output_prefix.key + MANIFEST)
    with (
        tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as lines,
        tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as manifest,
    ):
        workspace.copy_lines("part", parts, lines)
        for row, offset in enumerate(_offsets_by_row(lines, total)):
            if offset == _NO_LINE:
                raise IdeogramLedgerError(
                    f"{workspace.uri} has no line of row {row}: a part was removed",
                    "The generated images are stored. A retry reads each of them and pays for none again.",
                )
            lines.seek(offset)
            manifest.write(lines.readline())
        manifest.seek(0)
        arguments = {name: value for name, value in extra_args.items() if name != "Metadata"}
        objects.put(
            target.bucket,
            target.key,
            manifest,
            advice="The generated images are stored. A retry pays for none of them again.",
            **{**arguments, "ContentType": "application/x-ndjson"},
        )


def _offsets_by_row(parts: IO[bytes], total: int) -> array[int]:
    """Return the offset of each row's line; the later one if two slices wrote a row."""
    offsets = array("q", [_NO_LINE]) * total
    parts.seek(0)
    offset = 0
    for line in parts:
        offsets[json.loads(line)["row"]] = offset
        offset += len(line)
    return offsets
