from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_ideogram.ui.records import Instance, item_of_instance, item_of_line
from tests.unit.ui.conftest import json_lines, record, row

TOLD = {"prompt": "A cat", "seed": 7, "s3_key": "cat.png"}


def _instance(state: str = "success", map_index: int = -1, **xcoms: Any) -> Instance:
    return Instance("cats", "run", "generate", map_index, state, xcoms, TOLD)


def test_image_of_a_task() -> None:
    item = item_of_instance(_instance(return_value=record("bucket"), request_id="request-1"))
    assert (item.status, item.name, item.prompt, item.has_image) == ("generated", "generate", "Cat number 1", True)
    assert item_of_instance(_instance(return_value=record("bucket", reused=True))).status == "reused"


def test_image_of_a_mapped_task_has_its_index() -> None:
    assert item_of_instance(_instance(map_index=3)).name == "generate[3]"


def test_image_in_the_making_tells_what_was_asked_for() -> None:
    item = item_of_instance(_instance("deferred", request_id="request-1"))
    assert (item.status, item.prompt, item.has_image) == ("deferred", "A cat", False)
    assert item.facts == {"prompt": "A cat", "seed": 7, "request_id": "request-1"}


def test_submitted_request_has_no_image() -> None:
    result = {"request_id": "request-1", "submitted_at": "2026-01-02T00:00:00+00:00", "prompt": "A dog"}
    item = item_of_instance(_instance(return_value=result))
    assert (item.status, item.prompt, item.has_image) == ("submitted", "A dog", False)


@pytest.mark.parametrize(
    ("reason", "status"),
    [("content_blocked", "content_blocked"), ("expired", "expired"), ("timeout", "failed"), (None, "failed")],
)
def test_failure_tells_its_reason(reason: str | None, status: str) -> None:
    item = item_of_instance(_instance("failed", failure={"reason": reason, "error": "what happened"}))
    assert (item.status, item.reason, item.error) == (status, reason, "what happened")


def test_failure_that_left_nothing_is_in_the_log() -> None:
    assert item_of_instance(_instance("failed")).error == "The task's log has the error."


ELSEWHERE: dict[str, Any] = {"return_value": "s3://xcoms/1", "request_id": "r-1"}


def test_result_of_a_custom_backend_is_where_the_task_put_it() -> None:
    told = {"s3_key": "cats/1.png", "s3_bucket": "bucket", "prompt": "A cat", "seed": 7}
    item = item_of_instance(replace(_instance(**ELSEWHERE), rendered=told))
    assert item.has_image
    assert (item.status, item.error) == ("generated", None)
    facts = {"bucket": "bucket", "key": "cats/1.png", "uri": "s3://bucket/cats/1.png", "request_id": "r-1"}
    assert item.facts == {**facts, "prompt": "A cat", "seed": 7}


@pytest.mark.parametrize(
    ("told", "xcoms", "reason"),
    [
        ({}, ELSEWHERE, "for the last runs only"),
        ({"s3_key": "***", "s3_bucket": None}, ELSEWHERE, "for the last runs only"),
        ({"s3_key": "s3://bucket/cats/"}, ELSEWHERE, "ends in '/'"),
        ({"s3_key": "s3://bucket/cat.png"}, {"return_value": ["x"]}, "XCom request_id"),
    ],
)
def test_unreadable_result_says_why(told: dict[str, Any], xcoms: dict[str, Any], reason: str) -> None:
    item = item_of_instance(replace(_instance(**xcoms), rendered=told))
    assert not item.has_image
    assert reason in (item.error or "")
    assert "custom XCom backend" in (item.error or "")


def test_only_known_plain_fields_count() -> None:
    item = item_of_instance(_instance(return_value=record("bucket", prompt={"a": 1}, bucket=None, evil="x")))
    assert "evil" not in item.facts
    assert "bucket" not in item.facts
    assert (item.prompt, item.has_image) == ("A cat", False)


@pytest.mark.parametrize("field", ["bucket", "key", "request_id"])
def test_image_needs_bucket_key_and_request(field: str) -> None:
    assert not item_of_instance(_instance(return_value=record("bucket", **{field: ""}))).has_image


