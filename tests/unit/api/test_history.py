from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ideogram.api.history import (
    CLOCK_SKEW,
    PER_PAGE,
    SUBMIT_WINDOW,
    HistoryRow,
    find_submitted,
    get_history_page,
    get_history_row,
    parse_history,
    parse_history_row,
)
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramError,
    IdeogramInvalidInput,
    IdeogramNotFound,
    IdeogramServerUnavailable,
)

AT = datetime(2026, 11, 23, 0, 0, 30, tzinfo=UTC).timestamp()
REQUEST = GenerationRequest("a cat", seed=7, model_params={"guidance": 3})
ROW = {
    "request_id": "r-1",
    "model_name": REQUEST.model,
    "model_status": "COMPLETED",
    "request_body": REQUEST.body(),
    "created_at": "2026-11-23T00:00:30Z",
    "generation_url": "https://images.segmind.com/a.png",
    "credits_deduction": 0.05,
}
FOUND = HistoryRow(
    "r-1", REQUEST.model, REQUEST.body(), AT, "COMPLETED", image_url="https://images.segmind.com/a.png", cost_usd=0.05
)


def _parsed(rows: Any, status: int = 200) -> Sequence[HistoryRow]:
    return parse_history(ApiResponse(status, {}, json.dumps(rows).encode())).rows


def test_call_asks_for_the_models_requests_of_the_days_around() -> None:
    call = get_history_page("https://history.segmind.com/requests", "ideogram-2a-txt-2-img", AT, page=2)
    address = urlsplit(call.path)
    assert (call.method, call.charges, call.body) == ("GET", False, None)
    assert (address.netloc, address.path) == ("history.segmind.com", "/requests")
    assert parse_qs(address.query) == {
        "page": ["2"],
        "per_page": ["100"],
        "from_date": ["2026-11-22"],
        "to_date": ["2026-11-24"],
        "model_name": ["ideogram-2a-txt-2-img"],
    }


@pytest.mark.parametrize(
    ("days", "first", "last"),
    [(0, "2026-11-22", "2026-11-24"), (29, "2026-11-22", "2026-12-23"), (40, "2026-12-03", "2027-01-03")],
)
def test_search_for_several_submits_covers_the_days_of_all(days: int, first: str, last: str) -> None:
    call = get_history_page("https://history.segmind.com/", "m", AT, until=AT + days * 86400.0)
    query = parse_qs(urlsplit(call.path).query)
    assert (query["from_date"], query["to_date"]) == ([first], [last])


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        {**ROW, "request_body": json.dumps(REQUEST.body())},
        {**ROW, "created_at": "2026-11-23T00:00:30"},
        {**ROW, "created_at": "2026-11-23 01:00:30+01:00"},
        {**ROW, "created_at": None, "model_created": "2026-11-23T00:00:30.000Z"},
    ],
)
def test_row_is_read_in_every_form(row: dict[str, Any]) -> None:
    assert _parsed([row]) == _parsed({"data": [row]}) == [FOUND]


@pytest.mark.parametrize(
    "row",
    [
        None,
        "r-1",
        {},
        {**ROW, "request_id": "../r"},
        {**ROW, "request_body": None},
        {**ROW, "request_body": "{"},
        {**ROW, "request_body": "[" * 100_000},
        {**ROW, "request_body": "[]"},
        {**ROW, "created_at": None},
        {**ROW, "created_at": 1795392000},
        {**ROW, "created_at": "yesterday"},
        {**ROW, "model_name": None},
        {**ROW, "model_status": None},
    ],
)
def test_row_that_cannot_be_read_is_left_out(row: Any) -> None:
    assert [found.request_id for found in _parsed([row, {**ROW, "request_id": "r-2"}])] == ["r-2"]


@pytest.mark.parametrize(
    ("rows", "since", "ends"),
    [
        ([ROW] * (PER_PAGE - 1), AT, True),
        ([ROW] * PER_PAGE, AT, False),
        ([ROW] * PER_PAGE, AT + 1, True),
        ([*[ROW] * (PER_PAGE - 1), {}], AT, False),
        ([], AT, True),
    ],
)
def test_rows_that_cannot_be_read_do_not_end_the_search(rows: list[Any], since: float, ends: bool) -> None:
    assert parse_history(ApiResponse(200, {}, json.dumps(rows).encode())).ends_search(since) is ends


