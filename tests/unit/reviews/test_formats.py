"""What a review stores today is read by a later version; see ``tests/unit/test_formats.py``."""

from __future__ import annotations

import json

from airflow_provider_ideogram.reviews.images import approved_images, read_images, redo_rows
from airflow_provider_ideogram.reviews.review import Review
from airflow_provider_ideogram.reviews.trigger import IdeogramReviewTrigger
from tests.support.s3 import NO_S3
from tests.unit.reviews.examples import at, entry, image, review
from tests.unit.test_formats import check_written, every_version, read, read_lines

_REVIEW = review(
    "request-1",
    "request-2",
    write_args={"ServerSideEncryption": "AES256"},
    finished_by="alice",
    closed_at=at(60),
    entries=[entry("request-1", "approve"), entry("request-2", "redo", "bluer", by="bob")],
)
_LINES = read_images([image(1), image(2, id="cat", fingerprint="f", model_params={"palette": ["warm"]})], NO_S3)


def test_review_is_written_as_before() -> None:
    check_written("review.json", json.dumps(_REVIEW.to_json()))


def test_images_are_written_as_before() -> None:
    check_written("review-images.jsonl", "".join(json.dumps(line) + "\n" for line in _LINES))


def test_deferral_is_written_as_before() -> None:
    trigger = IdeogramReviewTrigger(bucket="b", prefix="_ideogram/.reviews/0123/", deadline=at(60), aws_conn_id="aws")
    path, arguments = trigger.serialize()
    check_written("trigger-review.json", json.dumps({"classpath": path, "kwargs": arguments}))


@every_version
def test_review_of_every_version_has_its_result(version: str) -> None:
    found, lines = Review.from_json(read(version, "review.json")), read_lines(version, "review-images.jsonl")
    assert found == _REVIEW
    assert approved_images(lines, found.decisions()) == approved_images(_LINES, _REVIEW.decisions())
    assert redo_rows(lines, found.decisions()) == redo_rows(_LINES, _REVIEW.decisions())


@every_version
def test_deferral_of_every_version_makes_the_trigger_again(version: str) -> None:
    stored = read(version, "trigger-review.json")
    path, arguments = IdeogramReviewTrigger(**stored["kwargs"]).serialize()
    assert {"classpath": path, "kwargs": arguments} == stored