def test_row_of_a_dataset() -> None:
    line = json_lines(row("bucket", status="reused"))
    item = item_of_line(_instance(), "120", line)
    assert (item.row, item.name, item.status, item.has_image) == ("120", "cat-1", "reused", True)


def test_blocked_row_of_a_dataset() -> None:
    line = json_lines(row("bucket", status="content_blocked", error="Not this cat", prompt="A cat", bucket=None))
    item = item_of_line(_instance(), "p0.0", line)
    assert (item.status, item.error, item.prompt, item.has_image) == ("content_blocked", "Not this cat", "A cat", False)


def _rejected(**changes: Any) -> bytes:
    """Return the line of a row of which two images were rejected, the last one finally."""
    attempts = [
        {"uri": f"s3://bucket/_ideogram/.rejected/{number}", "request_id": f"r-{number}", "seed": number}
        for number in (1, 2)
    ]
    error = "Gate 'sharp' rejected the image of request r-2: too dark. The image is paid, and kept."
    line = row("bucket", bucket=None, uri=None, status="rejected", error=error, request_id="r-2", seed=1)
    return json_lines({**line, "rejected_attempts": attempts, **changes})


def test_rejected_row_has_the_last_image_and_the_reason() -> None:
    item = item_of_line(_instance(), "7", _rejected())
    assert (item.status, item.has_image, item.is_accepted) == ("rejected", True, False)
    assert item.cause == "Gate 'sharp' rejected the image: too dark. The image is paid, and kept."
    names = ("bucket", "key", "uri", "request_id", "seed")
    kept = "_ideogram/.rejected/2"
    assert [item.facts[name] for name in names] == ["bucket", kept, f"s3://bucket/{kept}", "r-2", 2]


@pytest.mark.parametrize(
    "changes",
    [
        {"request_id": "r-9"},
        {"request_id": None},
        {"rejected_attempts": None},
        {"rejected_attempts": ["x", {"request_id": "r-2"}]},
        {"rejected_attempts": [{"request_id": "r-2", "uri": "https://bucket/2"}]},
        {"rejected_attempts": [{"request_id": "r-2", "uri": ["s3://bucket/2"]}]},
    ],
)
def test_rejected_row_without_a_known_image_has_none(changes: dict[str, Any]) -> None:
    assert not item_of_line(_instance(), "7", _rejected(**changes)).has_image


def test_accepted_row_keeps_its_own_image() -> None:
    attempts = [{"request_id": "request-1", "uri": "s3://bucket/other"}]
    item = item_of_line(_instance(), "7", json_lines(row("bucket", rejected_attempts=attempts)))
    assert (item.facts["key"], item.is_accepted) == ("1.png", True)


NO_ROWS = [
    {"id": "user 17", "error": "password=hunter2 refused", "level": "E"},
    row("bucket", status="<b>"),
    row("bucket", status=["generated"]),
    row("bucket", row="1"),
    row("bucket", fingerprint=None),
]


@pytest.mark.parametrize("line", [b"", b"secret text", b"[1]", b"\xff", b"[" * 100_000, *map(json_lines, NO_ROWS)])
def test_line_that_is_no_row_shows_nothing_of_itself(line: bytes) -> None:
    item = item_of_line(_instance(), "7", line)
    assert (item.status, item.facts, item.error) == ("failed", {}, "This line of the manifest can't be read.")
    assert item.name == "7"


def test_prompt_that_is_no_text_is_none() -> None:
    assert item_of_line(_instance(), "7", json_lines(row("bucket", prompt=7))).prompt == ""


def test_cause_does_not_repeat_the_request() -> None:
    failure = {"reason": "expired", "error": "Request request-1 is no longer at the vendor"}
    item = item_of_instance(_instance("failed", failure=failure, request_id="request-1"))
    assert item.cause == "Request is no longer at the vendor"
    assert item_of_instance(_instance("deferred")).cause is None


@pytest.mark.parametrize(
    ("state", "awaited"), [("queued", True), ("deferred", True), ("up_for_retry", True), ("failed", False)]
)
def test_image_is_awaited_while_its_task_goes_on(state: str, awaited: bool) -> None:
    assert item_of_instance(_instance(state)).is_awaited is awaited
    assert not item_of_instance(_instance(state, return_value=record("bucket"))).is_awaited
