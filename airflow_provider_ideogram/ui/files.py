"""
The addresses of images and their thumbnails, and of the covers of DAGs and tasks.

Invariant: an image is sent only if the gallery shows it. The browser may keep it, and asks each time whether the user
may still see it.
"""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import Literal

from fastapi import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.ui.covers import cover_of
from airflow_provider_ideogram.ui.handlers import METHODS, InPlace, dag_router, in_thread, reader_of
from airflow_provider_ideogram.ui.items import find_item
from airflow_provider_ideogram.ui.objects import NotShown, Reader, open_image, open_thumbnail, why_not_read
from airflow_provider_ideogram.ui.records import Item
from airflow_provider_ideogram.ui.runs import Scope
from airflow_provider_ideogram.ui.work import LimitReached

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "Cache-Control": "private, no-cache",
}
router = dag_router()


@router.api_route("/runs/{run_id}/tasks/{task_id}/images/{map_index}/{row}/{file}", methods=METHODS)
@in_thread
def send_image(
    request: Request,
    dag_id: str,
    run_id: str,
    task_id: str,
    place: InPlace,
    row: str,
    file: Literal["file", "thumbnail"],
) -> Response:
    """Send the image itself or its thumbnail, or the reason why it can't be shown, as plain text."""
    reader = reader_of(request)
    item = find_item(reader, Scope(dag_id, run_id, task_id, place), row)
    return _send(request, reader, item, is_thumbnail=file == "thumbnail")


@router.api_route("/cover", methods=METHODS)
@router.api_route("/tasks/{task_id}/cover", methods=METHODS)
@in_thread
def send_cover(request: Request, dag_id: str, task_id: str | None = None) -> Response:
    """Send the thumbnail of one of the newest images of a DAG or a task."""
    reader = reader_of(request)
    return _send(request, reader, cover_of(reader, dag_id, task_id), is_thumbnail=True)


def _send(request: Request, reader: Reader, item: Item | None, *, is_thumbnail: bool) -> Response:
    if item is None or not item.has_image:
        return PlainTextResponse("There is no image.", HTTPStatus.NOT_FOUND, _HEADERS)
    request_id = str(item.facts["request_id"])
    headers = _HEADERS | {"ETag": f'"{hashlib.sha256(request_id.encode()).hexdigest()[:32]}"'}
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return Response(None, HTTPStatus.NOT_MODIFIED, headers)
    try:
        image = (open_thumbnail if is_thumbnail else open_image)(reader, item.facts)
    except NotShown as problem:
        return PlainTextResponse(str(problem), HTTPStatus.NOT_FOUND, _HEADERS)
    except (IdeogramStorageError, LimitReached) as error:
        return PlainTextResponse(f"The image can't be shown: {why_not_read(error)}.", HTTPStatus.BAD_GATEWAY, _HEADERS)
    headers["Content-Length"] = str(image.size_bytes)
    if request.method == "HEAD":
        image.body.close()
        return Response(None, HTTPStatus.OK, headers, image.content_type)
    return StreamingResponse(image.stream(reader.work), HTTPStatus.OK, headers, image.content_type)
