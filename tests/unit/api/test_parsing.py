from __future__ import annotations

import base64
import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given

from airflow_provider_ideogram.api.image_source import ImageBytes, ImageUrl
from airflow_provider_ideogram.api.parsing import (
    Credits,
    GenerationResult,
    RequestStatus,
    Submission,
    parse_credits,
    parse_generated,
    parse_result,
    parse_status,
    parse_submission,
)
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramContentBlocked,
    IdeogramError,
    IdeogramInvalidInput,
    IdeogramJobFailed,
    IdeogramNotFound,
    IdeogramRateLimited,
    IdeogramServerUnavailable,
    IdeogramSubmitFailed,
    IdeogramUnexpectedResponse,
    IdeogramUnknownSubmit,
)
from tests.support import hostile
from tests.support.hostile import KEY

ID = "0f3c1d2e-aaaa-bbbb"
URL = "https://images.segmind.com/a/b.png?x=1"
PNG = b"\x89PNG\r\n\x1a\n and more"
BASE64 = base64.b64encode(PNG).decode()


def _answer(body: Any, status: int = 200, **headers: str) -> ApiResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ApiResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def _result(answer: ApiResponse) -> GenerationResult:
    return parse_result(answer, ID)


@pytest.mark.parametrize("request_id", ["", "..", "a/b", "a\n", None, 7, {"a": 1}])
def test_submit_with_an_unusable_request_id_is_unknown(request_id: object) -> None:
    with pytest.raises(IdeogramUnknownSubmit, match="holds no usable request_id"):
        parse_submission(_answer({"request_id": request_id}))


@pytest.mark.parametrize(
    ("credits_left", "remaining"),
    [("12.5", 12.5), ("0", 0.0), ("", None), ("-1", None), ("nan", None), ("inf", None), ("many", None)],
)
def test_submission(credits_left: str, remaining: float | None) -> None:
    answer = _answer({"request_id": ID, "status": "QUEUED"}, 202, x_remaining_credits=credits_left)
    assert parse_submission(answer) == Submission(ID, remaining)
    assert parse_submission(_answer({"request_id": ID})) == Submission(ID, None)


@pytest.mark.parametrize("body", [b"", b"ok", b"[]", b"{", b"\xff\xfe", b'"id"', b"[" * 5000, {}, {"id": ID}])
def test_success_without_a_request_id_is_unknown(body: Any) -> None:
    with pytest.raises(IdeogramUnknownSubmit, match=r"HTTP 200.*is charged when it completes"):
        parse_submission(_answer(body))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, IdeogramAuthenticationError),
        (422, IdeogramInvalidInput),
        (429, IdeogramRateLimited),
        (503, IdeogramSubmitFailed),
        (504, IdeogramUnknownSubmit),
    ],
)
def test_refused_submit_is_refused_despite_a_request_id(status: int, kind: type[IdeogramError]) -> None:
    with pytest.raises(kind):
        parse_submission(_answer({"request_id": ID, "error": "no"}, status))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"status": "QUEUED"}, RequestStatus("QUEUED")),
        ({"status": "processing", "metrics": None}, RequestStatus("PROCESSING")),
        ({"status": "COMPLETED", "metrics": {"inference_time": 13.06}}, RequestStatus("COMPLETED", 13.06)),
        ({"status": "COMPLETED", "metrics": {"inference_time": "12"}}, RequestStatus("COMPLETED", 12.0)),
        ({"status": "COMPLETED", "metrics": {"inference_time": True}}, RequestStatus("COMPLETED")),
        ({"status": "COMPLETED", "metrics": {"inference_time": 10**400}}, RequestStatus("COMPLETED")),
        (
            {"status": "COMPLETED", "metrics": {"cost": 0.05, "remaining_credits": 3, "inference_time": 12}},
            RequestStatus("COMPLETED", 12.0, None, 0.05, 3.0),
        ),
        ({"status": "COMPLETED", "metrics": {"cost": -1, "remaining_credits": "?"}}, RequestStatus("COMPLETED")),
        ({"status": "succeeded"}, RequestStatus("COMPLETED")),
        ({"status": "Done"}, RequestStatus("COMPLETED")),
        ({"status": "error", "error": "no"}, RequestStatus("FAILED", None, "no")),
        ({"status": "in-queue"}, RequestStatus("IN_QUEUE")),
        ({"status": "COMPLETED", "metrics": ["?"]}, RequestStatus("COMPLETED")),
        ({"status": "IN_QUEUE"}, RequestStatus("IN_QUEUE")),
        ({"status": "FAILED", "error": {"message": "out of\nmemory"}}, RequestStatus("FAILED", None, "out of memory")),
        ({"status": "FAILED", "error": None}, RequestStatus("FAILED")),
    ],
)
def test_status(body: dict[str, Any], status: RequestStatus) -> None:
    assert parse_status(_answer(body)) == status


