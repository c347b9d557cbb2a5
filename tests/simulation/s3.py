"""
An S3 in memory, with the methods of boto3's client that the package calls.

Invariant: conditional writes and deletions are decided and carried out at one moment. As botocore does, the client
repeats a call that fails for a reason that may pass, also if the failed one took effect.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, TypeVar

import botocore.session
from botocore.exceptions import ClientError, ReadTimeoutError

from airflow_provider_ideogram.datasets.rows import MANIFEST
from airflow_provider_ideogram.storage.target import DEFAULT_LEDGER_PREFIX
from airflow_provider_ideogram.storage.thumbnail import FOLDER
from tests.simulation.servers import NotCarriedOut, ResponseLost, Servers

T = TypeVar("T")

BUCKET = "bucket"
#: How often botocore sends a call, and how long it waits before it sends it again.
_ATTEMPTS, _BACK_OFF = 2, 0.7
#: Objects in a page of a listing: few, so that listings have pages.
_PAGE = 5
_AWS, _OTHER = "https://s3.us-east-1.amazonaws.com", "https://s3.example.com"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in the bucket."""

    body: bytes
    etag: str
    metadata: Mapping[str, str]
    content_type: str
    modified_at: float


@dataclass
class Bucket:
    """
    What is in the bucket.

    :param on_put: Called with the key and the object of each write.
    """

    on_put: Callable[[str, StoredObject], None]
    objects: dict[str, StoredObject] = field(default_factory=dict)


@functools.cache
def service_model() -> Any:
    """Return botocore's description of S3."""
    return botocore.session.get_session().get_service_model("s3")


