from __future__ import annotations

import json
import random
from typing import Any

import pytest

from airflow_provider_ideogram.api import calls
from airflow_provider_ideogram.api.calls import MAX_ATTEMPTS, MAX_WAIT, Call
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.parsing import ImageUrl, RequestStatus, Submission
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.api.retry_flow import RequestNotSent, ResponseNotReceived, retry_flow
from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramError,
    IdeogramInvalidInput,
    IdeogramNotFound,
    IdeogramRateLimited,
    IdeogramServerUnavailable,
    IdeogramUnknownSubmit,
)

REQUEST = GenerationRequest("a cat", seed=7)
SUBMITTED = ApiResponse(200, {}, b'{"request_id": "r-1", "status": "QUEUED"}')
QUEUED = ApiResponse(200, {}, b'{"status": "QUEUED"}')
NOT_SENT = RequestNotSent("ConnectError")
UNANSWERED = ResponseNotReceived("ReadTimeout")


def _limited(retry_after: str | None = None) -> ApiResponse:
    return ApiResponse(429, {} if retry_after is None else {"retry-after": retry_after})


def _drive(
    call: Call[Any], events: list[ApiResponse | Exception], max_attempts: int = MAX_ATTEMPTS
) -> tuple[Any, list[float]]:
    """Play the driver's part; return what came of the call and the waits. All events must be used up."""
    left, waits = list(events), []
    steps = retry_flow(call, random.Random(7), max_attempts)
    try:
        wait = next(steps)
        while True:
            if wait is not None:
                waits.append(wait)
                wait = next(steps)
            elif isinstance(event := left.pop(0), ApiResponse):
                wait = steps.send(event)
            else:
                wait = steps.throw(event)
    except StopIteration as stop:
        outcome = stop.value
    except IdeogramError as error:
        outcome = error
    assert left == []
    return outcome, waits


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


def test_each_call_knows_what_its_answer_means() -> None:
    result = ApiResponse(
        200, {}, json.dumps({"status": "COMPLETED", "output": "https://images.segmind.com/a"}).encode()
    )
    assert _drive(calls.submit(REQUEST), [SUBMITTED])[0] == Submission("r-1")
    assert _drive(calls.get_status("r-1"), [QUEUED])[0] == RequestStatus("QUEUED")
    assert _drive(calls.get_result("r-1"), [result])[0].image == ImageUrl("https://images.segmind.com/a")
    assert _drive(calls.generate_sync(REQUEST), [result])[0].image == ImageUrl("https://images.segmind.com/a")
    assert _drive(calls.get_credits(), [ApiResponse(200, {}, b'{"credits": 2}')])[0].total == 2.0


@pytest.mark.parametrize("request_id", ["", "../v1/get-user-credits", "a/b", "a?b", None])
def test_what_is_no_request_id_never_gets_into_a_path(request_id: Any) -> None:
    for describe in (calls.get_status, calls.get_result):
        with pytest.raises(IdeogramInvalidInput, match="is not a request id"):
            describe(request_id)


