"""
The S3 client of the API server, and the images that it streams.

Invariant: an object is shown only if it is an image, and its own metadata names the request that the XCom or manifest
names. No other object can be read, whatever an XCom contains.

Images are streamed by the API server instead of by presigned addresses: each request is authorised as the user, the
browser need not reach the bucket, and the page's security policy permits this origin alone. One chunk of each image is
in memory. Images are not scaled here, since decoding would burden the process that serves Airflow's UI.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from threading import Lock
from typing import Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_ideogram.storage.image_record import made_by
from airflow_provider_ideogram.storage.image_store import ImageStore
from airflow_provider_ideogram.storage.objects import ObjectStore

#: Types that are shown; others, such as SVG, which may contain scripts, are not.
IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/avif", "image/bmp")
_CHUNK_BYTES = 64 * 1024
#: Seconds for which a client is kept: a changed connection takes effect afterwards.
_CLIENT_SECONDS = 300.0
_GONE = "The image was deleted, or replaced by another one."

_client_lock = Lock()
_objects: tuple[str, float, ObjectStore] | None = None


class NotShown(Exception):
    """The image can't be shown; the message says why."""


@dataclass(frozen=True, slots=True)
class Image:
    """
    An image that is being read.

    :param content: Its bytes, chunk by chunk.
    """

    content_type: str
    size_bytes: int
    content: Iterator[bytes]


def object_store() -> ObjectStore:
    """
    Return the S3 layer on the connection ``[ideogram] gallery_aws_conn_id``.

    The tasks' own connections are not used: an administrator may want the API server to read only.
    """
    global _objects
    conn_id = conf.get("ideogram", "gallery_aws_conn_id", fallback="aws_default")
    with _client_lock:
        if _objects is None or _objects[0] != conn_id or _objects[1] < time.monotonic():
            _objects = (conn_id, time.monotonic() + _CLIENT_SECONDS, ImageStore(conn_id).objects)
        return _objects[2]


def open_image(objects: ObjectStore, facts: Mapping[str, Any]) -> Image:
    """
    Open the image that the fields of an image's record name.

    :raises NotShown: If it is missing, or not the image of the record.
    :raises IdeogramStorageError: If S3 does not return it.
    """
    version = {"VersionId": facts["version_id"]} if facts.get("version_id") else {}
    response = objects.stream(facts["bucket"], facts["key"], **version)
    if response is None:
        raise NotShown(_GONE)
    content_type = response.get("ContentType")
    if made_by(response) != facts["request_id"] or content_type not in IMAGE_TYPES:
        response["Body"].close()
        raise NotShown(_GONE)
    return Image(content_type, response["ContentLength"], _chunks(response["Body"]))


def _chunks(body: Any) -> Iterator[bytes]:
    with closing(body):
        yield from body.iter_chunks(_CHUNK_BYTES)
