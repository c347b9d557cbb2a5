"""The S3 layer against a server on a socket, and against servers that fail or have no conditional writes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from botocore.awsrequest import AWSResponse

from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.storage.objects import ConditionsNotSupported, ObjectStore, PreconditionFailed
from dev.s3_server import S3Server
from tests.support.s3 import answered, conditions_refused, intercepted, s3_response

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KEY = "a/object.json"


@pytest.fixture
def store(client: S3Client) -> ObjectStore:
    return ObjectStore(client)


class _BrokenBody:
    """A body that ends before its announced length."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield b""

    def read(self, *_: Any, **__: Any) -> bytes:
        return b""

    def readinto(self, _: Any) -> int:
        return 0

    def close(self) -> None:
        """Do nothing."""


def _broken(request: Any) -> AWSResponse:
    headers: Any = {"Content-Length": "10", "ETag": '"1"'}
    return AWSResponse(request.url, 200, headers, _BrokenBody())


class TestRead:
    def test_object_is_read_whole_or_up_to_a_limit(self, store: ObjectStore, bucket: str) -> None:
        etag = store.put(bucket, KEY, b"0123456789")["ETag"]

        whole, start = store.get(bucket, KEY), store.get(bucket, KEY, max_bytes=4)

        assert whole is not None
        assert start is not None
        assert (whole.body, whole.etag, start.body) == (b"0123456789", etag, b"0123")

    def test_stream_yields_lines(self, store: ObjectStore, bucket: str) -> None:
        store.put(bucket, KEY, b"one\ntwo\n")
        with store.open(bucket, KEY) as lines:
            assert list(lines) == [b"one\n", b"two\n"]

    def test_head_describes_the_object(self, store: ObjectStore, bucket: str) -> None:
        etag = store.put(bucket, KEY, b"123", ContentType="text/plain", Metadata={"title": "cat"})["ETag"]
        head = store.head(bucket, KEY)
        assert head is not None
        described = tuple(head[name] for name in ("ETag", "ContentType", "ContentLength", "Metadata"))
        assert described == (etag, "text/plain", 3, {"title": "cat"})

    def test_missing_object_is_none(self, store: ObjectStore, bucket: str) -> None:
        assert (store.head(bucket, KEY), store.get(bucket, KEY)) == (None, None)
        with pytest.raises(IdeogramStorageError, match="NoSuchKey"):
            store.open(bucket, KEY)

    @pytest.mark.parametrize("code", ["NoSuchKey", "NotFound", "NoSuchVersion", ""])
    def test_status_404_decides_not_the_error_code(
        self, code: str, store: ObjectStore, client: S3Client, bucket: str
    ) -> None:
        with answered(client, "GetObject", 404, code), answered(client, "HeadObject", 404, code):
            assert (store.get(bucket, KEY), store.head(bucket, KEY)) == (None, None)

    def test_missing_bucket_is_an_error(self, store: ObjectStore) -> None:
        bucket = f"missing-{uuid.uuid4()}"
        with pytest.raises(IdeogramStorageError, match="NoSuchBucket"):
            store.get(bucket, KEY)
        with pytest.raises(IdeogramStorageError, match="NoSuchBucket"):
            store.put(bucket, KEY, b"")
        with pytest.raises(IdeogramStorageError, match=f"Bucket '{bucket}' does not exist") as caught:
            store.check_bucket(bucket, "Nothing was charged.")
        assert caught.value.advice == "Nothing was charged. Create it, or correct the name of the bucket."

    @pytest.mark.parametrize("status", [301, 400, 403, 416, 500, 503])
    def test_other_statuses_are_errors(self, status: int, store: ObjectStore, client: S3Client, bucket: str) -> None:
        for operation, read in (("HeadObject", store.head), ("GetObject", store.get), ("GetObject", store.open)):
            with (
                answered(client, operation, status, "NoSuchKey"),
                pytest.raises(IdeogramStorageError, match=f"Reading s3://{bucket}/{KEY} failed") as caught,
            ):
                read(bucket, KEY)
            assert caught.value.status_code == status

    def test_server_that_cannot_be_reached_is_an_error(self) -> None:
        client = S3Server("http://127.0.0.1:9").client()
        with (
            mock.patch("botocore.endpoint.time"),
            pytest.raises(IdeogramStorageError, match="Could not connect") as caught,
        ):
            ObjectStore(client).get("bucket", KEY)
        client.close()
        assert caught.value.status_code is None

    def test_body_that_ends_early_is_an_error(self, store: ObjectStore, client: S3Client, bucket: str) -> None:
        with intercepted(client, "GetObject", _broken):
            with pytest.raises(IdeogramStorageError, match=f"Reading s3://{bucket}/{KEY} failed"):
                store.get(bucket, KEY)
            with (
                store.open(bucket, KEY) as body,
                pytest.raises(IdeogramStorageError, match=f"Reading s3://{bucket}/{KEY} failed"),
            ):
                body.read()

    def test_metadata_names_are_in_lower_case(self, store: ObjectStore, client: S3Client, bucket: str) -> None:
        headers = {"X-Amz-Meta-Ideogram-Request-ID": "r-1", "ETag": '"1"', "Content-Length": "0"}
        with intercepted(client, "HeadObject", lambda request: s3_response(request, 200, headers=headers)):
            head = store.head(bucket, KEY)
        assert head is not None
        assert head["Metadata"] == {"ideogram-request-id": "r-1"}


