"""What the probe finds out about a store, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

import boto3
import pytest

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramStorageError
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.probe import StoreProbe
from tests.support.s3 import (
    answered,
    checksums_sent,
    conditions_ignored,
    conditions_refused,
    deletions_misjudged,
    header_required,
    headers_refused,
    intercepted,
    metadata_dropped,
    response_lost,
    s3_response,
    unprobed,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Store: TypeAlias = "Callable[[S3Client], AbstractContextManager[Any]]"


def _conforming(_: S3Client) -> AbstractContextManager[None]:
    return nullcontext()


def _ignored_by_deletions(client: S3Client) -> AbstractContextManager[None]:
    return conditions_ignored(client, ["DeleteObject"])


def _write_lost(client: S3Client) -> AbstractContextManager[list[int]]:
    return response_lost(client, "PutObject", call=3)  # the first two writes are not expected to replace a version


def _deletion_lost(client: S3Client) -> AbstractContextManager[list[int]]:
    return response_lost(client, "DeleteObject", call=2)


def _write_conflicts(client: S3Client) -> AbstractContextManager[None]:
    return answered(client, "PutObject", 409, "ConditionalRequestConflict", from_call=3, to_call=4)


def _deletion_conflicts(client: S3Client) -> AbstractContextManager[None]:
    return answered(client, "DeleteObject", 409, "ConditionalRequestConflict", from_call=2, to_call=2)


@pytest.fixture(autouse=True)
def new_process() -> Iterator[None]:
    """Nothing is known of the stores."""
    with unprobed():
        yield


@pytest.fixture
def objects(client: S3Client) -> Iterator[ObjectStore]:
    with checksums_sent(client):
        yield ObjectStore(client)


@pytest.fixture
def probe(objects: ObjectStore, bucket: str) -> StoreProbe:
    return StoreProbe(objects, bucket, "_ideogram/")


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return the probe's warnings."""
    return lambda: [record.getMessage() for record in caplog.records if record.name.endswith("storage.probe")]


@pytest.mark.parametrize(
    ("store", "writes", "deletions"),
    [
        (_conforming, True, True),
        (conditions_refused, False, False),
        (conditions_ignored, False, False),
        (deletions_misjudged, True, False),
        (_ignored_by_deletions, True, False),
        (_write_lost, True, True),
        (_deletion_lost, True, True),
        (_write_conflicts, True, True),
        (_deletion_conflicts, True, True),
    ],
)
def test_conditions_are_used_where_they_are_honoured(
    store: Store,
    writes: bool,
    deletions: bool,
    probe: StoreProbe,
    objects: ObjectStore,
    client: S3Client,
    bucket: str,
    warned: Callable[[], list[str]],
) -> None:
    with store(client):
        probe.run()
    assert (objects.writes_conditionally, objects.deletes_conditionally) == (writes, deletions)
    assert ["no conditional writes" in text for text in warned()] == ([] if writes else [True])
    assert list(objects.list(bucket, "")) == []


def test_store_that_keeps_no_metadata_is_a_warning(
    probe: StoreProbe, client: S3Client, warned: Callable[[], list[str]]
) -> None:
    with metadata_dropped(client):
        probe.run()
    [warning] = warned()
    assert "does not keep metadata" in warning


def test_refused_checksum_is_found_out(probe: StoreProbe, objects: ObjectStore, client: S3Client, bucket: str) -> None:
    with headers_refused(client, "x-amz-checksum-", 400):
        probe.run()
        assert objects.writes_conditionally
        writes: list[Any] = []
        with intercepted(client, "PutObject", writes.append):
            objects.put(bucket, "cat.webp", b"1", sha256=b"")
    assert len(writes) == 1


def test_bucket_is_probed_once(probe: StoreProbe, client: S3Client) -> None:
    probe.run()
    with intercepted(client, "PutObject", (writes := list[Any]()).append):
        probe.run()
    assert writes == []


def test_store_is_probed_once_in_a_process(probe: StoreProbe, client: S3Client) -> None:
    with conditions_ignored(client, ["DeleteObject"]):
        probe.run()
        with intercepted(client, "PutObject", (writes := list[Any]()).append):
            StoreProbe(again := ObjectStore(client), "another-bucket", "_ideogram/").run()
    assert writes == []
    assert (again.writes_conditionally, again.deletes_conditionally) == (True, False)


def test_each_bucket_is_asked_for_arguments(probe: StoreProbe, client: S3Client, bucket: str) -> None:
    probe.run()
    asked: list[str] = []

    def note(request: Any) -> None:
        asked.append(request.method)

    with intercepted(client, "PutObject", note), intercepted(client, "HeadObject", note):
        StoreProbe(ObjectStore(client, {"ACL": "private"}), bucket, "_ideogram/").run()
    assert asked == ["PUT"]


@pytest.mark.parametrize("operation", ["PutObject", "HeadObject"])
def test_failed_probe_is_repeated(
    operation: str, probe: StoreProbe, objects: ObjectStore, client: S3Client, bucket: str
) -> None:
    with answered(client, operation, 503), pytest.raises(IdeogramStorageError, match=r"/_ideogram/\.probe-"):
        probe.run()
    assert list(objects.list(bucket, "")) == []
    with conditions_refused(client):
        probe.run()
    assert not objects.writes_conditionally


