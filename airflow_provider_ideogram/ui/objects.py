"""
What a request reads from S3.

Invariant: an object is shown only if its type is that of an image, and its own metadata names the request that the XCom
or manifest names. No other object can be read, whatever an XCom contains. Each read counts against the request's
limits.

Images are streamed by the API server instead of by presigned addresses: each request is authorised as the user, the
browser need not reach the bucket, and the page's security policy permits this origin alone. One chunk of each image is
in memory. Images are not scaled here, since decoding would burden the process that serves Airflow's UI: the worker has
stored a thumbnail, which the image's metadata names.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

from botocore.exceptions import ClientError

from airflow_provider_ideogram.exceptions import IdeogramStorageError, IdeogramStorageRefused
from airflow_provider_ideogram.storage.image_record import made_by, thumbnail_of
from airflow_provider_ideogram.storage.objects import (
    NOTHING_CHARGED,
    ListedObject,
    ObjectStore,
    StoredObject,
    storage_errors,
)
from airflow_provider_ideogram.storage.target import Target
from airflow_provider_ideogram.ui.client import object_store
from airflow_provider_ideogram.ui.work import LimitReached, Work

log = logging.getLogger(__name__)

#: Types that are shown; others, such as SVG, which may contain scripts, are not.
IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/avif", "image/bmp")
_CHUNK_BYTES = 64 * 1024
#: Bytes of an image that are in memory while a browser takes them.
_STREAM_CHUNK_BYTES = 256 * 1024
_GONE = "The image was deleted, or replaced by another one."
_CODE = re.compile(r"[A-Za-z0-9]{1,60}")
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}", re.ASCII)


class NotShown(Exception):
    """The image can't be shown; the message says why."""


class Reader:
    """
    Reads objects for one request.

    Every method raises IdeogramStorageError if S3 does not return what is read, and what :meth:`Work.spend` raises.

    :param work: Its limits.
    :param objects: Returns the S3 layer, and waits for at most the given seconds.
    """

    def __init__(self, work: Work, objects: Callable[[float], ObjectStore] = object_store) -> None:
        self.work = work
        self._objects = objects

    def store(self) -> ObjectStore:
        """Return the S3 layer, for what is not an image."""
        self.work.spend()
        return self._objects(self.work.seconds_left)

    def open(self, target: Target, **options: Any) -> Mapping[str, Any] | None:
        """
        Return S3's response to a read, None if the object is missing; the caller closes its ``Body``.

        :param options: Further arguments of ``get_object``, such as ``Range`` or ``VersionId``.
        """
        self.work.spend()
        response = self._objects(self.work.seconds_left).stream(target.bucket, target.key, **options)
        try:
            self.work.spend()
        except Exception:
            if response is not None:
                response["Body"].close()
            raise
        return response

    def chunks(self, target: Target, start: int = 0) -> Generator[bytes]:
        """Yield an object's content from an offset on, which lies within it."""
        response = self.open(target, **({"Range": f"bytes={start}-"} if start else {}))
        if response is None:
            raise _missing(target)
        body = response["Body"]
        with closing(body), storage_errors(f"Reading {target.uri}", NOTHING_CHARGED):
            for chunk in body.iter_chunks(_CHUNK_BYTES):
                self.work.spend(len(chunk))
                yield chunk

    def read_range(self, target: Target, start: int, size: int) -> bytes:
        """Return at most ``size`` bytes from an offset on; an offset behind the end is S3's error 416."""
        response = self.open(target, Range=f"bytes={start}-{start + size - 1}")
        if response is None:
            raise _missing(target)
        with closing(response["Body"]) as body, storage_errors(f"Reading {target.uri}", NOTHING_CHARGED):
            content: bytes = body.read(size)
        self.work.spend(len(content))
        return content

    def head(self, target: Target, **options: Any) -> Mapping[str, Any] | None:
        """
        Return S3's description of an object, None if it is missing.

        :param options: Further arguments of ``head_object``, such as ``VersionId``.
        """
        self.work.spend()
        return self._objects(self.work.seconds_left).head(target.bucket, target.key, **options)

    def size(self, target: Target) -> int:
        """Return the number of bytes of an object."""
        head = self.head(target)
        if head is None:
            raise _missing(target)
        size: int = head["ContentLength"]
        return size

    def keys(self, prefix: Target) -> Iterator[Target]:
        """Yield the objects below a prefix in the order of their keys."""
        self.work.spend()
        for item in self._objects(self.work.seconds_left).list(prefix.bucket, prefix.key):
            self.work.spend()
            yield Target(prefix.bucket, item.key)

    @property
    def objects(self) -> ObjectStore:
        """The S3 layer for reads of whole objects and listings, which count against the request's limits as well."""
        return cast("ObjectStore", _LimitedObjects(self.work, self._objects(self.work.seconds_left)))