class SimulatedS3:
    """
    A client of the bucket.

    :param servers: The way to it.
    :param bucket: The bucket.
    """

    def __init__(self, servers: Servers, bucket: Bucket) -> None:
        self._servers, self._bucket = servers, bucket
        self._endpoint = servers.kernel.rng.choice((_AWS, _OTHER))
        self._config = SimpleNamespace(request_checksum_calculation="when_supported")

    @property
    def meta(self) -> SimpleNamespace:
        """What botocore's client tells of itself; each process has its own endpoint, which it has not yet probed."""
        process = self._servers.kernel.process.name
        return SimpleNamespace(
            endpoint_url=self._endpoint if self._endpoint == _AWS else f"{self._endpoint}/{process}",
            service_model=service_model(),
            region_name="us-east-1",
            config=self._config,
            events=SimpleNamespace(register=lambda *_, **__: None),
        )

    def head_bucket(self, *, Bucket: str) -> dict[str, Any]:  # noqa: N803
        self._call("HeadBucket", "", lambda: None)
        return {}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        found = self._call("GetObject", Key, lambda: self._existing("GetObject", Key))
        return {**_description(found), "Body": io.BytesIO(found.body)}

    def head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        return _description(self._call("HeadObject", Key, lambda: self._existing("HeadObject", Key)))

    def put_object(
        self,
        *,
        Bucket: str,  # noqa: N803
        Key: str,  # noqa: N803
        Body: Any,  # noqa: N803
        IfMatch: str | None = None,  # noqa: N803
        IfNoneMatch: str | None = None,  # noqa: N803
        Metadata: Mapping[str, str] | None = None,  # noqa: N803
        ContentType: str = "",  # noqa: N803
        **_: Any,
    ) -> dict[str, Any]:
        body = Body if isinstance(Body, bytes) else Body.read()

        def put() -> str:
            self._check("PutObject", Key, IfMatch, must_be_missing=IfNoneMatch is not None)
            return self._store(Key, body, Metadata or {}, ContentType)

        return {"ETag": self._call("PutObject", Key, put, conditional=bool(IfMatch or IfNoneMatch))}

    def copy_object(
        self,
        *,
        Bucket: str,  # noqa: N803
        Key: str,  # noqa: N803
        CopySource: Mapping[str, str],  # noqa: N803
        **_: Any,
    ) -> dict[str, Any]:
        def copy() -> str:
            source = self._existing("CopyObject", CopySource["Key"])
            return self._store(Key, source.body, source.metadata, source.content_type)

        return {"CopyObjectResult": {"ETag": self._call("CopyObject", Key, copy)}}

    def delete_object(self, *, Bucket: str, Key: str, IfMatch: str | None = None) -> dict[str, Any]:  # noqa: N803
        def delete() -> None:
            self._check("DeleteObject", Key, IfMatch)
            self._bucket.objects.pop(Key, None)

        self._call("DeleteObject", Key, delete, conditional=IfMatch is not None)
        return {}

    def delete_objects(self, *, Bucket: str, Delete: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N803
        keys = [item["Key"] for item in Delete["Objects"]]

        def delete() -> None:
            for key in keys:
                self._bucket.objects.pop(key, None)

        self._call("DeleteObjects", keys[0], delete)
        return {}

    def get_paginator(self, _: str) -> SimulatedS3:
        return self

    def paginate(self, *, Bucket: str, Prefix: str, Delimiter: str = "") -> Iterator[dict[str, Any]]:  # noqa: N803
        last = ""
        while True:
            page = self._call("ListObjectsV2", Prefix, functools.partial(self._page, Prefix, Delimiter, last))
            yield {"Contents": page}
            if len(page) < _PAGE:
                return
            last = page[-1]["Key"]

    def _page(self, prefix: str, delimiter: str, last: str) -> list[dict[str, Any]]:
        keys = sorted(
            key
            for key in self._bucket.objects
            if key.startswith(prefix) and key > last and not (delimiter and delimiter in key[len(prefix) :])
        )
        found = [(key, self._bucket.objects[key]) for key in keys[:_PAGE]]
        return [
            {"Key": key, "ETag": item.etag, "LastModified": datetime.fromtimestamp(item.modified_at, UTC)}
            for key, item in found
        ]

    def _existing(self, operation: str, key: str) -> StoredObject:
        found = self._bucket.objects.get(key)
        if found is None:
            raise _error(operation, 404, "NoSuchKey")
        return found

    def _check(self, operation: str, key: str, etag: str | None, *, must_be_missing: bool = False) -> None:
        found = self._bucket.objects.get(key)
        if must_be_missing and found is not None:
            raise _error(operation, 412, "PreconditionFailed")
        if etag is not None and found is None:
            raise _error(operation, 404, "NoSuchKey")
        if etag is not None and found is not None and found.etag != etag:
            raise _error(operation, 412, "PreconditionFailed")

    def _store(self, key: str, body: bytes, metadata: Mapping[str, str], content_type: str) -> str:
        etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        stored = StoredObject(body, etag, dict(metadata), content_type, self._servers.kernel.now)
        self._bucket.objects[key] = stored
        self._bucket.on_put(key, stored)
        return etag

    def _call(self, operation: str, key: str, effect: Callable[[], T], *, conditional: bool = False) -> T:
        """Carry out a call, again after a failure that may pass."""
        servers, rng = self._servers, self._servers.kernel.rng

        def carry_out() -> T:
            if servers.faults.happens("s3 refused 403"):
                raise _error(operation, 403, "AccessDenied")
            if conditional and servers.faults.happens("s3 conflict 409"):
                raise _error(operation, 409, "ConditionalRequestConflict")
            return effect()

        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return servers.exchange("s3", f"{operation} {_kind(key)}", key, carry_out)
            except (NotCarriedOut, ResponseLost):
                if attempt < _ATTEMPTS:
                    servers.kernel.sleep(_BACK_OFF * attempt)
        if rng.random() < 0.5:
            raise ReadTimeoutError(endpoint_url=self.meta.endpoint_url)
        raise _error(operation, rng.choice((500, 503)), "InternalError")


def _kind(key: str) -> str:
    """Return what an object is."""
    name = key.rsplit("/", 1)[-1]
    if ".dataset/" in key:
        return name.split("-")[0].removesuffix(".json") or "workspace"
    if name.startswith(".probe-"):
        return "probe"
    if FOLDER in key:
        return "thumbnail"
    if key.startswith(DEFAULT_LEDGER_PREFIX):
        return "record"
    return "manifest" if name == MANIFEST else "image" if name else "bucket"


def _description(found: StoredObject) -> dict[str, Any]:
    return {
        "ETag": found.etag,
        "Metadata": dict(found.metadata),
        "ContentType": found.content_type,
        "ContentLength": len(found.body),
        "LastModified": datetime.fromtimestamp(found.modified_at, UTC),
    }


def _error(operation: str, status: int, code: str) -> ClientError:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)
