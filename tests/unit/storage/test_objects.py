"""The S3 layer against a server on a socket, and against servers that fail or have no conditional writes."""

from __future__ import annotations

import base64
import hashlib
import io
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from botocore.awsrequest import AWSResponse

from airflow_provider_ideogram.exceptions import IdeogramStorageError, IdeogramStorageRefused
from airflow_provider_ideogram.storage.objects import ConditionsNotSupported, ObjectStore, PreconditionFailed
from dev.s3_server import S3Server
from tests.support.s3 import (
    answered,
    checksums_sent,
    conditions_refused,
    deletions_misjudged,
    headers_refused,
    intercepted,
    s3_response,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KEY = "a/object.json"
BODY = b"the bytes of an image"
SHA256 = hashlib.sha256(BODY).digest()
MD5 = base64.b64encode(hashlib.md5(BODY).digest()).decode()


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

    def test_missing_bucket_is_no_failed_condition(self, store: ObjectStore) -> None:
        with pytest.raises(IdeogramStorageRefused, match="NoSuchBucket"):
            store.put("missing-bucket", KEY, b"1", if_missing=True)
        with pytest.raises(IdeogramStorageRefused, match="NoSuchBucket"):
            store.put("missing-bucket", KEY, b"1", if_match='"1"')
        with pytest.raises(IdeogramStorageRefused, match="NoSuchBucket"):
            store.delete("missing-bucket", KEY, if_match='"1"')

    def test_deletion_of_a_version(self, store: ObjectStore, bucket: str) -> None:
        first = store.put(bucket, KEY, b"1")["ETag"]
        second = store.put(bucket, KEY, b"2")["ETag"]
        with pytest.raises(PreconditionFailed):
            store.delete(bucket, KEY, if_match=first)
        store.delete(bucket, KEY, if_match=second)
        assert store.get(bucket, KEY) is None

    def test_version_that_a_deletion_misjudges_is_recognized(
        self, store: ObjectStore, client: S3Client, bucket: str
    ) -> None:
        first = store.put(bucket, KEY, b"1")["ETag"]
        second = store.put(bucket, KEY, b"2")["ETag"]
        with deletions_misjudged(client):
            with pytest.raises(PreconditionFailed):
                store.delete(bucket, KEY, if_match=first)
            with pytest.raises(ConditionsNotSupported):
                store.delete(bucket, KEY, if_match=second)
            store.delete(bucket, KEY)
        assert store.get(bucket, KEY) is None

    @pytest.mark.parametrize("status", [400, 405, 501])
    def test_store_without_conditions_is_recognized(
        self, status: int, store: ObjectStore, client: S3Client, bucket: str
    ) -> None:
        etag = store.put(bucket, KEY, b"1")["ETag"]
        with conditions_refused(client, status):
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

    @pytest.mark.parametrize("status", [400, 403, 405, 501])
    def test_objects_are_deleted_singly_where_batches_are_refused(
        self, status: int, store: ObjectStore, client: S3Client, bucket: str
    ) -> None:
        for key in ("a/1", "a/2", "b"):
            store.put(bucket, key, b"")
        with answered(client, "DeleteObjects", status, "MissingContentMD5"):
            store.delete_many(bucket, ["a/1", "a/2", "missing"])
        assert [item.key for item in store.list(bucket, "")] == ["b"]

    @pytest.mark.parametrize("status", [404, 503])
    def test_other_statuses_are_errors(self, status: int, store: ObjectStore, client: S3Client, bucket: str) -> None:
        with (
            answered(client, "DeleteObjects", status),
            pytest.raises(IdeogramStorageError, match=f"Deleting 2 objects of s3://{bucket} failed"),
        ):
            store.delete_many(bucket, ["a", "b"])

    def test_refused_key_is_deleted_singly(self, store: ObjectStore, client: S3Client, bucket: str) -> None:
        store.put(bucket, "a", b"")
        response = {"Errors": [{"Key": "a", "Code": "AccessDenied", "Message": "not permitted"}]}
        with mock.patch.object(client, "delete_objects", return_value=response):
            with (
                answered(client, "DeleteObject", 403),
                pytest.raises(IdeogramStorageError, match=f"Deleting s3://{bucket}/a failed") as caught,
            ):
                store.delete_many(bucket, ["a", "b"], advice="All images are stored.")
            store.delete_many(bucket, ["a", "b"])
        assert caught.value.advice == "All images are stored."
        assert store.get(bucket, "a") is None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


class TestChecksum:
    @pytest.fixture(autouse=True)
    def _with_checksums(self, client: S3Client) -> Iterator[None]:
        with checksums_sent(client):
            yield

    @pytest.fixture
    def sent(self, client: S3Client) -> Iterator[list[dict[str, str]]]:
        """Return the headers of each write."""
        headers: list[dict[str, str]] = []

        def note(request: Any) -> None:
            headers.append({name.lower(): _text(value) for name, value in request.headers.items()})

        with intercepted(client, "PutObject", note):
            yield headers

    @pytest.mark.parametrize("status", [400, 405, 501])
    @pytest.mark.parametrize("sha256", [None, SHA256], ids=["boto3's own", "SHA-256"])
    def test_object_is_written_where_checksums_are_refused(
        self,
        status: int,
        sha256: bytes | None,
        store: ObjectStore,
        client: S3Client,
        bucket: str,
        sent: list[dict[str, str]],
    ) -> None:
        with headers_refused(client, "x-amz-checksum-", status):
            store.put(bucket, KEY, io.BytesIO(BODY), sha256=sha256, ContentLength=len(BODY))
            refused = len(sent)
            store.put(bucket, KEY, BODY, sha256=sha256)

        stored = store.get(bucket, KEY)
        assert stored is not None
        assert stored.body == BODY
        assert len(sent) == refused + 1, "what the store refuses is not sent to it again"
        assert sent[-1]["content-md5"] == MD5

    def test_configuration_without_checksums_is_honoured(
        self, store: ObjectStore, client: S3Client, bucket: str, sent: list[dict[str, str]]
    ) -> None:
        with checksums_sent(client, "when_required"):
            store.put(bucket, KEY, BODY, sha256=SHA256)
        [headers] = sent
        assert not [name for name in headers if "checksum" in name]
        assert headers["content-md5"] == MD5

    def test_refused_checksum_does_not_change_the_shared_client(
        self, store: ObjectStore, client: S3Client, bucket: str, sent: list[dict[str, str]]
    ) -> None:
        with headers_refused(client, "x-amz-checksum-", 400):
            store.put(bucket, KEY, BODY, sha256=SHA256)
        ObjectStore(client).put(bucket, KEY, BODY, sha256=SHA256)
        assert not [name for name in sent[-2] if "checksum" in name]
        assert "x-amz-checksum-sha256" in sent[-1]

    def test_write_that_is_refused_anyway_is_an_error(
        self, store: ObjectStore, client: S3Client, bucket: str, sent: list[dict[str, str]]
    ) -> None:
        with answered(client, "PutObject", 400, "InvalidRequest"), pytest.raises(IdeogramStorageError):
            store.put(bucket, KEY, BODY, sha256=SHA256)
        store.put(bucket, KEY, BODY, sha256=SHA256)
        assert "x-amz-checksum-sha256" in sent[-1]


def test_copy_keeps_metadata(store: ObjectStore, bucket: str) -> None:
    store.put(bucket, KEY, b"1", Metadata={"title": "cat"})
    copied = store.copy((bucket, KEY), bucket, "copy")
    head = store.head(bucket, "copy")
    assert head is not None
    assert (head["ETag"], head["Metadata"]) == (copied["CopyObjectResult"]["ETag"], {"title": "cat"})
    with pytest.raises(IdeogramStorageError, match=f"Copying s3://{bucket}/missing to s3://{bucket}/copy failed"):
        store.copy((bucket, "missing"), bucket, "copy")


class TestUserArguments:
    """What a bucket may require goes with the calls of the S3 layer."""

    @staticmethod
    def _calls(client: S3Client, extra_args: dict[str, Any], bucket: str) -> dict[str, dict[str, Any]]:
        """Use every call, and return the last parameters of each."""
        sent: dict[str, dict[str, Any]] = {}

        def note(params: dict[str, Any], model: Any, **_: Any) -> None:
            sent[model.name] = params

        objects = ObjectStore(client, extra_args)
        events: Any = client.meta.events
        events.register("provide-client-params.s3", note)
        try:
            objects.put(bucket, KEY, b"1")
            objects.copy((bucket, KEY), bucket, "copy")
            objects.head(bucket, KEY)
            objects.get(bucket, KEY)
            list(objects.list(bucket, ""))
            objects.delete_many(bucket, ["copy"])
            objects.delete(bucket, KEY)
        finally:
            events.unregister("provide-client-params.s3", note)
        return sent

    def test_encryption_access_and_payer_go_with_writes(self, client: S3Client, bucket: str) -> None:
        shared = {
            "ACL": "bucket-owner-full-control",
            "ServerSideEncryption": "aws:kms",
            "SSEKMSKeyId": "arn:aws:kms:us-east-1:123456789012:key/1",
            "RequestPayer": "requester",
        }
        sent = self._calls(client, {**shared, "Tagging": "team=art", "StorageClass": "GLACIER"}, bucket)
        for operation in ("PutObject", "CopyObject"):
            assert shared.items() <= sent[operation].items()
            assert not {"Tagging", "StorageClass"} & sent[operation].keys()

    def test_payer_goes_with_reads_and_deletions(self, client: S3Client, bucket: str) -> None:
        sent = self._calls(client, {"RequestPayer": "requester", "ACL": "private"}, bucket)
        for operation in ("HeadObject", "GetObject", "ListObjectsV2", "DeleteObject", "DeleteObjects"):
            assert sent[operation]["RequestPayer"] == "requester"
            assert "ACL" not in sent[operation]

    @pytest.mark.parametrize(
        "public",
        [
            {"ACL": "public-read"},
            {"ACL": "authenticated-read"},
            {"GrantRead": 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'},
        ],
    )
    def test_no_argument_makes_records_public(self, public: dict[str, str], client: S3Client, bucket: str) -> None:
        assert not public.keys() & self._calls(client, public, bucket)["PutObject"].keys()
