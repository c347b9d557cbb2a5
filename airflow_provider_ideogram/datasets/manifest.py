"""
The lines of a dataset's items, and the manifest with one line a row.

Invariant: every line is plain JSON with the same keys, whatever the item's status. The manifest has the rows in input
order, and is written whole or not at all.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Mapping
from dataclasses import fields
from typing import IO, Any

from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.rows import MANIFEST, Item
from airflow_provider_ideogram.datasets.workspace import GENERATED_STORED, PlanLost, Workspace
from airflow_provider_ideogram.exceptions import IdeogramError
from airflow_provider_ideogram.storage.image_record import ImageRecord
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target

#: Bytes of a manifest that are kept in memory while it is made; the rest is on disk.
SPOOL_BYTES = 8 << 20
_NO_LINE = -1
_RECORD_FIELDS = tuple(item.name for item in fields(ImageRecord))


def stored_line(item: Item, record: ImageRecord) -> dict[str, Any]:
    """Return the line of an item whose image is stored."""
    status = ImageStatus.REUSED if record.reused else ImageStatus.GENERATED
    return {**_head(item, status, None), **record.to_xcom()}


def reused_line(item: Item, line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the line of an item that reuses the image of an earlier line."""
    return {**line, **_head(item, ImageStatus.REUSED, None), "reused": True, "cost_usd": 0.0}


def failed_line(item: Item, error: IdeogramError, cost_usd: float | None) -> dict[str, Any]:
    """
    Return the line of an item without an image; unknown values are null.

    :param cost_usd: What the vendor charged; None if that is unknown.
    """
    inputs = {name: value for name, value in item.request.inputs().items() if name in _RECORD_FIELDS}
    known = {"key": item.key, "request_id": error.request_id, "cost_usd": cost_usd}
    flags = {"cost_is_estimate": False, "reused": False}
    head = _head(item, ImageStatus.of_error(error.code), str(error))
    return {**head, **dict.fromkeys(_RECORD_FIELDS), **inputs, **known, **flags}


def _head(item: Item, status: ImageStatus, error: str | None) -> dict[str, Any]:
    return {
        "row": item.row,
        "id": item.id,
        "status": status.value,
        "error": error,
        "fingerprint": item.request.fingerprint,
        "model_params": item.request.model_params or None,
    }


def write_manifest(
    workspace: Workspace,
    output_prefix: Target,
    total: int,
    plan: int,
    objects: ObjectStore,
    extra_args: Mapping[str, Any],
) -> None:
    """
    Write the lines of all parts as one manifest, in input order.

    :param total: The number of rows.
    :param plan: The number of the slice that made the plan.
    :param extra_args: The user's arguments of ``put_object``.
    :raises PlanLost: If a row has no line, because a part was removed.
    """
    with (
        tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as lines,
        tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as manifest,
    ):
        lines.writelines(workspace.part_lines(plan))
        for row, offset in enumerate(_offsets_by_row(lines, total)):
            if offset == _NO_LINE:
                raise PlanLost(f"{workspace.uri} has no line of row {row}: a part was removed", GENERATED_STORED)
            lines.seek(offset)
            manifest.write(lines.readline())
        manifest.seek(0)
        arguments = {name: value for name, value in extra_args.items() if name != "Metadata"}
        objects.put(
            output_prefix.bucket,
            output_prefix.key + MANIFEST,
            manifest,
            advice=GENERATED_STORED,
            **{**arguments, "ContentType": "application/x-ndjson"},
        )


def _offsets_by_row(parts: IO[bytes], total: int) -> array[int]:
    """Return the offset of each row's line; of two lines of a row, that of the later slice."""
    offsets = array("q", [_NO_LINE]) * total
    parts.seek(0)
    offset = 0
    for line in parts:
        offsets[json.loads(line)["row"]] = offset
        offset += len(line)
    return offsets
