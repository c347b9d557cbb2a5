"""
Objects in S3: the only module that calls boto3's client and interprets its errors.

Invariant: "missing" is None, and every other failure is an error: "could not be read" is never "is not there". The HTTP
status decides what an error means, since stores that imitate S3 differ in their error codes. Names of metadata are in
lower case, since a store or a proxy may change their case. A written object is compared with its checksum by the store.
"""

from __future__ import annotations

import hashlib
import io
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from airflow_provider_ideogram.exceptions import IdeogramStorageError, IdeogramStorageRefused
from airflow_provider_ideogram.storage.bucket_arguments import with_every_read, with_every_write

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_NOT_FOUND = 404
#: Times that a conditional call is sent though its condition holds: S3 answers 409 to one of two simultaneous calls.
CONDITIONAL_ATTEMPTS = 3
_CONFLICT = 409  # S3's response to one of two conditional writes at the same time
_PRECONDITION_FAILED = 412
#: How stores answer a header or a call that they don't support. 400 has other causes too.
_NOT_SUPPORTED = (400, 405, 501)
_NOT_PERMITTED = 403
#: botocore's event with the parameters and the context of a write.
_PARAMETERS_OF_PUT = "before-parameter-build.s3.PutObject"
_DELETED_AT_ONCE = 1000
_CHUNK_BYTES = 1 << 16
NOTHING_CHARGED = "Nothing was charged by this call to S3."
_PERMIT = "Permit the call to the worker's role or the connection's user, or correct the bucket's name."


class PreconditionFailed(Exception):
    """The object is not, or no longer, the version that a conditional write names."""