@pytest.mark.parametrize("count", [1, PER_PAGE])
def test_rows_of_an_unknown_form_are_not_an_empty_history(count: int) -> None:
    with pytest.raises(IdeogramServerUnavailable, match=f"None of the {count} rows .* is readable"):
        _parsed([{**ROW, "model_status": None}] * count)


@pytest.mark.parametrize("body", [b"", b"<html></html>", b"{}", b'{"data": null}', b'"rows"', b"[" * 5000])
def test_response_without_rows_is_not_an_empty_history(body: bytes) -> None:
    with pytest.raises(IdeogramServerUnavailable, match="has no rows"):
        parse_history(ApiResponse(200, {}, body))


def test_refusal_is_an_error() -> None:
    with pytest.raises(IdeogramAuthenticationError):
        _parsed([ROW], 401)


@pytest.mark.parametrize(
    ("created_at", "found"),
    [
        (AT, True),
        (AT - CLOCK_SKEW, True),
        (AT - CLOCK_SKEW - 1, False),
        (AT + SUBMIT_WINDOW + CLOCK_SKEW, True),
        (AT + SUBMIT_WINDOW + CLOCK_SKEW + 1, False),
    ],
)
def test_request_is_found_in_the_minutes_of_its_submit(created_at: float, found: bool) -> None:
    rows = [replace(FOUND, created_at=created_at)]
    assert find_submitted(rows, REQUEST, AT) == ({"r-1"} if found else set())


def test_request_is_found_by_all_inputs_that_were_sent() -> None:
    rows = [
        replace(FOUND, request_id="same", body={**REQUEST.body(), "added": 1}),
        replace(FOUND, request_id="other seed", body={**REQUEST.body(), "seed": 8}),
        replace(FOUND, request_id="other prompt", body={**REQUEST.body(), "prompt": "a dog"}),
        replace(FOUND, request_id="other model", model=f"{REQUEST.model}-fast"),
        replace(FOUND, request_id="no guidance", body=GenerationRequest("a cat", seed=7).body()),
    ]
    assert find_submitted(rows, REQUEST, AT) == {"same"}


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["request_id", "request_body", "created_at", "model_created"]),
            st.none()
            | st.integers()
            | st.text()
            | st.sampled_from(["r-1", "{}", "0001-01-01T00:00:00+14:00"])
            | st.just({}),
        )
    )
)
def test_no_history_raises_anything_but_an_error_of_ours(rows: list[dict[str, Any]]) -> None:
    try:
        found = _parsed(rows)
    except IdeogramError as error:
        assert str(error)  # noqa: PT017
    else:
        assert len(found) <= len(rows)


def test_one_request_is_requested_by_its_id() -> None:
    call = get_history_row("https://history.segmind.com/requests", "r-1")
    assert (call.method, call.path, call.charges) == ("GET", "https://history.segmind.com/requests/r-1", False)
    with pytest.raises(IdeogramInvalidInput):
        get_history_row("https://history.segmind.com/requests", "../r")


@pytest.mark.parametrize("body", [ROW, {"data": ROW}])
def test_one_request_is_read(body: dict[str, Any]) -> None:
    assert parse_history_row(ApiResponse(200, {}, json.dumps(body).encode())) == FOUND


def test_missing_request_is_not_found() -> None:
    with pytest.raises(IdeogramNotFound):
        parse_history_row(ApiResponse(404, {}, b'{"error": "request not found"}'))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data": {}}'])
def test_unreadable_request_is_a_temporary_error(body: bytes) -> None:
    with pytest.raises(IdeogramServerUnavailable, match="has no readable request"):
        parse_history_row(ApiResponse(200, {}, body))


@pytest.mark.parametrize(
    ("state", "expected"), [("succeeded", "COMPLETED"), ("PENDING", "PENDING"), ("error", "FAILED")]
)
def test_states_of_the_history_are_mapped(state: str, expected: str) -> None:
    [row] = _parsed([{**ROW, "model_status": state, "error": "no\nway", "generation_url": None}])
    assert (row.state, row.error, row.image_url) == (expected, "no way", None)