@pytest.mark.parametrize("trouble", [NOT_SENT, UNANSWERED, *map(ApiResponse, (408, 429, 500, 502, 503, 504))])
def test_read_is_repeated_on_what_may_pass(trouble: ApiResponse | Exception) -> None:
    outcome, waits = _drive(calls.get_status("r-1"), [trouble, trouble, trouble, QUEUED])
    assert outcome == RequestStatus("QUEUED")
    assert [low <= wait <= 2 * low for low, wait in zip((0.25, 0.5, 1.0), waits, strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("status", "kind"), [(400, IdeogramInvalidInput), (401, IdeogramAuthenticationError), (404, IdeogramNotFound)]
)
@pytest.mark.parametrize("call", [calls.submit(REQUEST), calls.get_status("r-1")], ids=["submit", "read"])
def test_refusal_is_final(call: Call[Any], status: int, kind: type[IdeogramError]) -> None:
    outcome, waits = _drive(call, [ApiResponse(status)])
    assert type(outcome) is kind
    assert waits == []


def test_submit_is_repeated_where_it_was_not_sent() -> None:
    outcome, waits = _drive(calls.submit(REQUEST), [NOT_SENT, NOT_SENT, SUBMITTED])
    assert outcome == Submission("r-1")
    assert len(waits) == 2


@pytest.mark.parametrize("retry_after", [None, "0", "3"])
@pytest.mark.parametrize("call", [calls.submit(REQUEST), calls.generate_sync(REQUEST)], ids=["submit", "generate"])
def test_call_that_charges_hands_a_rate_limit_to_the_caller_at_once(call: Call[Any], retry_after: str | None) -> None:
    outcome, waits = _drive(call, [_limited(retry_after)])
    assert type(outcome) is IdeogramRateLimited
    assert outcome.retry_after == (retry_after and float(retry_after))
    assert waits == []


@pytest.mark.parametrize("before", [[], [NOT_SENT]], ids=["at once", "after not sent"])
@pytest.mark.parametrize(
    "fate",
    [UNANSWERED, *map(ApiResponse, (200, 408, 500, 502, 503, 504))],
    ids=lambda fate: str(getattr(fate, "status", fate)),
)
@pytest.mark.parametrize("call", [calls.submit(REQUEST)], ids=["submit"])
def test_submit_whose_fate_is_unknown_is_never_repeated(
    call: Call[Any], fate: ApiResponse | Exception, before: list[ApiResponse | Exception]
) -> None:
    outcome, waits = _drive(call, [*before, fate])
    assert type(outcome) is IdeogramUnknownSubmit
    assert "charged" in str(outcome)
    assert len(waits) == len(before)


@pytest.mark.parametrize("fate", [UNANSWERED, ApiResponse(504)])
def test_synchronous_generation_is_a_paid_call_too(fate: ApiResponse | Exception) -> None:
    assert type(_drive(calls.generate_sync(REQUEST), [fate])[0]) is IdeogramUnknownSubmit


def test_short_retry_after_is_waited_by_reads_each_with_its_own_jitter() -> None:
    outcome, waits = _drive(calls.get_status("r-1"), [_limited("5"), _limited("3"), QUEUED])
    assert outcome == RequestStatus("QUEUED")
    assert [5.25 <= waits[0] <= 5.5, 3.5 <= waits[1] <= 4.0] == [True, True]


@pytest.mark.parametrize("retry_after", ["5.1", "60", "99999"])
@pytest.mark.parametrize("call", [calls.submit(REQUEST), calls.get_status("r-1")], ids=["submit", "read"])
def test_long_retry_after_is_handed_to_the_caller_at_once(call: Call[Any], retry_after: str) -> None:
    outcome, waits = _drive(call, [_limited(retry_after)])
    assert type(outcome) is IdeogramRateLimited
    assert outcome.retry_after == min(float(retry_after), 3600.0)
    assert waits == []


@pytest.mark.parametrize("max_attempts", [1, 2, MAX_ATTEMPTS])
@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (NOT_SENT, r"can't be reached \(ConnectError\). Nothing was sent or charged"),
        (UNANSWERED, r"did not answer \(ReadTimeout\). Nothing was charged"),
        (ApiResponse(503), "HTTP 503"),
    ],
    ids=["not sent", "unanswered", "503"],
)
def test_trying_again_ends(trouble: ApiResponse | Exception, said: str, max_attempts: int) -> None:
    outcome, waits = _drive(calls.get_status("r-1"), [trouble] * max_attempts, max_attempts)
    assert type(outcome) is IdeogramServerUnavailable
    with pytest.raises(IdeogramServerUnavailable, match=said):
        raise outcome
    assert len(waits) == max_attempts - 1
    assert all(0 < wait <= MAX_WAIT for wait in waits)