class TestList:
    def test_objects_are_listed_in_order_across_pages(self, store: ObjectStore, client: S3Client, bucket: str) -> None:
        for key in ("a/2", "a/0", "a/b/c", "a/1", "b"):
            store.put(bucket, key, b"")
        paginator = client.get_paginator("list_objects_v2")

        def pages(**arguments: Any) -> Any:
            return paginator.paginate(**arguments, PaginationConfig={"PageSize": 2})

        with mock.patch.object(client, "get_paginator") as patched:
            patched.return_value.paginate = pages
            below = [item.key for item in store.list(bucket, "a/")]
            directly_below = [item.key for item in store.list(bucket, "a/", delimiter="/")]

        assert below == ["a/0", "a/1", "a/2", "a/b/c"]
        assert directly_below == ["a/0", "a/1", "a/2"]

    def test_listing_shows_etag_and_time(self, store: ObjectStore, bucket: str) -> None:
        etag = store.put(bucket, KEY, b"x")["ETag"]
        (item,) = store.list(bucket, "")
        head = store.head(bucket, KEY)
        assert head is not None
        assert (f'"{item.etag}"', item.modified_at) == (etag, head["LastModified"].timestamp())

    def test_listing_that_fails_is_an_error(self, store: ObjectStore, client: S3Client, bucket: str) -> None:
        with answered(client, "ListObjectsV2", 403), pytest.raises(IdeogramStorageError, match="Listing s3://"):
            list(store.list(bucket, ""))


