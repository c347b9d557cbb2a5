"""
The S3 client of the API server, and images on their way through it.

Invariant: an object is shown only if it is an image, and if its own metadata says that it was made by the very request
that the XCom or manifest names: nothing else in any bucket can be read here, whatever an XCom claims.

Images go through the API server rather than by presigned addresses: each is authorised as the user, it works where
the browser can't reach the bucket, and the page's security policy permits this origin alone. A chunk of each is in
memory at a time. They are not scaled down, which would decode them here, in the process that serves Airflow's UI.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from threading import Lock
from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.providers.common.compat.sdk import AirflowException, conf
from botocore.exceptions import BotoCoreError, ClientError

from airflow_provider_ideogram.storage.image_record import made_by

#: What the browser is told an image is; anything else, such as SVG with a script in it, is not shown.
IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif")
#: What can go wrong with S3 or the connection to it.
STORAGE_ERRORS = (AirflowException, BotoCoreError, ClientError)
_CHUNK_BYTES = 64 * 1024
#: A changed connection counts after so many seconds; making a client takes a tenth of one.
_CLIENT_SECONDS = 300.0
_GONE = "The image is not there anymore, or was replaced by another."

_client_lock = Lock()
_client: tuple[str, float, Any] | None = None


class NotShown(Exception):
    """There is no image to show; the message says why."""


@dataclass(frozen=True, slots=True)
class Image:
    """
    An image that is being read.

    :param content: Its bytes, chunk by chunk.
    """

    content_type: str
    size_bytes: int
    content: Iterator[bytes]


def s3_client() -> Any:
    """
    Return the S3 client of the connection ``[ideogram] gallery_aws_conn_id``.

    The API server does not have the task with its own connection, and an administrator may want it to read only.
    """
    global _client
    conn_id = conf.get("ideogram", "gallery_aws_conn_id", fallback="aws_default")
    with _client_lock:
        if _client is None or _client[0] != conn_id or _client[1] < time.monotonic():
            _client = (conn_id, time.monotonic() + _CLIENT_SECONDS, S3Hook(aws_conn_id=conn_id).get_conn())
        return _client[2]


def open_image(client: Any, facts: Mapping[str, Any]) -> Image:
    """
    Begin to read the image that these fields of an image's record name.

    :raises NotShown: If it is not there, or is not what the record says.
    :raises ClientError: If S3 does not permit it.
    """
    version = {"VersionId": facts["version_id"]} if facts.get("version_id") else {}
    try:
        answer = client.get_object(Bucket=facts["bucket"], Key=facts["key"], **version)
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
            raise NotShown(_GONE) from error
        raise
    content_type = answer.get("ContentType")
    if made_by(answer) != facts["request_id"] or content_type not in IMAGE_TYPES:
        answer["Body"].close()
        raise NotShown(_GONE)
    return Image(content_type, answer["ContentLength"], _chunks(answer["Body"]))


def _chunks(body: Any) -> Iterator[bytes]:
    with closing(body):
        yield from body.iter_chunks(_CHUNK_BYTES)