@dataclass(frozen=True, slots=True)
class _LimitedObjects:
    work: Work
    store: ObjectStore

    def get(self, bucket: str, key: str, **options: Any) -> StoredObject | None:
        self.work.spend()
        stored = self.store.get(bucket, key, **options)
        self.work.spend(len(stored.body) if stored else 0)
        return stored

    def list(self, bucket: str, prefix: str) -> Iterator[ListedObject]:
        for item in self.store.list(bucket, prefix):
            self.work.spend()
            yield item


@dataclass(frozen=True, slots=True)
class Image:
    """
    An image that is being read.

    :param body: Its content, as boto3 returns it.
    """

    content_type: str
    size_bytes: int
    body: Any

    async def stream(self, work: Work) -> AsyncIterator[bytes]:
        """Yield its bytes, each chunk read in one of the gallery's threads; close it at the end."""
        work.start_stream(self.size_bytes)
        with closing(self.body):
            while chunk := await work.in_thread(self._read, work):
                yield chunk

    def _read(self, work: Work) -> bytes:
        with storage_errors("Reading an image", NOTHING_CHARGED):
            chunk: bytes = self.body.read(_STREAM_CHUNK_BYTES)
        work.spend(len(chunk))
        return chunk


def open_image(reader: Reader, facts: Mapping[str, Any]) -> Image:
    """
    Open the image that the fields of an image's record name.

    :raises NotShown: If it is missing, not the image of the record, or of a type that is not shown.
    :raises IdeogramStorageError: If S3 does not return it.
    """
    return _opened(reader, Target(facts["bucket"], facts["key"]), facts, _version(facts))


def open_thumbnail(reader: Reader, facts: Mapping[str, Any]) -> Image:
    """
    Open the thumbnail of an image, of whatever type that is, or the image itself if there is none.

    Raises as :func:`open_image` does.
    """
    target = Target(facts["bucket"], facts["key"])
    head = reader.head(target, **_version(facts))
    if head is None or made_by(head) != facts["request_id"]:
        raise NotShown(_GONE)
    if key := thumbnail_of(head):
        # A lifecycle rule has deleted it, this is a copy in another bucket, or the ledger's prefix may not be read.
        with suppress(NotShown, IdeogramStorageRefused):
            return _opened(reader, Target(target.bucket, key), facts, {})
    return open_image(reader, facts)


def _opened(reader: Reader, target: Target, facts: Mapping[str, Any], options: Mapping[str, Any]) -> Image:
    response = reader.open(target, **options)
    if response is None:
        raise NotShown(_GONE)
    if problem := _why_not_shown(response, facts):
        response["Body"].close()
        raise NotShown(problem)
    return Image(response["ContentType"], response["ContentLength"], response["Body"])


def _version(facts: Mapping[str, Any]) -> dict[str, str]:
    version = facts.get("version_id")
    return {"VersionId": version} if isinstance(version, str) and version else {}


def _why_not_shown(head: Mapping[str, Any], facts: Mapping[str, Any]) -> str | None:
    if made_by(head) != facts["request_id"]:
        return _GONE
    media_type = head.get("ContentType") or ""
    if media_type in IMAGE_TYPES:
        return None
    return f"Images of type {media_type if _MEDIA_TYPE.fullmatch(media_type) else 'unknown'} are not shown."


def why_not_read(error: IdeogramStorageError | LimitReached, action: str = "read") -> str:
    """
    Log an error with its text, and return what users are told of it, which says nothing of buckets and keys.

    :param action: What failed if S3 has not answered.
    """
    if isinstance(error, LimitReached):
        return str(error)
    log.warning("The gallery's access to S3 failed: %s", error.reason)
    cause = error.__cause__
    if isinstance(cause, ClientError):
        code = str(cause.response.get("Error", {}).get("Code", ""))
        return f"S3 answers {code if _CODE.fullmatch(code) else f'HTTP {error.status_code}'}"
    if error.status_code == HTTPStatus.NOT_FOUND:  # a missing object is no error of boto
        return "S3 answers NoSuchKey"
    return f"the {action} failed ({type(cause or error).__name__})"


def _missing(target: Target) -> IdeogramStorageError:
    return IdeogramStorageError(f"{target.uri} is missing", NOTHING_CHARGED, status_code=HTTPStatus.NOT_FOUND)