class ConditionsNotSupported(Exception):
    """The store does not support conditional writes or deletions, or not correctly."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """
    An object that was read.

    :param body: Its content.
    :param etag: Its ETag as S3 returns it, with quotes.
    """

    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class ListedObject:
    """
    An object in a listing.

    :param etag: Its ETag without quotes.
    :param modified_at: When it was stored, in seconds since the epoch.
    """

    key: str
    etag: str
    modified_at: float


class ObjectStore:
    """
    Objects of any bucket.

    Every method raises IdeogramStorageError if S3 can't be reached or refuses the call; ``advice`` is the error's.

    What the store does not support is remembered, so that it is asked once.

    :param client: boto3's S3 client.
    :param extra_args: The user's arguments of ``put_object``; what a bucket may require goes with each call.
    :param conn_id: The AWS connection of the client, for errors; None for boto3's own credentials.
    """

    def __init__(self, client: Any, extra_args: Mapping[str, Any] | None = None, *, conn_id: str | None = None) -> None:
        self.client = client
        self.conn_id = conn_id
        client.meta.events.register(_PARAMETERS_OF_PUT, _send_md5_alone, unique_id=_send_md5_alone.__qualname__)
        self.extra_args = dict(extra_args or {})
        self._write_args, self._read_args = with_every_write(self.extra_args), with_every_read(self.extra_args)
        #: Whether conditional writes, and conditional deletions, are tried.
        self.writes_conditionally = self.deletes_conditionally = True
        self._sends_checksums = True

    def get(
        self, bucket: str, key: str, *, max_bytes: int | None = None, advice: str = NOTHING_CHARGED
    ) -> StoredObject | None:
        """Return an object, None if it is missing; of a larger one than ``max_bytes`` only the beginning."""
        with self._errors(f"Reading s3://{bucket}/{key}", advice):
            response = _unless_missing(self.client.get_object, **self._read_args, Bucket=bucket, Key=key)
            return response and StoredObject(response["Body"].read(max_bytes), response["ETag"])

    def open(self, bucket: str, key: str) -> IO[bytes]:
        """Open an object for reading as a stream, whose reads raise IdeogramStorageError; the caller closes it."""
        doing = f"Reading s3://{bucket}/{key}"
        with self._errors(doing, NOTHING_CHARGED):
            response = self.client.get_object(**self._read_args, Bucket=bucket, Key=key)
            return io.BufferedReader(_Body(response["Body"], doing))

    def stream(self, bucket: str, key: str, **options: Any) -> Mapping[str, Any] | None:
        """
        Return S3's response to a read, whose ``Body`` the caller closes; None if the object is missing.

        :param options: Further arguments of ``get_object``, such as ``Range`` or ``VersionId``.
        """
        with self._errors(f"Reading s3://{bucket}/{key}", NOTHING_CHARGED):
            options = {**self._read_args, **options, "Bucket": bucket, "Key": key}
            return _with_lower_case_metadata(_unless_missing(self.client.get_object, **options))

    def head(self, bucket: str, key: str, **options: Any) -> Mapping[str, Any] | None:
        """
        Return S3's description of an object, None if it is missing.

        :param options: Further arguments of ``head_object``, such as ``VersionId``.
        """
        with self._errors(f"Reading s3://{bucket}/{key}", NOTHING_CHARGED):
            options = {**self._read_args, **options, "Bucket": bucket, "Key": key}
            return _with_lower_case_metadata(_unless_missing(self.client.head_object, **options))

    def put(
        self,
        bucket: str,
        key: str,
        body: bytes | IO[bytes],
        *,
        sha256: bytes | None = None,
        if_match: str | None = None,
        if_missing: bool = False,
        advice: str = NOTHING_CHARGED,
        charged: bool = False,
        **arguments: Any,
    ) -> Mapping[str, Any]:
        """
        Write an object, and return S3's response.

        :param sha256: The hash of the body, with which the store compares it; None for boto3's own checksum.
        :param if_match: The ETag of the version that is replaced, None for any.
        :param if_missing: Whether the write must not replace an object.
        :param charged: Whether the object's content was charged.
        :param arguments: Further arguments of ``put_object``.
        :raises PreconditionFailed: If the condition does not hold.
        :raises ConditionsNotSupported: If the store refuses conditions.
        """
        condition = {"IfMatch": if_match} if if_match is not None else {"IfNoneMatch": "*"} if if_missing else {}
        if condition and not self.writes_conditionally:
            raise ConditionsNotSupported
        call = {**self._write_args, **arguments, **condition, "Bucket": bucket, "Key": key, "Body": body}
        with self._errors(f"Writing s3://{bucket}/{key}", advice, charged=charged), _conditions(condition):
            return self._put_with_checksum(call, sha256)

    def _put_with_checksum(self, call: dict[str, Any], sha256: bytes | None) -> Mapping[str, Any]:
        """Write with a checksum, and with an MD5 if the store refuses it or the client's configuration omits it."""
        if self._sends_checksums and self.client.meta.config.request_checksum_calculation == "when_supported":
            checksum = {"ChecksumSHA256": b64encode(sha256).decode()} if sha256 else {}
            try:
                response: Mapping[str, Any] = self.client.put_object(**call, **checksum)
            except ClientError as error:
                if status_of(error) not in _NOT_SUPPORTED:
                    raise
            else:
                return response
        response = self.client.put_object(**call, ContentMD5=_md5(call["Body"]))
        self._sends_checksums = False
        return response

    def copy(self, source: tuple[str, str], bucket: str, key: str, **arguments: Any) -> Mapping[str, Any]:
        """Copy an object with its metadata, and return S3's response; ``source`` is its bucket and key."""
        with self._errors(f"Copying s3://{'/'.join(source)} to s3://{bucket}/{key}", NOTHING_CHARGED):
            response: Mapping[str, Any] = self.client.copy_object(
                **{**self._write_args, **arguments},
                CopySource={"Bucket": source[0], "Key": source[1]},
                Bucket=bucket,
                Key=key,
            )
        return response

    def list(self, bucket: str, prefix: str, *, delimiter: str = "") -> Iterator[ListedObject]:
        """Yield the objects below a prefix in the order of their keys, a thousand a call."""
        options = {**self._read_args, **({"Delimiter": delimiter} if delimiter else {})}
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **options)
        with self._errors(f"Listing s3://{bucket}/{prefix}", NOTHING_CHARGED):
            for page in pages:
                for item in page.get("Contents", ()):
                    yield ListedObject(item["Key"], item["ETag"].strip('"'), item["LastModified"].timestamp())

    def delete(self, bucket: str, key: str, *, if_match: str | None = None, advice: str = NOTHING_CHARGED) -> None:
        """
        Delete an object; a missing one is no error.

        :param if_match: The ETag of the version that is deleted, None for any.
        :raises PreconditionFailed: If another version is there.
        :raises ConditionsNotSupported: If the store refuses conditions, or refuses the version that is there.
        """
        condition = {} if if_match is None else {"IfMatch": if_match}
        if condition and not self.deletes_conditionally:
            raise ConditionsNotSupported
        with self._errors(f"Deleting s3://{bucket}/{key}", advice), _conditions(condition):
            try:
                self.client.delete_object(**self._read_args, **condition, Bucket=bucket, Key=key)
            except ClientError as error:
                if not condition or status_of(error) != _PRECONDITION_FAILED:
                    raise
                found = self.head(bucket, key)
                if found is None or found["ETag"] != if_match:
                    raise
                self.deletes_conditionally = False
                raise ConditionsNotSupported from error

    def delete_many(self, bucket: str, keys: Iterable[str], *, advice: str = NOTHING_CHARGED) -> None:
        """Delete objects, a thousand a call, and singly where the store refuses that; missing ones are no error."""
        remaining = list(keys)
        for first in range(0, len(remaining), _DELETED_AT_ONCE):
            for key in self._delete_batch(bucket, remaining[first : first + _DELETED_AT_ONCE], advice):
                self.delete(bucket, key, advice=advice)

    def _delete_batch(self, bucket: str, keys: Sequence[str], advice: str) -> Sequence[str]:
        """Return the keys whose deletion the store refused."""
        batch = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        with self._errors(f"Deleting {len(keys)} objects of s3://{bucket}", advice):
            try:
                response = self.client.delete_objects(**self._read_args, Bucket=bucket, Delete=batch)
            except ClientError as error:
                if status_of(error) not in (*_NOT_SUPPORTED, _NOT_PERMITTED):
                    raise
                return keys
        return [refused["Key"] for refused in response.get("Errors", ())]  # in a response of HTTP 200

    def check_bucket(self, bucket: str, advice: str) -> None:
        """Raise IdeogramStorageError if the bucket is missing, which no other call distinguishes from a missing key."""
        with self._errors(f"Reading the bucket s3://{bucket}", advice):
            try:
                self.client.head_bucket(Bucket=bucket)
            except ClientError as error:
                if status_of(error) != _NOT_FOUND:
                    raise
                raise IdeogramStorageRefused(
                    f"Bucket {bucket!r} does not exist", f"{advice} Create it, or correct the name of the bucket."
                ) from error

    @contextmanager
    def _errors(self, doing: str, advice: str, *, charged: bool = False) -> Iterator[None]:
        """Translate botocore's errors as :func:`storage_errors` does; missing credentials name the connection."""
        try:
            with storage_errors(doing, advice, charged=charged):
                yield
        except IdeogramStorageError as error:
            if not isinstance(error.__cause__, NoCredentialsError | PartialCredentialsError):
                raise
            place = "the worker's environment" if self.conn_id is None else f"AWS connection {self.conn_id!r}"
            raise IdeogramStorageError(
                f"Credentials are missing in {place}: {error.__cause__}",
                f"{advice} Enter them in the connection, or give the worker a role.",
                charged=charged,
            ) from error.__cause__


