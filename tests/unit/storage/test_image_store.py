from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from PIL import Image

from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramStorageError, IdeogramStorageRefused
from airflow_provider_ideogram.hooks.image import ImageSpool, SpooledImage
from airflow_provider_ideogram.storage.image_record import Completion, ImageRecord, made_by, made_from, thumbnail_of
from airflow_provider_ideogram.storage.image_store import ImageStore
from airflow_provider_ideogram.storage.target import Target
from tests.support.photo import photo
from tests.support.s3 import answered, header_names_capitalized, metadata_not_copied

ASKED = GenerationRequest("a cat", seed=42)
JOB = Job("r-1", 1795392000.0, ASKED, ASKED.fingerprint, "")
DATA = b"the bytes of an image"


def _image() -> SpooledImage:
    return SpooledImage(io.BytesIO(DATA), len(DATA), hashlib.sha256(DATA).digest(), "image/webp", "webp", 3, 2)


def test_image_is_stored_and_found_again(s3: Any, s3_bucket: str) -> None:
    target = Target(s3_bucket, "a/cat.webp")
    store = ImageStore("aws_default")
    assert store.find(target) is None
    record = store.put(JOB, _image(), target, Completion(inference_seconds=13.06))
    stored = s3.get_object(Bucket=s3_bucket, Key="a/cat.webp", ChecksumMode="ENABLED")
    assert stored["Body"].read() == DATA
    assert stored["ContentType"] == record.content_type == "image/webp"
    assert stored["ETag"] == f'"{record.etag}"'
    assert record.uri == f"s3://{s3_bucket}/a/cat.webp"
    found = store.find(target)
    assert found is not None
    assert made_by(found) == "r-1"
    assert made_from(found, ASKED)


def test_marked_image_is_hashed_as_stored_and_found_again(s3: Any, s3_bucket: str) -> None:
    target, file = Target(s3_bucket, "cat.webp"), photo("WEBP")
    with ImageSpool() as spool:
        spool.write(file)
        image = spool.finish()
    store = ImageStore("aws_default", provenance="xmp")
    with image:
        record = store.put(JOB, image, target, Completion())

    body = s3.get_object(Bucket=s3_bucket, Key=target.key)["Body"].read()
    assert body != file
    assert b"trainedAlgorithmicMedia" in body
    assert (record.sha256, record.size_bytes) == (hashlib.sha256(body).hexdigest(), len(body))
    head = store.find(target)
    assert head is not None
    assert made_from(head, ASKED)
    assert ImageRecord.of_object(target, head, ASKED).provenance == record.provenance == "xmp"


def test_image_that_can_not_be_marked_is_stored_as_it_is(s3: Any, s3_bucket: str) -> None:
    record = ImageStore("aws_default", provenance="xmp").put(JOB, _image(), Target(s3_bucket, "cat"), Completion())
    assert s3.get_object(Bucket=s3_bucket, Key="cat")["Body"].read() == DATA
    assert (record.provenance, record.sha256) == (None, hashlib.sha256(DATA).hexdigest())


def test_rejected_attempt_is_found_by_what_was_asked_and_sent(s3_bucket: str) -> None:
    asked = replace(ASKED, seed=1)
    store, target = ImageStore("aws_default"), Target(s3_bucket, "cat")
    store.put(JOB, _image(), target, Completion(), asked.fingerprint)
    head = store.find(target)
    assert head is not None
    assert [made_from(head, replace(ASKED, seed=seed)) for seed in (1, 42, 3)] == [True, True, False]


def test_image_below_a_prefix_is_found_by_its_name(s3_bucket: str) -> None:
    store, prefix = ImageStore("aws_default"), Target(s3_bucket, "a/")
    groups = ["0" * 32, "0" * 8 + "1" * 24, "2" * 32]
    for group in groups:
        job = replace(JOB, request_id=f"r-{group[-1]}", attempt_group=group)
        store.put(job, _image(), prefix.named(job.request_id, "png", group), Completion())
    read: list[str] = []
    store.client.meta.events.register(
        "provide-client-params.s3.HeadObject", lambda params, **_: read.append(params["Key"])
    )

    assert [made_by(found[1]) for group in groups if (found := store.find_in_prefix(prefix, group))] == [
        "r-0",
        "r-1",
        "r-2",
    ]
    assert read == ["a/00000000-r-0.png", "a/00000000-r-0.png", "a/00000000-r-1.png", "a/22222222-r-2.png"]
    assert store.find_in_prefix(prefix, "3" * 32) is None


def test_s3_compares_the_bytes_with_their_hash(s3_bucket: str) -> None:
    store = ImageStore("aws_default")
    sent: list[dict[str, str]] = []
    store.client.meta.events.register(
        "before-send.s3.PutObject", lambda request, **_: sent.append(dict(request.headers))
    )
    store.put(JOB, _image(), Target(s3_bucket, "cat"), Completion())
    (headers,) = sent
    checksum = base64.b64encode(hashlib.sha256(DATA).digest())
    assert headers["x-amz-checksum-sha256"] in (checksum, checksum.decode())
    assert headers["Content-Length"] in (str(len(DATA)), str(len(DATA)).encode())


