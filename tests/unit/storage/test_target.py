from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.jobs.ledger import Ledger
from airflow_provider_ideogram.storage.target import (
    MAX_LEDGER_PREFIX_BYTES,
    Target,
    check_bucket,
    check_extra_args,
    check_key,
    check_ledger_prefix,
)
from tests.support.s3 import NO_S3


@pytest.mark.parametrize(
    ("key", "bucket", "target"),
    [
        ("a/cat.png", "my-bucket", Target("my-bucket", "a/cat.png")),
        ("a/", "my-bucket", Target("my-bucket", "a/")),
        ("s3://my-bucket/a/cat.png", None, Target("my-bucket", "a/cat.png")),
        ("s3://my-bucket/a/", None, Target("my-bucket", "a/")),
        ("s3://my-bucket/a//b", None, Target("my-bucket", "a//b")),
        ("ä ö/猫.png", "My_Bucket.1", Target("My_Bucket.1", "ä ö/猫.png")),
        ("ä" * 477, "my-bucket", Target("my-bucket", "ä" * 477)),
        ("ä" * 440 + "/", "my-bucket", Target("my-bucket", "ä" * 440 + "/")),
        ("s3://my-bucket/a://b c", None, Target("my-bucket", "a://b c")),
        ("..a/.b/c..", "my-bucket", Target("my-bucket", "..a/.b/c..")),
    ],
)
def test_valid_address_is_parsed(key: str, bucket: str | None, target: Target) -> None:
    assert Target.parse(key, bucket) == target
    assert Target.parse(target.uri) == target


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:s3:eu-central-1:123456788112:accesspoint/my-point",
        "arn:aws-cn:s3:cn-north-1:123456788112:accesspoint:my-point",
        "arn:aws:s3::123456788112:accesspoint/mfzwi23gnjvgw.mrap",
        "arn:aws:s3-object-lambda:eu-central-1:123456788112:accesspoint/my-point",
        "arn:aws:s3-outposts:eu-central-1:123456788112:outpost/op-01/accesspoint/my-point",
    ],
)
@pytest.mark.parametrize("key", ["cat.png", "a/cat.png", "a/", "accesspoint/my-point"])
def test_access_point_is_a_bucket(arn: str, key: str) -> None:
    target = Target.parse(key, arn)
    assert target == Target(arn, key)
    assert Target.parse(target.uri) == target


@pytest.mark.parametrize("key", ["a" * 955, "a" * 881 + "/"])
def test_longest_key_leaves_room_for_the_ledger(key: str) -> None:
    target = Target.parse(key, "my-bucket")
    prefix = "p" * MAX_LEDGER_PREFIX_BYTES
    assert check_ledger_prefix(prefix) == []
    record = Ledger(NO_S3, "my-bucket", prefix).key_of(target, "owner")
    image = target.named("r" * 128, "webp", "f" * 32).key
    assert max(len(record), len(image)) == 1024


@pytest.mark.parametrize("prefix", [None, 7, "a\nb", "\ud800", "ä" * 33])
def test_invalid_ledger_prefix_is_refused(prefix: Any) -> None:
    (problem,) = check_ledger_prefix(prefix)
    assert problem.startswith("ledger_prefix: ")