def test_failed_request_is_served_as_422() -> None:
    body = {"status": "FAILED", "error": "out of memory"}
    assert parse_status(_answer(body, 422)) == RequestStatus("FAILED", None, "out of memory")
    with pytest.raises(IdeogramJobFailed, match=f"Request {ID} failed at the vendor: out of memory"):
        _result(_answer(body, 422))


@pytest.mark.parametrize("body", [b"", b"<html>no</html>", {"error": "no"}, {"status": "QUEUED"}, {"status": 422}])
def test_422_without_a_failed_request_is_a_refusal(body: Any) -> None:
    with pytest.raises(IdeogramInvalidInput, match="HTTP 422"):
        parse_status(_answer(body, 422))
    with pytest.raises(IdeogramInvalidInput, match="HTTP 422"):
        _result(_answer(body, 422))


@pytest.mark.parametrize("status", [302, 400, 401, 404, 406, 429, 500, 503])
def test_failed_counts_only_with_the_statuses_of_the_api(status: int) -> None:
    answer = _answer({"status": "failed", "error": "try again later"}, status)
    for parse in (parse_status, _result):
        with pytest.raises(IdeogramError, match=f"HTTP {status}: try again later") as caught:
            parse(answer)
        assert not isinstance(caught.value, IdeogramJobFailed)


@pytest.mark.parametrize("depth", [100, *range(880, 1000)])
def test_deeply_nested_error_has_a_message(depth: int) -> None:
    body = '{"status":"FAILED","error":' + "[" * depth + "]" * depth + "}"
    with suppress(IdeogramInvalidInput):  # a 422 whose body can't be read at all
        assert parse_status(_answer(body.encode(), 422)).error


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b"<html></html>", {}, {"status": ""}, {"status": None}, {"status": "a\n"}]
)
def test_response_without_a_status_is_temporary(body: Any) -> None:
    with pytest.raises(IdeogramServerUnavailable, match="has no status"):
        parse_status(_answer(body))


def test_unknown_request_is_not_found() -> None:
    for parse in (parse_status, _result):
        with pytest.raises(IdeogramNotFound):
            parse(_answer({"error": "no such request"}, 404))


@pytest.mark.parametrize(
    "error",
    [
        "Your prompt was flagged by our content policy",
        "content-filter",
        "Blocked by content moderation",
        "Image rejected by the safety system",
        "NSFW content detected",
        "RAI filter",
        "Responsible AI practices",
        "The prompt violates our usage guidelines",
        "prohibited words",
        "inappropriate request",
        "NSFW_DETECTED",
        "RAI_BLOCKED",
        "content was blocked",
        "the content of the image has been blocked",
        "failed moderation",
    ],
)
def test_content_block_is_recognised_by_the_error_text(error: str) -> None:
    answer = _answer({"status": "FAILED", "error": error}, 422)
    assert parse_status(answer).content_blocked
    with pytest.raises(
        IdeogramContentBlocked, match=r"was blocked because of its content.*Change the prompt"
    ) as caught:
        _result(answer)
    assert caught.value.request_id == ID
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "error",
    [
        None,
        "",
        "CUDA out of memory",
        "Internal error",
        "timeout after 60 s",
        "connection to trainer lost",
        "contents missing",
        "failed under moderate load",
        "moderately busy",
        "TRAIN_BLOCKED",
        "no content. The request was blocked by a proxy",
    ],
)
def test_other_failures_are_not_content_blocks(error: str | None) -> None:
    answer = _answer({"status": "FAILED", "error": error}, 422)
    assert not parse_status(answer).content_blocked
    with pytest.raises(IdeogramJobFailed, match="was not charged") as caught:
        _result(answer)
    assert type(caught.value) is IdeogramJobFailed
    assert caught.value.retryable


def test_only_a_failed_request_is_blocked() -> None:
    assert not RequestStatus("COMPLETED", error="safety checked").content_blocked


@pytest.mark.parametrize("content_type", ["image/png", "image/jpeg", " Image/WebP; q=1"])
def test_response_may_be_the_image_itself(content_type: str) -> None:
    answer = _answer(PNG, content_type=content_type)
    assert _result(answer) == parse_generated(answer) == GenerationResult(ImageBytes(PNG))


@pytest.mark.parametrize("content_type", ["application/octet-stream", "application/json", "text/html", ""])
def test_image_is_known_by_its_bytes(content_type: str) -> None:
    answer = _answer(PNG, content_type=content_type)
    assert _result(answer) == parse_generated(answer) == GenerationResult(ImageBytes(PNG))


def test_body_of_an_unknown_kind_is_judged_by_its_content_type() -> None:
    answer = _answer(b"unknown", content_type="image/new")
    assert _result(answer) == parse_generated(answer) == GenerationResult(ImageBytes(b"unknown"))


