from __future__ import annotations

import random
from typing import Any

import pytest

from airflow_provider_ideogram.api import calls
from airflow_provider_ideogram.api.calls import Call
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.parsing import RequestStatus, Submission
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.api.retry_flow import (
    MAX_ATTEMPTS,
    MAX_WAIT,
    RequestNotSent,
    ResponseNotReceived,
    retry_flow,
)
from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramError,
    IdeogramInvalidInput,
    IdeogramNotFound,
    IdeogramRateLimited,
    IdeogramServerUnavailable,
    IdeogramSubmitFailed,
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
    """Act as the client; return the result or error of the call and the waits. All events must be used."""
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


@pytest.mark.parametrize("failure", [NOT_SENT, UNANSWERED, *map(ApiResponse, (408, 429, 500, 502, 503, 504))])
def test_read_is_repeated_after_temporary_errors(failure: ApiResponse | Exception) -> None:
    outcome, waits = _drive(calls.get_status("r-1"), [failure, failure, failure, QUEUED])
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


def test_submit_is_repeated_if_it_was_not_sent() -> None:
    outcome, waits = _drive(calls.submit(REQUEST), [NOT_SENT, NOT_SENT, SUBMITTED])
    assert outcome == Submission("r-1")
    assert len(waits) == 2


@pytest.mark.parametrize("retry_after", [None, "0", "3"])
@pytest.mark.parametrize("call", [calls.submit(REQUEST), calls.generate_sync(REQUEST)], ids=["submit", "generate"])
def test_rate_limited_charging_call_is_not_repeated(call: Call[Any], retry_after: str | None) -> None:
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
def test_unknown_submit_is_never_repeated(
    call: Call[Any], fate: ApiResponse | Exception, before: list[ApiResponse | Exception]
) -> None:
    outcome, waits = _drive(call, [*before, fate])
    answered = isinstance(fate, ApiResponse) and fate.status in (500, 502, 503)
    assert type(outcome) is (IdeogramSubmitFailed if answered else IdeogramUnknownSubmit)
    assert outcome.charged is None
    assert len(waits) == len(before)


@pytest.mark.parametrize("fate", [UNANSWERED, ApiResponse(504)])
def test_synchronous_generation_is_a_charging_call(fate: ApiResponse | Exception) -> None:
    assert type(_drive(calls.generate_sync(REQUEST), [fate])[0]) is IdeogramUnknownSubmit


def test_reads_wait_for_a_short_retry_after_with_jitter() -> None:
    outcome, waits = _drive(calls.get_status("r-1"), [_limited("5"), _limited("3"), QUEUED])
    assert outcome == RequestStatus("QUEUED")
    assert [5.25 <= waits[0] <= 5.5, 3.5 <= waits[1] <= 4.0] == [True, True]


@pytest.mark.parametrize("retry_after", ["5.1", "60", "3600"])
@pytest.mark.parametrize("call", [calls.submit(REQUEST), calls.get_status("r-1")], ids=["submit", "read"])
def test_long_retry_after_is_raised_at_once(call: Call[Any], retry_after: str) -> None:
    outcome, waits = _drive(call, [_limited(retry_after)])
    assert type(outcome) is IdeogramRateLimited
    assert outcome.retry_after == float(retry_after)
    assert waits == []


@pytest.mark.parametrize("max_attempts", [1, 2, MAX_ATTEMPTS])
@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (NOT_SENT, r"can't be reached \(ConnectError\). Nothing was sent or charged"),
        (UNANSWERED, r"did not respond \(ReadTimeout\). Nothing was charged"),
        (ApiResponse(503), "HTTP 503"),
    ],
    ids=["not sent", "unanswered", "503"],
)
def test_attempts_are_bounded(failure: ApiResponse | Exception, said: str, max_attempts: int) -> None:
    outcome, waits = _drive(calls.get_status("r-1"), [failure] * max_attempts, max_attempts)
    assert type(outcome) is IdeogramServerUnavailable
    with pytest.raises(IdeogramServerUnavailable, match=said):
        raise outcome
    assert len(waits) == max_attempts - 1
    assert all(0 < wait <= MAX_WAIT for wait in waits)