@pytest.mark.parametrize(
    ("key", "bucket", "text"),
    [
        ("", "my-bucket", "must be a key or an address s3://bucket/key"),
        (" ", None, "must be a key or an address"),
        (None, "my-bucket", "must be a key or an address"),
        ("cat.png", None, "'cat.png' names no bucket"),
        ("s3://my-bucket", None, "is not of the form s3://bucket/key"),
        ("s3://my-bucket/", None, "is not of the form s3://bucket/key"),
        ("s3:///cat.png", None, "is not of the form s3://bucket/key"),
        ("s3://-/cat.png", None, "is not of the form s3://bucket/key"),
        ("https://my-bucket/cat.png", None, "is not of the form s3://bucket/key"),
        ("s3://my-bucket/cat.png", "my-bucket", "give s3_bucket or a full s3:// address, not both"),
        ("a\ncat.png", "my-bucket", "must be printable"),
        ("\ud800", "my-bucket", "must be printable"),
        ("ä" * 478, "my-bucket", "at most 955 bytes long"),
        ("s3://my-bucket/" + "a" * 956, None, "at most 955 bytes long"),
        ("a" * 882 + "/", "my-bucket", "at most 882 bytes long"),
        ("s3://arn:aws:s3:::my-bucket/cat.png", None, "is not of the form s3://bucket/key"),
        ("cat.png", "arn:aws:s3:::my-bucket/a", "is not a bucket's name"),
        ("/cat.png", "my-bucket", "starts with '/' or holds '.' or '..'"),
        ("s3://my-bucket//cat.png", None, "starts with '/'"),
        ("a/../cat.png", "my-bucket", "holds '.' or '..'"),
        ("a/./cat.png", "my-bucket", "holds '.' or '..'"),
        ("a\\..\\cat.png", "my-bucket", "holds '.' or '..'"),
        ("cat.png", "", "s3_bucket: '' is not a bucket's name"),
        ("cat.png", "a bucket", "is not a bucket's name"),
        ("cat.png", 7, "s3_bucket: 7 is not a bucket's name"),
    ],
)
def test_invalid_address_is_refused(key: Any, bucket: Any, text: str) -> None:
    with pytest.raises(IdeogramInvalidInput) as caught:
        Target.parse(key, bucket)
    assert text in str(caught.value)
    assert text in "\n".join([*check_key(key, bucket is not None), *check_bucket(bucket)])


def test_all_problems_are_in_one_message() -> None:
    with pytest.raises(IdeogramInvalidInput, match=r"(?s)not both.*starts with '/'.*s3_bucket: ''"):
        Target.parse("s3://my-bucket//x", "")


def test_image_below_a_prefix_is_named_after_its_request() -> None:
    group = "0123456789abcdef"
    assert Target("b1", "a/").named("r-1", "jpg", group) == Target("b1", "a/01234567-r-1.jpg")
    assert Target("b1", "a/").named("r-1", "jpg", "") == Target("b1", "a/r-1.jpg")
    assert Target("b1", "a/cat.png").named("r-1", "jpg", group) == Target("b1", "a/cat.png")
    assert [Target("b1", key).is_prefix for key in ("a/", "a/cat.png")] == [True, False]


@pytest.mark.parametrize(
    "extra_args",
    [
        None,
        {},
        {"ServerSideEncryption": "AES256", "Metadata": {"a": "b"}},
        {"Metadata": {"a-b_c.1": "a b", "b": "x" * (868 - len("a-b_c.1a bb"))}},
        {"Metadata": {"left to": 7}},
        {"Metadata": None},
    ],
)
def test_valid_extra_args_have_no_problems(extra_args: Any) -> None:
    assert check_extra_args(extra_args) == []


@pytest.mark.parametrize(
    ("extra_args", "text"),
    [
        ({7: "private"}, "must be text"),
        (["ACL"], "must be a mapping of put_object's arguments"),
        ("ACL", "must be a mapping"),
        (
            {"Key": "x", "ACL": "private", "Body": b"", "ChecksumSHA256": "x"},
            "Body, ChecksumSHA256, Key are decided by the provider",
        ),
        ({"IfNoneMatch": "*"}, "IfNoneMatch are decided"),
        ({"ContentType": "text/html"}, "ContentType are decided"),
        ({"SSECustomerKey": "x" * 32, "SSECustomerAlgorithm": "AES256"}, "SSECustomerAlgorithm, SSECustomerKey would"),
        ({"Metadata": {"title": "M\u00fcller"}}, "Metadata 'title' is not of printable ASCII"),
        ({"Metadata": {"title": "a\r\nb"}}, "Metadata 'title' is not of printable ASCII"),
        ({"Metadata": {"a title": "b"}}, "Metadata 'a title' is not of printable ASCII"),
        ({"Metadata": {"": "b"}}, "Metadata '' is not of printable ASCII"),
        ({"Metadata": {"a": "x" * 868}}, "Metadata has 869 bytes; at most 868 are possible"),
    ],
)
def test_invalid_extra_args_are_refused(extra_args: Any, text: str) -> None:
    (problem,) = check_extra_args(extra_args)
    assert problem.startswith("s3_extra_args: ")
    assert text in problem