class TestConditions:
    def test_write_of_a_missing_object(self, store: ObjectStore, bucket: str) -> None:
        store.put(bucket, KEY, b"1", if_missing=True)
        with pytest.raises(PreconditionFailed):
            store.put(bucket, KEY, b"2", if_missing=True)
        stored = store.get(bucket, KEY)
        assert stored is not None
        assert stored.body == b"1"

    def test_write_over_a_version(self, store: ObjectStore, bucket: str) -> None:
        first = store.put(bucket, KEY, b"1")["ETag"]
        second = store.put(bucket, KEY, b"2", if_match=first)["ETag"]
        with pytest.raises(PreconditionFailed):
            store.put(bucket, KEY, b"3", if_match=first)
        stored = store.get(bucket, KEY)
        assert stored is not None
        assert (stored.body, stored.etag) == (b"2", second)

    def test_write_over_a_deleted_object_fails(self, store: ObjectStore, bucket: str) -> None:
        etag = store.put(bucket, KEY, b"1")["ETag"]
        store.delete(bucket, KEY)
        with pytest.raises(PreconditionFailed):
            store.put(bucket, KEY, b"2", if_match=etag)
        assert store.get(bucket, KEY) is None

    def test_simultaneous_writes_are_a_failed_condition(
        self, store: ObjectStore, client: S3Client, bucket: str
    ) -> None:
        with answered(client, "PutObject", 409, "ConditionalRequestConflict"), pytest.raises(PreconditionFailed):
            store.put(bucket, KEY, b"1", if_missing=True)

    def test_deletion_of_a_version(self, store: ObjectStore, bucket: str) -> None:
        first = store.put(bucket, KEY, b"1")["ETag"]
        second = store.put(bucket, KEY, b"2")["ETag"]
        with pytest.raises(PreconditionFailed):
            store.delete(bucket, KEY, if_match=first)
        store.delete(bucket, KEY, if_match=second)
        assert store.get(bucket, KEY) is None

    def test_store_without_conditions_is_recognized(self, store: ObjectStore, client: S3Client, bucket: str) -> None:
        etag = store.put(bucket, KEY, b"1")["ETag"]
        with conditions_refused(client):
            with pytest.raises(ConditionsNotSupported):
                store.put(bucket, KEY, b"2", if_match=etag)
            with pytest.raises(ConditionsNotSupported):
                store.put(bucket, KEY, b"2", if_missing=True)
            with pytest.raises(ConditionsNotSupported):
                store.delete(bucket, KEY, if_match=etag)
            store.put(bucket, KEY, b"2")

    @pytest.mark.parametrize("status", [404, 409, 412, 501])
    def test_write_without_condition_never_fails_by_one(
        self, status: int, store: ObjectStore, client: S3Client, bucket: str
    ) -> None:
        with answered(client, "PutObject", status), pytest.raises(IdeogramStorageError) as caught:
            store.put(bucket, KEY, b"1", advice="All is stored.")
        assert (caught.value.status_code, caught.value.advice) == (status, "All is stored.")

    @pytest.mark.parametrize("status", [403, 500, 503])
    def test_other_statuses_are_errors(self, status: int, store: ObjectStore, client: S3Client, bucket: str) -> None:
        with (
            answered(client, "PutObject", status),
            pytest.raises(IdeogramStorageError, match=f"Writing s3://{bucket}/{KEY} failed") as written,
        ):
            store.put(bucket, KEY, b"1", if_missing=True)
        with (
            answered(client, "DeleteObject", status),
            pytest.raises(IdeogramStorageError, match=f"Deleting s3://{bucket}/{KEY} failed") as deleted,
        ):
            store.delete(bucket, KEY, if_match='"1"')
        assert written.value.status_code == deleted.value.status_code == status


class TestDeleteMany:
    def test_objects_are_deleted_in_batches(self, store: ObjectStore, bucket: str) -> None:
        keys = [f"a/{number}" for number in range(1001)]
        for key in (keys[0], keys[-1], "b"):
            store.put(bucket, key, b"")
        store.delete_many(bucket, iter(keys))
        assert [item.key for item in store.list(bucket, "")] == ["b"]

    def test_refused_key_is_an_error(self, store: ObjectStore, client: S3Client) -> None:
        response = {"Errors": [{"Key": "a", "Code": "AccessDenied", "Message": "not permitted"}]}
        with (
            mock.patch.object(client, "delete_objects", return_value=response),
            pytest.raises(IdeogramStorageError, match="failed for 1 of them, first for a: not permitted") as caught,
        ):
            store.delete_many("bucket", ["a", "b"], advice="All images are stored.")
        assert caught.value.advice == "All images are stored."


def test_copy_keeps_metadata(store: ObjectStore, bucket: str) -> None:
    store.put(bucket, KEY, b"1", Metadata={"title": "cat"})
    copied = store.copy((bucket, KEY), bucket, "copy")
    head = store.head(bucket, "copy")
    assert head is not None
    assert (head["ETag"], head["Metadata"]) == (copied["CopyObjectResult"]["ETag"], {"title": "cat"})
    with pytest.raises(IdeogramStorageError, match=f"Copying s3://{bucket}/missing to s3://{bucket}/copy failed"):
        store.copy((bucket, "missing"), bucket, "copy")