def test_user_arguments_and_metadata_are_sent(s3: Any, s3_bucket: str) -> None:
    extra = {
        "StorageClass": "STANDARD_IA",
        "Metadata": {"Title": "cat", "Ideogram-Request-Id": "forged"},
        "Tagging": "team=art",
        "CacheControl": "no-store",
    }
    ImageStore("aws_default", extra).put(JOB, _image(), Target(s3_bucket, "cat"), Completion())
    head = s3.head_object(Bucket=s3_bucket, Key="cat")
    assert (head["StorageClass"], head["CacheControl"], head["Metadata"]["title"]) == ("STANDARD_IA", "no-store", "cat")
    assert made_by(head) == "r-1"
    assert s3.get_object_tagging(Bucket=s3_bucket, Key="cat")["TagSet"] == [{"Key": "team", "Value": "art"}]


def test_copy_is_made_with_the_user_arguments(s3: Any, s3_bucket: str) -> None:
    source, target = Target(s3_bucket, "cat"), Target(s3_bucket, "same cat")
    ImageStore("aws_default", {"Metadata": {"title": "cat"}, "Tagging": "team=old"}).put(
        JOB, _image(), source, Completion()
    )
    extra = {
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "arn:aws:kms:us-east-1:123456789012:key/1",
        "StorageClass": "STANDARD_IA",
        "Tagging": "team=art",
        "Metadata": {"title": "forged"},
        "WriteOffsetBytes": 0,  # which a copy does not take
    }

    record = ImageStore("aws_default", extra).copy(source, target, ASKED)

    head = s3.head_object(Bucket=s3_bucket, Key="same cat")
    assert {name: head[name] for name in ("ServerSideEncryption", "SSEKMSKeyId", "StorageClass")} == {
        name: extra[name] for name in ("ServerSideEncryption", "SSEKMSKeyId", "StorageClass")
    }
    assert s3.get_object_tagging(Bucket=s3_bucket, Key="same cat")["TagSet"] == [{"Key": "team", "Value": "art"}]
    assert head["Metadata"] == s3.head_object(Bucket=s3_bucket, Key="cat")["Metadata"]
    assert record is not None
    assert record.uri == target.uri


def test_copy_has_metadata_where_the_store_copies_none(s3: Any, s3_bucket: str) -> None:
    source, target = Target(s3_bucket, "cat"), Target(s3_bucket, "same cat")
    store = ImageStore("aws_default")
    store.put(JOB, _image(), source, Completion())

    with metadata_not_copied(store.client):
        assert store.copy(source, target, ASKED) is not None

    copied, original = (s3.head_object(Bucket=s3_bucket, Key=key) for key in ("same cat", "cat"))
    assert (copied["Metadata"], copied["ContentType"]) == (original["Metadata"], original["ContentType"])


def test_image_is_recognized_whatever_the_case_of_headers(s3_bucket: str) -> None:
    source, target = Target(s3_bucket, "a/cat"), Target(s3_bucket, "a/same cat")
    store = ImageStore("aws_default")
    store.put(JOB, _image(), source, Completion())

    with header_names_capitalized(store.client, "HeadObject"):
        head = store.find(source)
        copied = store.copy(source, target, ASKED)
        copy = store.find(target)

    assert head is not None
    assert made_from(head, ASKED)
    assert copied is not None
    assert copied.request_id == "r-1"
    assert made_from(copy or {}, ASKED)


