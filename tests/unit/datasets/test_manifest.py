from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.datasets.earlier_images import EarlierImages
from airflow_provider_ideogram.datasets.manifest import failed_line
from airflow_provider_ideogram.datasets.rows import Item
from airflow_provider_ideogram.datasets.state import UnsettledRequest
from airflow_provider_ideogram.exceptions import IdeogramError
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REQUEST = GenerationRequest("a cat", seed=7)
ITEM = Item(0, "cat", REQUEST, "day/cat")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'"generated"',
        b"[]",
        b"null",
        b'{"status": "generated"}',
        b'{"status": "generated", "key": 7}',
        b'{"status": "generated", "key": null}',
        b'{"status": ["generated"], "key": "day/cat"}',
        b'{"status": "generated", "key": "\\ud800"}',
    ],
)
def test_line_that_is_none_of_ours_is_passed_over(line: bytes, s3: S3Client, s3_bucket: str) -> None:
    etag = s3.put_object(Bucket=s3_bucket, Key="day/cat", Body=b"an image")["ETag"].strip('"')
    ours = {"status": "generated", "bucket": s3_bucket, "key": "day/cat", "etag": etag}
    ours["fingerprint"] = REQUEST.fingerprint
    body = line + b"\n" + json.dumps(ours).encode() + b"\n"
    s3.put_object(Bucket=s3_bucket, Key="day/manifest.jsonl", Body=body)

    with closing(EarlierImages(ObjectStore(s3), Target(s3_bucket, "day/"), "_ideogram/day/", "own/")) as earlier:
        found = earlier.line_of(ITEM, None)

    assert found is not None
    assert (found["status"], found["cost_usd"]) == ("reused", 0.0)


def test_line_of_another_run_is_none_of_a_run_that_has_one(s3: S3Client, s3_bucket: str) -> None:
    etag = s3.put_object(Bucket=s3_bucket, Key="day/cat", Body=b"an image")["ETag"].strip('"')
    facts = {"bucket": s3_bucket, "key": "day/cat", "etag": etag, "fingerprint": REQUEST.fingerprint}
    others = {**facts, "status": "generated", "request_id": "r-1", "cost_usd": 0.05}
    own = {**others, "status": "reused", "cost_usd": 0.0}
    for key, line in (("day/manifest.jsonl", own), ("_ideogram/day/other/part-1.jsonl", others)):
        s3.put_object(Bucket=s3_bucket, Key=key, Body=json.dumps(line).encode() + b"\n")
    where = ObjectStore(s3), Target(s3_bucket, "day/"), "_ideogram/day/", "_ideogram/day/own/part-1"

    with closing(EarlierImages(*where, owns_manifest=True)) as earlier:
        found = earlier.line_of(ITEM, None)
    assert found is not None
    assert (found["status"], found["cost_usd"]) == ("reused", 0.0)

    # What the run itself paid is known by its request, not by the line of another run.
    with closing(EarlierImages(*where)) as earlier:
        assert earlier.line_of(ITEM, UnsettledRequest("r-1", 0.0, 0.05, REQUEST.fingerprint)) is None


@pytest.mark.parametrize(
    "prompt", ["=cmd|' /C calc'!A1", "+1+1", "-1", "@SUM(1)", "\tx", '=HYPERLINK("http://evil.example")']
)
def test_prompt_is_in_the_manifest_as_it_was_sent(prompt: str) -> None:
    """Text that a spreadsheet reads as a formula is not changed: the manifest is JSON."""
    line = failed_line(Item(0, "=1+1", GenerationRequest(prompt), "day/=1+1"), IdeogramError("no"), 0.0)
    assert (line["prompt"], line["id"], line["key"]) == (prompt, "=1+1", "day/=1+1")