def test_json_may_have_the_content_type_of_an_image() -> None:
    answer = _answer({"output": URL}, content_type="image/png")
    assert _result(answer) == parse_generated(answer) == GenerationResult(ImageUrl(URL))


IMAGE_FORMS: list[tuple[Any, Any]] = [
    ({"output": URL}, ImageUrl(URL)),
    ({"output": BASE64}, ImageBytes(PNG)),
    ({"images": [{"url": URL}]}, ImageUrl(URL)),
    ({"picture": URL}, None),
]


@pytest.mark.parametrize(("body", "image"), IMAGE_FORMS)
def test_result(body: dict[str, Any], image: Any) -> None:
    whole = _answer({"status": "COMPLETED", "metrics": {"inference_time": 13, "cost": 0.05}, **body})
    if image is None:
        with pytest.raises(IdeogramUnexpectedResponse, match=r"holds no image") as caught:
            _result(whole)
        assert (caught.value.request_id, caught.value.charged) == (ID, True)
        with pytest.raises(IdeogramUnexpectedResponse, match=r"holds no image") as caught:
            parse_generated(whole)
        assert caught.value.charged is True
    else:
        assert _result(whole) == GenerationResult(image, 13.0, 0.05)
        assert _result(_answer(body)) == GenerationResult(image)
        assert parse_generated(_answer(body)) == GenerationResult(image)


def test_synchronous_result_has_its_metrics_in_headers() -> None:
    answer = _answer(PNG, content_type="image/png", x_cost="0.05", x_remaining_credits="7.5", x_generation_time="11.2")
    assert parse_generated(answer) == GenerationResult(ImageBytes(PNG), 11.2, 0.05, 7.5)


def test_image_of_an_error_is_not_a_result() -> None:
    with pytest.raises(IdeogramServerUnavailable):
        _result(_answer(PNG, 502, content_type="image/png"))
    with pytest.raises(IdeogramUnknownSubmit):
        parse_generated(_answer(PNG, 502, content_type="image/png"))


def test_result_of_a_running_request_is_temporary() -> None:
    for inputs in ({}, {"image": "https://images.segmind.com/input.png"}):
        with pytest.raises(IdeogramServerUnavailable, match="it is PROCESSING"):
            _result(_answer({"status": "PROCESSING", **inputs}))


@pytest.mark.parametrize("body", [b"", b"<html></html>", b"null"])
def test_result_without_a_body_is_unexpected(body: bytes) -> None:
    with pytest.raises(IdeogramUnexpectedResponse, match="holds no image"):
        _result(_answer(body))


@pytest.mark.parametrize(
    ("body", "bought", "free"),
    [
        ({"credits": 0.0, "free-credits": 0.018}, 0.0, 0.018),
        ({"credits": "7"}, 7.0, 0.0),
        ({"credits": None, "free-credits": 1}, 0.0, 1.0),
    ],
)
def test_credits(body: Any, bought: float, free: float) -> None:
    balance = parse_credits(_answer(body))
    assert balance == Credits(bought, free)
    assert math.isclose(balance.total, bought + free)


def test_missing_balance_record_is_not_an_error() -> None:
    balance = parse_credits(_answer({"error": "No credits found for the user"}, 404))
    assert (balance.total, balance.has_record) == (0.0, False)
    with pytest.raises(IdeogramNotFound):
        parse_credits(_answer({"error": "no such endpoint"}, 404))


@pytest.mark.parametrize("state", ["PROCESSING", "SOMETHING_NEW"])
def test_unknown_states_are_recognised(state: str) -> None:
    assert RequestStatus(state).is_known is (state == "PROCESSING")


@pytest.mark.parametrize("body", [b"", [], {"credits": "a lot"}, {"credits": None}])
def test_response_without_credits_is_temporary(body: Any) -> None:
    with pytest.raises(IdeogramServerUnavailable, match="has no credits"):
        parse_credits(_answer(body))


@given(**hostile.RESPONSES)
def test_any_response_has_a_meaning_or_is_our_error(status: int, headers: dict[str, str], body: bytes) -> None:
    hostile.check_response(status, headers, body)


@pytest.mark.parametrize("key", [KEY, KEY.replace("S", "\\u0053"), KEY.replace("_", "\\u005F")])
def test_key_is_not_a_request_id(key: str) -> None:
    answer = hostile.received(200, {}, b'{"request_id": "%s"}' % key.encode())
    with pytest.raises(IdeogramUnknownSubmit, match=r"no usable request_id.*\*\*\*") as caught:
        parse_submission(answer)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("status", [101, 204, 304])
def test_only_success_has_an_image(status: int) -> None:
    answer = ApiResponse(status, {"content-type": "image/png"}, PNG)
    if status == 204:
        assert _result(answer) == GenerationResult(ImageBytes(PNG))
    else:
        with pytest.raises(IdeogramInvalidInput):
            _result(answer)