class _Body(io.RawIOBase):
    """The body of an object, whose reads raise IdeogramStorageError."""

    def __init__(self, body: Any, doing: str) -> None:
        self._body, self._doing = body, doing

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        with storage_errors(self._doing, NOTHING_CHARGED):
            count: int = self._body.readinto(buffer)
        return count

    def close(self) -> None:
        if not self.closed:
            self._body.close()
        super().close()


@contextmanager
def storage_errors(doing: str, advice: str, *, charged: bool = False) -> Iterator[None]:
    """
    Translate botocore's errors into IdeogramStorageError.

    :param doing: What was being done, as the beginning of the error's reason.
    :param advice: The error's advice.
    :param charged: Whether a request was charged.
    """
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        # After a charge the task is retried all the same, while a person can permit the write.
        permanent = isinstance(error, ClientError) and _is_permanent(error) and not charged
        kind = IdeogramStorageRefused if permanent else IdeogramStorageError
        raise kind(
            f"{doing} failed: {error}",
            f"{advice} {_PERMIT}" if permanent and advice == NOTHING_CHARGED else advice,
            charged=charged,
            status_code=status_of(error) if isinstance(error, ClientError) else None,
        ) from error


@contextmanager
def _conditions(condition: Mapping[str, str]) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        status = status_of(error)
        # A conditional write over a missing object is answered 404, as is one to a missing bucket.
        if condition and status in (_PRECONDITION_FAILED, _CONFLICT, _NOT_FOUND) and not _is_bucket_missing(error):
            raise PreconditionFailed from error
        if condition and status in _NOT_SUPPORTED:
            raise ConditionsNotSupported from error
        raise


def _is_permanent(error: ClientError) -> bool:
    """Return whether another attempt is refused, too, until a person changes something."""
    return status_of(error) == _NOT_PERMITTED or _is_bucket_missing(error)


def _is_bucket_missing(error: ClientError) -> bool:
    """Return whether an error says so; a response to HEAD has no code."""
    return status_of(error) == _NOT_FOUND and _code_of(error) == "NoSuchBucket"


def _code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code"))


def status_of(error: ClientError) -> int:
    """Return the HTTP status of S3's response, 0 if there is none."""
    status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status


def _send_md5_alone(params: Mapping[str, Any], context: dict[str, Any], **_: Any) -> None:
    """
    Let botocore add no checksum of its own to a write with a Content-MD5.

    botocore asks the client's configuration about each request. All threads share that, so this request gets a copy.
    """
    if "ContentMD5" in params:
        context["client_config"] = copy(context["client_config"])
        context["client_config"].request_checksum_calculation = "when_required"


def _md5(body: bytes | IO[bytes]) -> str:
    """Return the Content-MD5 of a body; a file is then at its start."""
    digest = hashlib.md5(usedforsecurity=False)
    if isinstance(body, bytes):
        digest.update(body)
    else:
        body.seek(0)
        while chunk := body.read(_CHUNK_BYTES):
            digest.update(chunk)
        body.seek(0)
    return b64encode(digest.digest()).decode()


def _with_lower_case_metadata(response: dict[str, Any] | None) -> Mapping[str, Any] | None:
    if response is None:
        return None
    return {**response, "Metadata": {name.lower(): value for name, value in response.get("Metadata", {}).items()}}


def _unless_missing(call: Any, **arguments: Any) -> Any:
    """Return the response of a read, None if the key is missing. A missing bucket is an error, except for HEAD."""
    try:
        return call(**arguments)
    except ClientError as error:
        if status_of(error) == _NOT_FOUND and not _is_bucket_missing(error):
            return None
        raise
