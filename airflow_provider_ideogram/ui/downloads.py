"""
Downloads of selected images: a ZIP of the originals, and a table of their data.

Invariant: an image is in the ZIP only if the gallery would show it. The ZIP is streamed: one chunk is in memory, and
size and time are bounded. A cell of the table is no formula of a spreadsheet.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from pathlib import PurePosixPath
from typing import Annotated, Any
from zipfile import ZipFile, ZipInfo

from airflow.utils.session import create_session
from fastapi import Query, Request
from starlette.responses import Response, StreamingResponse

from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.storage.image_record import RECORD_FIELDS
from airflow_provider_ideogram.storage.objects import NOTHING_CHARGED, storage_errors
from airflow_provider_ideogram.ui.handlers import METHODS, dag_router, in_thread, reader_of
from airflow_provider_ideogram.ui.items import find_named
from airflow_provider_ideogram.ui.objects import NotShown, Reader, open_image, why_not_read
from airflow_provider_ideogram.ui.records import Item
from airflow_provider_ideogram.ui.reviews import Decisions, read_reviews
from airflow_provider_ideogram.ui.runs import review_instances

#: The most images in a selection.
MAX_SELECTED = 100
MAX_ZIP_BYTES = 512 << 20
#: Seconds in which a ZIP must be sent, also to a slow browser.
_ZIP_SECONDS = 600.0
_CHUNK_BYTES = 256 * 1024
_NOT_IN_NAMES = re.compile(r"[^\w.()\[\]-]+")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
Selected = Annotated[list[str], Query(min_length=1, max_length=MAX_SELECTED)]
router = dag_router()


@router.api_route("/runs/{run_id}/images.zip", methods=METHODS)
@in_thread
def send_zip(request: Request, dag_id: str, run_id: str, image: Selected) -> Response:
    """Send the originals of the selected images."""
    reader = reader_of(request)
    items = [find_named(reader, dag_id, run_id, name) for name in dict.fromkeys(image)]
    return StreamingResponse(_stream(reader, items), headers=_attached(run_id, "zip"), media_type="application/zip")


@router.api_route("/runs/{run_id}/images.csv", methods=METHODS)
@in_thread
def send_table(request: Request, dag_id: str, run_id: str, image: Selected) -> Response:
    """Send a table of the selected images."""
    reader = reader_of(request)
    with create_session(scoped=False) as session:
        reviews = review_instances(session, dag_id, run_id)
    decisions = Decisions(read_reviews(reader, reviews, []))
    items = [decisions.on(find_named(reader, dag_id, run_id, name)) for name in dict.fromkeys(image)]
    return Response(table(items), headers=_attached(run_id, "csv"), media_type="text/csv; charset=utf-8")


def _attached(run_id: str, extension: str) -> dict[str, str]:
    name = _NOT_IN_NAMES.sub("_", run_id).encode("ascii", "replace").decode().replace("?", "_")
    return {"Content-Disposition": f'attachment; filename="{name}.{extension}"'}


def table(items: Sequence[Item]) -> bytes:
    """Return a line of values for each image, as a CSV file that spreadsheets open."""
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(("name", "task", "map_index", "status", "decision", "note", "decided_by", *RECORD_FIELDS))
    for item in items:
        place = (item.name, item.instance.task_id, item.instance.map_index, item.status)
        decided = (item.decision, item.note, item.decided_by)
        lines.writerow(map(_cell, (*place, *decided, *(item.facts.get(name) for name in RECORD_FIELDS))))
    return text.getvalue().encode("utf-8-sig", "replace")


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


async def _stream(reader: Reader, items: Sequence[Item]) -> AsyncIterator[bytes]:
    reader.work.start_stream(MAX_ZIP_BYTES, _ZIP_SECONDS)
    chunks = _zip(reader, items)  # not closed here: a thread may be in it when the browser has gone
    while (chunk := await reader.work.in_thread(next, chunks, None)) is not None:
        yield chunk


def _zip(reader: Reader, items: Sequence[Item]) -> Iterator[bytes]:
    """Yield a ZIP; what it can't have is listed in a file of its own."""
    output = _Output()
    missing: list[str] = []
    size = 0
    with ZipFile(output, "w") as archive:
        for name, item in _named(items):
            try:
                image = open_image(reader, item.facts)
            except (NotShown, IdeogramStorageError) as error:
                missing.append(f"{name}: {error if isinstance(error, NotShown) else why_not_read(error)}")
                continue
            with closing(image.body):
                if size + image.size_bytes > MAX_ZIP_BYTES:  # smaller images may still have room
                    missing.append(f"{name}: left out, since a ZIP has at most {MAX_ZIP_BYTES >> 20} MiB of images")
                    continue
                size += image.size_bytes
                # A rejected image is kept at a key without an extension.
                extension = "" if PurePosixPath(name).suffix else f".{image.content_type.partition('/')[2]}"
                with archive.open(ZipInfo(name + extension), "w") as entry:
                    for chunk in _chunks(reader, image.body):
                        entry.write(chunk)
                        yield output.take()
        if missing:
            archive.writestr("missing.txt", "\n".join(missing))
    yield output.take()


def _chunks(reader: Reader, body: Any) -> Iterator[bytes]:
    with storage_errors("Reading an image", NOTHING_CHARGED):
        while chunk := body.read(_CHUNK_BYTES):
            reader.work.spend(len(chunk))
            yield chunk


def _named(items: Sequence[Item]) -> Iterator[tuple[str, Item]]:
    """Yield the images with the names of their objects, of which no two are the same."""
    used: set[str] = set()
    for item in items:
        if not item.has_image:
            continue
        path = PurePosixPath(item.facts["key"])
        stem, suffix = _NOT_IN_NAMES.sub("_", path.stem), _NOT_IN_NAMES.sub("_", path.suffix)
        name, number = f"{stem}{suffix}", 1
        while name.casefold() in used:
            number += 1
            name = f"{stem}-{number}{suffix}"
        used.add(name.casefold())
        yield name, item


class _Output(io.RawIOBase):
    """What a ZIP file writes, until it is sent."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        """Return what was written since."""
        taken = bytes(self._written)
        self._written.clear()
        return taken
