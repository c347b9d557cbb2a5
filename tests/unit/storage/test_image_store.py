from __future__ import annotations

import base64
import hashlib
import io
import json
import time
from dataclasses import replace
from typing import Any

import botocore.exceptions
import pytest

from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramStorageError
from airflow_provider_ideogram.hooks.image import SpooledImage
from airflow_provider_ideogram.storage.image_record import made_by, made_from
from airflow_provider_ideogram.storage.image_store import ImageStore
from airflow_provider_ideogram.storage.target import Target

ASKED = GenerationRequest("a cat", seed=42)
JOB = Job("r-1", 1795392000.0, ASKED, ASKED.fingerprint, "")
DATA = b"as good as an image"


def _image() -> SpooledImage:
    return SpooledImage(io.BytesIO(DATA), len(DATA), hashlib.sha256(DATA).digest(), "image/webp", "webp", 3, 2)


def _client_error(status: int, code: str = "Odd") -> botocore.exceptions.ClientError:
    answer = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(answer, "HeadObject")  # type: ignore[arg-type]


def test_image_is_stored_and_found_again(s3: Any, s3_bucket: str) -> None:
    target = Target(s3_bucket, "a/cat.webp")
    store = ImageStore("aws_default")
    assert store.find(target) is None
    record = store.put(JOB, _image(), target, {"inference_seconds": 13.06})
    stored = s3.get_object(Bucket=s3_bucket, Key="a/cat.webp", ChecksumMode="ENABLED")
    assert stored["Body"].read() == DATA
    assert stored["ContentType"] == record.content_type == "image/webp"
    assert stored["ETag"] == f'"{record.etag}"'
    assert record.uri == f"s3://{s3_bucket}/a/cat.webp"
    found = store.find(target)
    assert found is not None
    assert made_by(found) == "r-1"
    assert made_from(found, ASKED)


def test_object_below_a_prefix_is_found_by_what_s3_says_of_it(s3_bucket: str) -> None:
    store = ImageStore("aws_default")
    for key in ("a/one", "a/two", "a/b/three", "c/four"):
        store.put(replace(JOB, request_id=f"r-{key[-3:]}"), _image(), Target(s3_bucket, key), {})

    def find(request_id: str, since: float = 0.0) -> tuple[Target, Any] | None:
        return store.find_in_prefix(Target(s3_bucket, "a/"), since, lambda head: made_by(head) == request_id)

    target, head = find("r-two") or (None, {})
    assert target == Target(s3_bucket, "a/two")
    assert made_by(head) == "r-two"
    assert [find("r-ree"), find("r-our"), find("r-two", since=time.time() + 60)] == [None, None, None]


def test_s3_compares_the_bytes_with_their_hash(s3_bucket: str) -> None:
    store = ImageStore("aws_default")
    sent: list[dict[str, str]] = []
    store.client.meta.events.register(
        "before-send.s3.PutObject", lambda request, **_: sent.append(dict(request.headers))
    )
    store.put(JOB, _image(), Target(s3_bucket, "cat"), {})
    (headers,) = sent
    checksum = base64.b64encode(hashlib.sha256(DATA).digest())
    assert headers["x-amz-checksum-sha256"] in (checksum, checksum.decode())
    assert headers["Content-Length"] in (str(len(DATA)), str(len(DATA)).encode())


def test_users_arguments_and_metadata_go_with_ours(s3: Any, s3_bucket: str) -> None:
    extra = {
        "StorageClass": "STANDARD_IA",
        "Metadata": {"title": "cat", "ideogram-request-id": "forged"},
        "Tagging": "team=art",
        "CacheControl": "no-store",
    }
    ImageStore("aws_default", extra).put(JOB, _image(), Target(s3_bucket, "cat"), {})
    head = s3.head_object(Bucket=s3_bucket, Key="cat")
    assert (head["StorageClass"], head["CacheControl"], head["Metadata"]["title"]) == ("STANDARD_IA", "no-store", "cat")
    assert made_by(head) == "r-1"
    assert s3.get_object_tagging(Bucket=s3_bucket, Key="cat")["TagSet"] == [{"Key": "team", "Value": "art"}]


def test_copy_is_kept_as_the_user_wants_images_to_be_kept(s3: Any, s3_bucket: str) -> None:
    source, target = Target(s3_bucket, "cat"), Target(s3_bucket, "same cat")
    ImageStore("aws_default", {"Metadata": {"title": "cat"}, "Tagging": "team=old"}).put(JOB, _image(), source, {})
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
def test_arguments_that_botocore_would_refuse_later_are_refused_first(
    extra: dict[Any, Any], s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ImageStore("aws_default", extra)
    asked: list[str] = []
    store.client.meta.events.register("before-call.s3", lambda model, **_: asked.append(model.name))
    with pytest.raises(IdeogramInvalidInput, match="s3_extra_args: "):
        store.find(Target(s3_bucket, "cat"))
    assert asked == []


@pytest.mark.parametrize("extra", [{"profile_name": "no-such-profile"}, {"endpoint_url": "no url"}], ids=str)
def test_connection_that_gives_no_client_is_a_storage_error(
    extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_ODD", json.dumps({"conn_type": "aws", "extra": extra}))
    with pytest.raises(IdeogramStorageError, match=r"AWS connection 'aws_odd' gives no S3 client.*Nothing was charged"):
        ImageStore("aws_odd").find(Target("bucket", "cat.png"))


@pytest.mark.parametrize("key", ["cat.png", "cats/"])
def test_missing_bucket_is_told_from_a_missing_key(key: str, s3: Any) -> None:
    with pytest.raises(
        IdeogramStorageError, match=r"Looking for the bucket of s3://no-such-bucket/.*Nothing was charged"
    ):
        ImageStore("aws_default").find(Target("no-such-bucket", key))


def test_prefix_holds_nothing_that_could_be_found(s3: Any, s3_bucket: str) -> None:
    s3.put_object(Bucket=s3_bucket, Key="cats/", Body=b"")
    assert ImageStore("aws_default").find(Target(s3_bucket, "cats/")) is None


@pytest.mark.parametrize(
    "error",
    [_client_error(403), _client_error(503), botocore.exceptions.ReadTimeoutError(endpoint_url="http://x")],
    ids=str,
)
def test_object_that_cannot_be_looked_at_is_no_missing_object(
    error: Exception, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise error

    store = ImageStore("aws_default")
    monkeypatch.setattr(store.client, "head_object", fail)
    with pytest.raises(IdeogramStorageError, match="Nothing was charged") as caught:
        store.find(Target(s3_bucket, "cat"))
    assert caught.value.__cause__ is error
    assert caught.value.retryable


def test_upload_that_fails_says_that_the_image_is_paid(s3: Any) -> None:
    with pytest.raises(IdeogramStorageError, match=r"Storing s3://no-such-bucket/cat failed.*r-1 is completed"):
        ImageStore("aws_default").put(JOB, _image(), Target("no-such-bucket", "cat"), {})


def test_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {
        "endpoint_url": "http://127.0.0.1:1",
        "region_name": "us-east-1",
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1},
    }
    connection = {"conn_type": "aws", "login": "x", "password": "x", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    with pytest.raises(IdeogramStorageError, match=r"Could not connect.*Nothing was charged"):
        ImageStore("aws_default").find(Target("my-bucket", "cat"))
