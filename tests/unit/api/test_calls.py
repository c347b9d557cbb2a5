from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_ideogram.api import calls
from airflow_provider_ideogram.api.image_source import ImageUrl
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.parsing import RequestStatus, Submission
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput

REQUEST = GenerationRequest("a cat", seed=7)


def test_calls_are_those_of_the_api() -> None:
    described = {
        (call.method, call.path, call.charges)
        for call in (
            calls.submit(REQUEST),
            calls.get_status("r-1"),
            calls.get_result("r-1"),
            calls.generate_sync(REQUEST),
            calls.get_credits(),
        )
    }
    assert described == {
        ("POST", "/v2/ideogram-2a-txt-2-img", True),
        ("GET", "/v2/requests/r-1/status", False),
        ("GET", "/v2/requests/r-1", False),
        ("POST", "/v1/ideogram-2a-txt-2-img", True),
        ("GET", "/v1/get-user-credits", False),
    }
    assert calls.submit(REQUEST).body == calls.generate_sync(REQUEST).body == REQUEST.body()


def test_each_call_parses_its_response() -> None:
    result = ApiResponse(
        200, {}, json.dumps({"status": "COMPLETED", "output": "https://images.segmind.com/a"}).encode()
    )
    assert calls.submit(REQUEST).parse(ApiResponse(200, {}, b'{"request_id": "r-1"}')) == Submission("r-1")
    assert calls.get_status("r-1").parse(ApiResponse(200, {}, b'{"status": "QUEUED"}')) == RequestStatus("QUEUED")
    assert calls.get_result("r-1").parse(result).image == ImageUrl("https://images.segmind.com/a")
    assert calls.generate_sync(REQUEST).parse(result).image == ImageUrl("https://images.segmind.com/a")
    assert calls.get_credits().parse(ApiResponse(200, {}, b'{"credits": 2}')).total == 2.0


@pytest.mark.parametrize("request_id", ["", "../v1/get-user-credits", "a/b", "a?b", None])
def test_invalid_request_id_is_not_put_into_a_path(request_id: Any) -> None:
    for describe in (calls.get_status, calls.get_result):
        with pytest.raises(IdeogramInvalidInput, match="is not a request id"):
            describe(request_id)
