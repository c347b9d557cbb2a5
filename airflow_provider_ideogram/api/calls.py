"""
Each call of the API, described once.

Invariant: a :class:`Call` holds all that a driver needs; the sync and the async driver send the same calls
and ask the same :func:`exchange` what to do next. A call that charges is sent again only where it certainly
never reached the server.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from airflow_provider_ideogram.api import answers
from airflow_provider_ideogram.api.answers import Credits, GenerationResult, RequestStatus, Submission
from airflow_provider_ideogram.api.cadence import back_off
from airflow_provider_ideogram.api.errors import Answer, unknown_submit
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.request_id import is_request_id
from airflow_provider_ideogram.exceptions import (
    IdeogramError,
    IdeogramInvalidInput,
    IdeogramRateLimited,
    IdeogramServerUnavailable,
    IdeogramTemporaryError,
)

T = TypeVar("T")

#: Times that a call is sent at most.
MAX_ATTEMPTS = 4
#: Seconds that a server may ask to wait in place: a longer wait is for a trigger, not for a worker.
MAX_WAIT = 5.0
#: Bytes of an answer that holds no image.
MAX_ANSWER_BYTES = 1 << 20
#: Bytes of an answer that may hold an image, as base64 in JSON.
MAX_IMAGE_ANSWER_BYTES = 48 << 20
#: Seconds for the synchronous endpoint, which answers when the image is made (12.4 s as a rule).
GENERATE_TIMEOUT = 180.0


class NotSent(Exception):
    """The request certainly never reached the server."""


class Unanswered(Exception):
    """The request may have reached the server, and no whole answer came back."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """
    A call of the API.

    :param method: The HTTP method.
    :param path: The path below the base URL.
    :param parse: What the answer means; raises an :class:`IdeogramError` for an answer that is an error.
    :param body: The JSON body.
    :param charges: Whether accepting it costs money.
    :param max_bytes: How much of an answer is read.
    :param timeout: Seconds to wait for the answer, None for the connection's.
    """

    method: str
    path: str
    parse: Callable[[Answer], T]
    body: Mapping[str, Any] | None = None
    charges: bool = False
    max_bytes: int = MAX_ANSWER_BYTES
    timeout: float | None = None


def submit(request: GenerationRequest) -> Call[Submission]:
    """Submit a job: charged when accepted, answered at once with its id."""
    return Call("POST", f"/v2/{request.model}", answers.parse_submission, request.body(), charges=True)


def get_status(request_id: str) -> Call[RequestStatus]:
    """Ask for a job's state."""
    return Call("GET", f"/v2/requests/{_id(request_id)}/status", answers.parse_status)


def get_result(request_id: str) -> Call[GenerationResult]:
    """Ask for a completed job's image."""
    parse = partial(answers.parse_result, request_id=request_id)
    return Call("GET", f"/v2/requests/{_id(request_id)}", parse, max_bytes=MAX_IMAGE_ANSWER_BYTES)


def generate_sync(request: GenerationRequest) -> Call[GenerationResult]:
    """Generate in one blocking call: charged, and lost if its answer is."""
    return Call(
        "POST",
        f"/v1/{request.model}",
        answers.parse_generated,
        request.body(),
        charges=True,
        max_bytes=MAX_IMAGE_ANSWER_BYTES,
        timeout=GENERATE_TIMEOUT,
    )


def get_credits() -> Call[Credits]:
    """Ask for the account's balance, free of charge."""
    return Call("GET", "/v1/get-user-credits", answers.parse_credits)


def _id(request_id: str) -> str:
    if not is_request_id(request_id):
        raise IdeogramInvalidInput.of([f"{request_id!r} is not a request id"])
    return request_id


def exchange(call: Call[T], rng: random.Random, max_attempts: int = MAX_ATTEMPTS) -> Generator[float | None, Answer, T]:
    """
    Decide, step by step, how a call goes on: the one place that knows what may be sent again.

    Yields None where the call is to be sent: the driver sends in the answer, or throws :class:`NotSent` or
    :class:`Unanswered`. Yields a number where that many seconds are to be waited.

    :return: What the answer means.
    :raises IdeogramError: What went wrong, when trying again is over or not allowed.
    """
    attempt = 0
    while True:
        attempt += 1
        error = yield from _attempt(call)
        if not isinstance(error, IdeogramError):
            return error
        if attempt == max_attempts or not isinstance(error, IdeogramTemporaryError):
            raise error
        if call.charges and isinstance(error, IdeogramRateLimited):
            raise error  # the vendor's limits are a minute's: the caller waits, without a worker where it can
        asked = error.retry_after or 0.0
        if asked > MAX_WAIT:
            raise error
        yield asked + back_off(attempt, rng)  # nobody comes at the server's very second, as all others do


def _attempt(call: Call[T]) -> Generator[None, Answer, T | IdeogramError]:
    """Send the call once and return what its answer means, or the error that is to be judged."""
    try:
        return call.parse((yield None))
    except NotSent as problem:
        return IdeogramServerUnavailable(f"The API can't be reached ({problem})", "Nothing was sent or charged.")
    except Unanswered as problem:
        if call.charges:
            return unknown_submit(f"The connection failed ({problem})")
        return IdeogramServerUnavailable(f"The API did not answer ({problem})", "Nothing was charged by this call.")
    except IdeogramError as error:
        return error
