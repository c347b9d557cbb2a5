from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.datasets.key_template import check_key_template
from airflow_provider_ideogram.datasets.rows import RowChecker
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramStorageError
from airflow_provider_ideogram.reviews import images
from airflow_provider_ideogram.reviews.images import approved_images, read_images, redo_rows
from airflow_provider_ideogram.storage.image_record import ImageRecord
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target
from tests.support.s3 import NO_S3
from tests.unit.reviews.examples import entry, image

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MANY: list[Any] = [image(1), [image(2, reused=True)], None, {"request_id": "submitted only"}]


def test_images_are_those_that_are_stored() -> None:
    lines = read_images(_MANY, NO_S3)
    assert [(line["row"], line["id"], line["status"], line["request_id"]) for line in lines] == [
        (0, "cats-1", "generated", "request-1"),
        (1, "cats-2", "reused", "request-2"),
    ]


def test_rows_of_a_manifest_without_an_image_are_left_out(client: S3Client, bucket: str) -> None:
    rows = [
        {"row": 0, "id": "cat", "status": "generated", "fingerprint": "f", **image(1)},
        {"row": 1, "id": "dog", "status": "failed", "fingerprint": "g", **image(2, bucket=None)},
    ]
    client.put_object(Bucket=bucket, Key="cats/manifest.jsonl", Body="\n".join(map(json.dumps, rows)).encode())
    result = {"manifest_uri": f"s3://{bucket}/cats/manifest.jsonl", "total": 2}
    lines = read_images([result], ObjectStore(client))
    assert [(line["id"], line["fingerprint"]) for line in lines] == [("cat", "f")]
    with pytest.raises(IdeogramStorageError):
        read_images({"manifest_uri": f"s3://{bucket}/gone.jsonl"}, ObjectStore(client))


@pytest.mark.parametrize("value", [None, 7, "s3://bucket/cat.png", {"uri": "s3://bucket/cat.png"}, ["a"], [[7]]])
def test_anything_else_is_an_error(value: Any) -> None:
    with pytest.raises(IdeogramInvalidInput, match="images: must be what"):
        read_images(value, NO_S3)


def test_number_of_images_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_IMAGES", 2)
    with pytest.raises(IdeogramInvalidInput, match="more than 2"):
        read_images([image(number) for number in range(3)], NO_S3)


def test_approved_images_are_described_as_elsewhere() -> None:
    lines = read_images([image(1), image(2), image(3)], NO_S3)
    decisions = {f"request-{number}": entry("x", said) for number, said in ((1, "approve"), (2, "reject"))}
    [approved] = approved_images(lines, decisions)
    assert list(approved) == [field.name for field in fields(ImageRecord)]
    assert approved["uri"] == "s3://bucket/cats/1.png"


def test_image_to_make_again_is_a_row_of_a_dataset() -> None:
    lines = read_images([image(1), image(2, key="cats/other/1.png"), image(3)], NO_S3)
    decisions = {line["request_id"]: entry("x", "redo", "bluer") for line in lines}
    decisions["request-3"] = entry("x", "approve")
    rows = redo_rows(lines, decisions)
    assert rows == redo_rows(lines, decisions)  # the same seeds whenever it is asked for: paid once
    assert len({row["seed"] for row in rows} | {1, 2}) == 4
    assert Counter(row["note"] for row in rows) == {"bluer": 2}
    assert check_key_template("{id}") == []
    checker = RowChecker({}, Target("bucket", "redo/"), "{id}")
    items = list(checker.items((str(number), row) for number, row in enumerate(rows)))
    checker.raise_for_bad_rows(len(rows))
    assert [item.request.seed for item in items] == [row["seed"] for row in rows]
    assert {item.request.prompt for item in items} == {"cat 1", "cat 2"}