def test_object_without_own_metadata_is_a_warning(s3: Any, s3_bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    s3.put_object(Bucket=s3_bucket, Key="foreign", Body=b"", Metadata={"title": "cat"})
    store = ImageStore("aws_default")
    store.put(JOB, _image(), Target(s3_bucket, "own"), Completion())

    for key in ("foreign", "own", "missing"):
        store.find(Target(s3_bucket, key))

    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(f"s3://{s3_bucket}/foreign has no metadata of this provider")


@pytest.mark.parametrize(
    "extra",
    [
        {"Metadata": {"title": "M\u00fcller"}},
        {"Body": b""},
        {"Nonsense": 1},
        {"ACL": 7},
        {"Metadata": {"a": 1}},
        {"Metadata": None},
        {"Expires": "garbage"},
        {1: 2},
    ],
    ids=str,
)
def test_invalid_arguments_are_refused_before_any_call(
    extra: dict[Any, Any], s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ImageStore("aws_default", extra)
    asked: list[str] = []
    store.client.meta.events.register("before-call.s3", lambda model, **_: asked.append(model.name))
    with pytest.raises(IdeogramInvalidInput, match="s3_extra_args: "):
        store.find(Target(s3_bucket, "cat"))
    assert asked == []


@pytest.mark.parametrize("extra", [{"profile_name": "no-such-profile"}, {"endpoint_url": "no url"}], ids=str)
def test_connection_without_a_client_is_a_storage_error(extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_ODD", json.dumps({"conn_type": "aws", "extra": extra}))
    with pytest.raises(IdeogramStorageError, match=r"AWS connection 'aws_odd' gives no S3 client.*Nothing was charged"):
        ImageStore("aws_odd").find(Target("bucket", "cat.png"))


@pytest.mark.parametrize("key", ["cat.png", "cats/"])
def test_missing_bucket_is_an_error_not_a_missing_key(key: str, s3: Any) -> None:
    with pytest.raises(IdeogramStorageError, match=r"Bucket 'no-such-bucket' does not exist\. Nothing was charged"):
        ImageStore("aws_default").find(Target("no-such-bucket", key))


def test_prefix_never_has_an_object_of_its_own(s3: Any, s3_bucket: str) -> None:
    s3.put_object(Bucket=s3_bucket, Key="cats/", Body=b"")
    assert ImageStore("aws_default").find(Target(s3_bucket, "cats/")) is None


@pytest.mark.parametrize("status", [403, 503])
def test_target_that_cannot_be_read_is_an_error(status: int, s3_bucket: str) -> None:
    store = ImageStore("aws_default")
    with (
        mock.patch("botocore.endpoint.time"),
        answered(store.client, "HeadObject", status),
        pytest.raises(IdeogramStorageError, match="Nothing was charged") as caught,
    ):
        store.find(Target(s3_bucket, "cat"))
    assert caught.value.status_code == status
    assert caught.value.retryable == (status != 403)


def test_failed_upload_says_that_the_image_is_paid(s3: Any) -> None:
    with pytest.raises(IdeogramStorageError, match=r"Writing s3://no-such-bucket/cat failed.*r-1 is completed"):
        ImageStore("aws_default").put(JOB, _image(), Target("no-such-bucket", "cat"), Completion())


def test_unreachable_server_is_a_storage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {
        "endpoint_url": "http://127.0.0.1:1",
        "region_name": "us-east-1",
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1},
    }
    connection = {"conn_type": "aws", "login": "x", "password": "x", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    with pytest.raises(IdeogramStorageError, match=r"Could not connect.*Nothing was charged"):
        ImageStore("aws_default").find(Target("my-bucket", "cat"))


PHOTO = photo("WEBP", (600, 300))


def _photo() -> SpooledImage:
    return SpooledImage(io.BytesIO(PHOTO), len(PHOTO), hashlib.sha256(PHOTO).digest(), "image/webp", "webp", 600, 300)


def test_thumbnail_is_stored_after_its_image(s3: Any, s3_bucket: str) -> None:
    store = ImageStore("aws_default", {"StorageClass": "STANDARD_IA"}, "_ideogram/")
    written: list[str] = []
    store.client.meta.events.register(
        "before-call.s3.PutObject", lambda params, **_: written.append(params["url_path"])
    )
    store.put(JOB, _photo(), Target(s3_bucket, "cat.webp"), Completion())
    key = thumbnail_of(store.find(Target(s3_bucket, "cat.webp")) or {}) or ""
    assert written == ["/cat.webp", f"/{key}"]
    thumbnail = s3.get_object(Bucket=s3_bucket, Key=key)
    assert thumbnail["ContentType"] == "image/webp"
    assert "StorageClass" not in thumbnail
    assert made_by(thumbnail) == "r-1"
    assert Image.open(thumbnail["Body"]).size == (512, 256)


def test_thumbnails_can_be_switched_off(s3: Any, s3_bucket: str) -> None:
    store = ImageStore("aws_default")
    store.put(JOB, _photo(), Target(s3_bucket, "cat.webp"), Completion())
    assert thumbnail_of(store.find(Target(s3_bucket, "cat.webp")) or {}) is None
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=s3_bucket)["Contents"]] == ["cat.webp"]


def test_image_without_a_thumbnail_is_stored(s3: Any, s3_bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    store = ImageStore("aws_default", None, "_ideogram/")
    record = store.put(JOB, _image(), Target(s3_bucket, "cat.webp"), Completion())
    assert record.request_id == "r-1"
    assert "r-1 is stored without a thumbnail" in caplog.text
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=s3_bucket)["Contents"]] == ["cat.webp"]


def test_refused_thumbnail_is_not_tried_again(s3_bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    store = ImageStore("aws_default", None, "_ideogram/")
    refused = IdeogramStorageRefused("AccessDenied", "")
    put, calls = store.objects.put, []

    def refuse(bucket: str, key: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(key)
        if key.startswith("_ideogram/"):
            raise refused
        return put(bucket, key, *args, **kwargs)

    with mock.patch.object(store.objects, "put", refuse):
        for number in range(2):
            store.put(JOB, _photo(), Target(s3_bucket, f"{number}.webp"), Completion())
    assert [key.partition("/")[0] for key in calls] == ["0.webp", "_ideogram", "1.webp"]
    assert caplog.text.count("No thumbnails are stored") == 1
