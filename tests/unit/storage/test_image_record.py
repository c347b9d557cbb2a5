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
from airflow_provider_ideogram.storage.image_record import (
    Completion,
    ImageRecord,
    iso_utc,
    made_by,
    made_from,
    metadata_of,
    paid_by_group,
    thumbnail_of,
    thumbnail_pointer,
)
from airflow_provider_ideogram.storage.target import MAX_LEDGER_PREFIX_BYTES, OWN_METADATA_BYTES, Target
from airflow_provider_ideogram.storage.thumbnail import thumbnail_key

ASKED = GenerationRequest("a cat \u2013 猫", "OFF", "1024x768", "ANIME")
SENT = replace(ASKED, seed=42)
JOB = Job("r-1", 1795392000.0, SENT, ASKED.fingerprint, "s3://bucket/cat.png")
IMAGE = SpooledImage(io.BytesIO(), 1234, bytes(range(32)), "image/png", "png", 1024, 768, "xmp")
COMPLETION = Completion(completed_at=1795392014.5, inference_seconds=13.06, cost_usd=0.0512)
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
    "cost_usd": 0.0512,
    "original_cost_usd": 0.0512,
    "cost_is_estimate": False,
    "reused": False,
    "submitted_at": "2026-11-23T00:00:00.000+00:00",
    "completed_at": "2026-11-23T00:00:14.500+00:00",
    "provenance": "xmp",
}


def _head(metadata: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"ETag": '"abc"', "VersionId": "v1", "ContentType": "image/png", "ContentLength": 1234, **more} | {
        "Metadata": metadata
    }


def _of_upload(job: Job = JOB, completion: Completion = COMPLETION) -> dict[str, Any]:
    return ImageRecord.of_upload(job, IMAGE, TARGET, {"ETag": '"abc"', "VersionId": "v1"}, completion).to_xcom()


def test_xcom_has_exactly_the_documented_keys() -> None:
    xcom = _of_upload()
    assert xcom == XCOM
    assert list(xcom) == list(XCOM)
    assert json.loads(json.dumps(xcom)) == XCOM


def test_unknown_fields_are_null() -> None:
    job = replace(JOB, request=replace(SENT, model="a-new-model"))
    xcom = ImageRecord.of_upload(job, IMAGE, TARGET, {}, Completion()).to_xcom()
    unknown = {name for name, value in xcom.items() if value is None}
    assert unknown == {
        "etag",
        "version_id",
        "inference_seconds",
        "completed_at",
        "cost_usd",
        "original_cost_usd",
    }
    assert xcom["cost_is_estimate"] is False


@pytest.mark.parametrize(("model", "price"), [(SENT.model, 0.05), ("ideogram-3", 0.065)])
def test_unknown_cost_is_estimated_by_the_list_price(model: str, price: float) -> None:
    job = replace(JOB, request=replace(SENT, model=model))
    xcom = _of_upload(job, replace(COMPLETION, cost_usd=None))
    assert (xcom["cost_usd"], xcom["original_cost_usd"], xcom["cost_is_estimate"]) == (price, price, True)


def test_free_image_is_not_estimated() -> None:
    xcom = _of_upload(completion=replace(COMPLETION, cost_usd=0.0))
    assert (xcom["cost_usd"], xcom["original_cost_usd"], xcom["cost_is_estimate"]) == (0.0, 0.0, False)


def test_image_that_another_task_paid_costs_nothing() -> None:
    assert _of_upload(replace(JOB, paid_by_other_task=True)) == {**XCOM, "cost_usd": 0.0, "reused": True}


def test_request_with_unknown_inputs_is_described_without_them() -> None:
    xcom = _of_upload(replace(JOB, request=None))
    unknown = {"model", "prompt", "magic_prompt_option", "resolution", "style_type", "seed"}
    assert xcom == XCOM | dict.fromkeys(unknown)


def test_metadata_is_plain_and_small() -> None:
    metadata = metadata_of(JOB, IMAGE, COMPLETION)
    assert all(text.isascii() and text.isprintable() for pair in metadata.items() for text in pair)
    assert all(name.startswith("ideogram-") and name == name.lower() for name in metadata)
    assert sum(len(name) + len(value) for name, value in metadata.items()) < 1024
    optional = set(metadata) - set(metadata_of(JOB, IMAGE, Completion()))
    assert optional == {"ideogram-inference-seconds", "ideogram-completed-at"}


def test_reused_image_keeps_its_original_cost() -> None:
    record = ImageRecord.of_object(TARGET, _head(metadata_of(JOB, IMAGE, COMPLETION)), ASKED)
    assert record.to_xcom() == {**XCOM, "cost_usd": 0.0, "reused": True}
    assert record.charged_usd == record.original_cost_usd == COMPLETION.cost_usd
    assert list(record.to_xcom()) == list(XCOM)


