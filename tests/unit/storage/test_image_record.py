from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.hooks.image import SpooledImage
from airflow_provider_ideogram.jobs.identity import attempt_group
from airflow_provider_ideogram.storage.image_record import ImageRecord, iso_utc, made_by, made_from, metadata_of
from airflow_provider_ideogram.storage.target import OWN_METADATA_BYTES, Target

ASKED = GenerationRequest("a cat \u2013 猫", "OFF", "1024x768", "ANIME")
JOB = Job("r-1", 1795392000.0, replace(ASKED, seed=42), ASKED.fingerprint, "s3://bucket/cat.png")
IMAGE = SpooledImage(io.BytesIO(), 1234, bytes(range(32)), "image/png", "png", 1024, 768)
FACTS = {"inference_seconds": 13.06, "completed_at": 1795392014.5}
TARGET = Target("bucket", "cat.png")

# Downstream tasks rely on these, in the order in which people read them.
XCOM = {
    "uri": "s3://bucket/cat.png",
    "bucket": "bucket",
    "key": "cat.png",
    "etag": "abc",
    "version_id": "v1",
    "content_type": "image/png",
    "size_bytes": 1234,
    "width": 1024,
    "height": 768,
    "sha256": bytes(range(32)).hex(),
    "request_id": "r-1",
    "model": "ideogram-2a-txt-2-img",
    "prompt": "a cat \u2013 猫",
    "magic_prompt_option": "OFF",
    "resolution": "RESOLUTION_1024_768",
    "style_type": "ANIME",
    "seed": 42,
    "inference_seconds": 13.06,
    "cost_usd": 0.05,
    "reused": False,
    "submitted_at": "2026-11-23T00:00:00.000+00:00",
    "completed_at": "2026-11-23T00:00:14.500+00:00",
}


def _head(metadata: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"ETag": '"abc"', "VersionId": "v1", "ContentType": "image/png", "ContentLength": 1234, **more} | {
        "Metadata": metadata
    }


def _of_upload(job: Job = JOB, facts: dict[str, Any] = FACTS) -> dict[str, Any]:
    return ImageRecord.of_upload(job, IMAGE, TARGET, {"ETag": '"abc"', "VersionId": "v1"}, facts).to_xcom()


def test_xcom_is_exactly_what_was_promised() -> None:
    xcom = _of_upload()
    assert xcom == XCOM
    assert list(xcom) == list(XCOM)
    assert json.loads(json.dumps(xcom)) == XCOM


def test_what_is_not_known_is_null() -> None:
    answer: dict[str, Any] = {}
    job = replace(JOB, request=replace(JOB.request, model="ideogram-3"))
    xcom = ImageRecord.of_upload(job, IMAGE, TARGET, answer, {}).to_xcom()
    unknown = {name for name, value in xcom.items() if value is None}
    assert unknown == {"etag", "version_id", "inference_seconds", "completed_at", "cost_usd"}


def test_image_that_another_task_paid_costs_nothing() -> None:
    assert _of_upload(replace(JOB, paid_by_other_task=True)) == {**XCOM, "cost_usd": 0.0, "reused": True}


def test_metadata_is_plain_and_small() -> None:
    metadata = metadata_of(JOB, IMAGE, FACTS)
    assert all(text.isascii() and text.isprintable() for pair in metadata.items() for text in pair)
    assert all(name.startswith("ideogram-") for name in metadata)
    assert sum(len(name) + len(value) for name, value in metadata.items()) < 1024
    assert {"ideogram-inference-seconds", "ideogram-completed-at"} == set(metadata) - set(metadata_of(JOB, IMAGE, {}))


def test_reused_image_is_described_as_the_one_that_was_made() -> None:
    record = ImageRecord.of_object(TARGET, _head(metadata_of(JOB, IMAGE, FACTS)), ASKED)
    assert record.to_xcom() == {**XCOM, "cost_usd": 0.0, "reused": True}
    assert list(record.to_xcom()) == list(XCOM)


def test_own_image_of_an_earlier_attempt_is_described_as_made_now() -> None:
    assert ImageRecord.of_object(TARGET, _head(metadata_of(JOB, IMAGE, FACTS)), ASKED, own=True).to_xcom() == XCOM


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"title": "a cat", "ideogram-width": "wide", "ideogram-height": "", "ideogram-seed": "4.2"},
        {"ideogram-inference-seconds": "long", "ideogram-model": "another"},
    ],
)
def test_metadata_that_somebody_changed_tells_nothing(metadata: dict[str, str]) -> None:
    head = {"ContentLength": 7, "Metadata": metadata}
    xcom = ImageRecord.of_object(TARGET, head, ASKED).to_xcom()
    assert list(xcom) == list(XCOM)
    from_metadata = ("width", "height", "seed", "inference_seconds", "sha256", "request_id", "submitted_at")
    assert {xcom[name] for name in (*from_metadata, "etag", "content_type")} == {None}
    assert (xcom["model"], xcom["size_bytes"], xcom["prompt"]) == (ASKED.model, 7, ASKED.prompt)


def test_object_says_what_made_it() -> None:
    head = _head(metadata_of(JOB, IMAGE, FACTS))
    assert made_by(head) == "r-1"
    assert made_from(head, ASKED)
    assert not made_from(head, replace(ASKED, prompt="a dog"))
    for foreign in ({}, {"Metadata": {"a": "b"}}):
        assert made_by(foreign) is None
        assert not made_from(foreign, ASKED)


def test_time_is_utc_to_the_millisecond() -> None:
    assert iso_utc(1795392000.0004) == "2026-11-23T00:00:00.000+00:00"


def test_metadata_leaves_the_users_what_was_reserved() -> None:
    request = replace(ASKED, seed=2**31 - 1, model="m" * 128)
    job = Job("r" * 128, JOB.submitted_at, request, request.fingerprint, "", attempt_group=attempt_group("me", 1))
    image = replace(IMAGE, width=10**5, height=10**5)
    metadata = metadata_of(job, image, {**FACTS, "inference_seconds": -1.2345678901234567e-100})
    assert len("".join(name + value for name, value in metadata.items()).encode()) <= OWN_METADATA_BYTES