def test_role_that_may_not_delete_is_a_warning(
    probe: StoreProbe, objects: ObjectStore, client: S3Client, warned: Callable[[], list[str]]
) -> None:
    with answered(client, "DeleteObject", 403):
        probe.run()
    [warning] = warned()
    assert warning.startswith("Deleting s3://")
    assert objects.writes_conditionally


def test_aws_is_not_probed() -> None:
    client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="s")
    asked: list[str] = []
    client.meta.events.register("before-call.s3", lambda model, **_: asked.append(model.name))
    StoreProbe(ObjectStore(client), "bucket", "_ideogram/").run()
    client.close()
    assert asked == []


ARGUMENTS = {
    "ACL": "bucket-owner-full-control",
    "ServerSideEncryption": "aws:kms",
    "SSEKMSKeyId": "arn:aws:kms:us-east-1:123456789012:key/1",
    "Tagging": "team=art",
    "StorageClass": "STANDARD_IA",
}


class TestArguments:
    @pytest.mark.parametrize(
        ("header", "status", "named"),
        [
            ("x-amz-acl", 400, "refuses ACL ("),
            ("x-amz-server-side-encryption", 400, "refuses ServerSideEncryption, SSEKMSKeyId ("),
            ("x-amz-server-side-encryption", 500, "refuses ServerSideEncryption, SSEKMSKeyId ("),
            ("x-amz-tagging", 403, "refuses Tagging ("),
            ("x-amz-storage-class", 400, "refuses StorageClass ("),
        ],
    )
    def test_refused_argument_is_named(
        self, header: str, status: int, named: str, client: S3Client, bucket: str
    ) -> None:
        objects = ObjectStore(client, ARGUMENTS)
        with (
            headers_refused(client, header, status),
            pytest.raises(IdeogramInvalidInput, match=r"s3_extra_args: .*Nothing was sent or charged") as caught,
        ):
            StoreProbe(objects, bucket, "_ideogram/").run()
        assert f"the bucket {bucket} {named}" in str(caught.value)
        assert list(objects.list(bucket, "")) == []

    def test_arguments_that_are_refused_together_are_named(self, client: S3Client, bucket: str) -> None:
        objects = ObjectStore(client, {"ACL": "private", "Tagging": "team=art"})
        with (
            headers_refused(client, "x-amz-acl", 400),
            headers_refused(client, "x-amz-tagging", 400),
            pytest.raises(IdeogramInvalidInput, match=r"refuses ACL, Tagging \("),
        ):
            StoreProbe(objects, bucket, "_ideogram/").run()

    def test_required_encryption_is_named(self, probe: StoreProbe, client: S3Client) -> None:
        with (
            header_required(client, "x-amz-server-side-encryption"),
            pytest.raises(IdeogramInvalidInput, match="requires 'ServerSideEncryption': 'AES256'"),
        ):
            probe.run()

    def test_refusal_without_arguments_stays_what_it_is(self, probe: StoreProbe, client: S3Client) -> None:
        with answered(client, "PutObject", 403), pytest.raises(IdeogramStorageError, match="AccessDenied"):
            probe.run()

    @pytest.mark.parametrize(("status", "calls"), [(403, 1), (403, 2), (500, 5)])
    def test_temporary_refusal_is_no_problem_of_an_argument(
        self, status: int, calls: int, client: S3Client, bucket: str
    ) -> None:
        answers = iter([status] * calls)

        def refuse(request: Any) -> Any:
            refusal = next(answers, None)
            return refusal and s3_response(request, refusal, "AccessDenied")

        objects = ObjectStore(client, {"ACL": "private"})
        with intercepted(client, "PutObject", refuse), pytest.raises(IdeogramStorageError, match="AccessDenied"):
            StoreProbe(objects, bucket, "_ideogram/").run()
        assert list(objects.list(bucket, "")) == []

    def test_object_is_written_as_the_image_and_deleted(self, client: S3Client, bucket: str) -> None:
        objects = ObjectStore(client, ARGUMENTS | {"ObjectLockMode": "GOVERNANCE", "Metadata": {"title": "cat"}})
        with intercepted(client, "PutObject", (writes := list[Any]()).append):
            StoreProbe(objects, bucket, "_ideogram/").run()
        headers = {name.lower() for name in writes[0].headers}
        assert {"x-amz-acl", "x-amz-tagging", "x-amz-storage-class"} <= headers
        assert not {"x-amz-object-lock-mode", "x-amz-meta-title"} & headers
        assert list(objects.list(bucket, "")) == []

    def test_aws_is_asked_for_arguments_only(self) -> None:
        client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="s")
        asked: list[str] = []

        def answer(request: Any) -> Any:
            asked.append(request.method)
            return s3_response(request, 200, headers={"ETag": '"1"'})

        with intercepted(client, "PutObject", answer), intercepted(client, "DeleteObject", answer):
            StoreProbe(ObjectStore(client, {"ACL": "private"}), "bucket", "_ideogram/").run()
        client.close()
        assert asked == ["PUT", "DELETE"]