def test_own_image_of_an_earlier_attempt_has_its_cost() -> None:
    record = ImageRecord.of_object(TARGET, _head(metadata_of(JOB, IMAGE, COMPLETION)), ASKED, own=True)
    assert record.to_xcom() == XCOM


def test_estimate_stays_an_estimate_when_reused() -> None:
    metadata = metadata_of(JOB, IMAGE, replace(COMPLETION, cost_usd=None))
    record = ImageRecord.of_object(TARGET, _head(metadata), ASKED)
    assert (record.cost_usd, record.original_cost_usd, record.cost_is_estimate) == (0.0, 0.05, True)
    assert record.charged_usd is None


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"title": "a cat", "ideogram-width": "wide", "ideogram-height": "", "ideogram-seed": "4.2"},
        {"ideogram-inference-seconds": "long", "ideogram-model": "another", "ideogram-original-cost-usd": "much"},
    ],
)
def test_unreadable_metadata_counts_as_unknown(metadata: dict[str, str]) -> None:
    head = {"ContentLength": 7, "Metadata": metadata}
    xcom = ImageRecord.of_object(TARGET, head, ASKED).to_xcom()
    assert list(xcom) == list(XCOM)
    from_metadata = (
        "width",
        "height",
        "seed",
        "inference_seconds",
        "sha256",
        "request_id",
        "submitted_at",
        "original_cost_usd",
    )
    assert {xcom[name] for name in (*from_metadata, "etag", "content_type")} == {None}
    assert (xcom["model"], xcom["size_bytes"], xcom["prompt"]) == (ASKED.model, 7, ASKED.prompt)


def test_metadata_identifies_request_and_attempt_group() -> None:
    head = _head(metadata_of(replace(JOB, attempt_group="group"), IMAGE, COMPLETION))
    assert made_by(head) == "r-1"
    assert paid_by_group(head, "group")
    assert not paid_by_group(head, "another")
    assert made_from(head, ASKED)
    assert not made_from(head, replace(ASKED, prompt="a dog"))
    for foreign in ({}, {"Metadata": {"a": "b"}}):
        assert made_by(foreign) is None
        assert not made_from(foreign, ASKED)
        assert not paid_by_group(foreign, "group")


def test_time_is_utc_to_the_millisecond() -> None:
    assert iso_utc(1795392000.0004) == "2026-11-23T00:00:00.000+00:00"


def test_metadata_fits_into_its_reserved_size() -> None:
    request = replace(ASKED, seed=2**31 - 1, model="m" * 128)
    job = Job("r" * 128, JOB.submitted_at, request, request.fingerprint, "", attempt_group=attempt_group("me", 1))
    image = replace(IMAGE, width=10**5, height=10**5)
    longest = -1.2345678901234567e-100
    metadata = metadata_of(job, image, replace(COMPLETION, inference_seconds=longest, cost_usd=longest), "f" * 64)
    metadata |= thumbnail_pointer(thumbnail_key("é" * (MAX_LEDGER_PREFIX_BYTES // 2), TARGET, image.sha256))
    assert len("".join(name + value for name, value in metadata.items()).encode()) <= OWN_METADATA_BYTES


def test_metadata_names_the_thumbnail_in_ascii() -> None:
    pointer = thumbnail_pointer("Kästen/.thumbnails/1.webp")
    assert "".join(pointer.values()).isascii()
    assert thumbnail_of({"Metadata": pointer}) == "Kästen/.thumbnails/1.webp"
    assert thumbnail_of({"Metadata": {}}) is None


def test_list_price_is_not_what_the_vendor_charged() -> None:
    image = ImageRecord.of_upload(JOB, IMAGE, TARGET, {}, COMPLETION)
    estimated = ImageRecord.of_upload(JOB, IMAGE, TARGET, {}, replace(COMPLETION, cost_usd=None))
    free = ImageRecord.of_upload(JOB, IMAGE, TARGET, {}, replace(COMPLETION, cost_usd=0.0))
    assert (image.charged_usd, estimated.charged_usd, free.charged_usd) == (0.0512, None, 0.0)
    assert estimated.original_cost_usd == 0.05


def test_image_is_found_by_sent_and_by_asked_inputs() -> None:
    head = {"Metadata": metadata_of(JOB, IMAGE, COMPLETION, asked="asked")}
    other = replace(ASKED, seed=43)
    assert made_from(head, ASKED)
    assert not made_from(head, other)
    assert made_from(head, other, "asked")
    assert not made_from({}, other, None)
