"""
Each call of the API, described once.

Invariant: a :class:`Call` holds all that a client needs to send it and to read its response.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from airflow_provider_ideogram.api import parsing
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.parsing import Credits, GenerationResult, RequestStatus, Submission
from airflow_provider_ideogram.api.request_id import is_request_id
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput

T = TypeVar("T")

#: Bytes of a response without an image.
MAX_RESPONSE_BYTES = 1 << 20
#: Bytes of a response that may hold an image, as base64 in JSON, or a page of the history.
MAX_LARGE_RESPONSE_BYTES = 48 << 20
#: Seconds for the synchronous endpoint, which responds when the image is made (12.4 s as a rule).
GENERATE_TIMEOUT = 180.0


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """
    A call of the API.

    :param method: The HTTP method.
    :param path: The path below the base URL, or a whole address.
    :param parse: Returns what the response means; raises an :class:`IdeogramError` for an error.
    :param body: The JSON body.
    :param charges: Whether accepting it costs money.
    :param max_bytes: Bytes of the response that are read at most.
    :param timeout: Seconds to wait for the response, None for the connection's timeout.
    """

    method: str
    path: str
    parse: Callable[[ApiResponse], T]
    body: Mapping[str, Any] | None = None
    charges: bool = False
    max_bytes: int = MAX_RESPONSE_BYTES
    timeout: float | None = None


def submit(request: GenerationRequest) -> Call[Submission]:
    """Submit a request; the response comes at once with its id. It is charged when it completes."""
    return Call("POST", f"/v2/{request.model}", parsing.parse_submission, request.body(), charges=True)


def get_status(request_id: str) -> Call[RequestStatus]:
    """Get a request's status."""
    return Call("GET", f"/v2/requests/{check_id(request_id)}/status", parsing.parse_status)


def get_result(request_id: str) -> Call[GenerationResult]:
    """Get a completed request's image."""
    parse = partial(parsing.parse_result, request_id=request_id)
    return Call("GET", f"/v2/requests/{check_id(request_id)}", parse, max_bytes=MAX_LARGE_RESPONSE_BYTES)


def generate_sync(request: GenerationRequest) -> Call[GenerationResult]:
    """Generate in one blocking call, which charges; the image is lost if the response is."""
    return Call(
        "POST",
        f"/v1/{request.model}",
        parsing.parse_generated,
        request.body(),
        charges=True,
        max_bytes=MAX_LARGE_RESPONSE_BYTES,
        timeout=GENERATE_TIMEOUT,
    )


def get_credits() -> Call[Credits]:
    """Get the account's balance, free of charge."""
    return Call("GET", "/v1/get-user-credits", parsing.parse_credits)


def check_id(request_id: str) -> str:
    """Return a request id that can be a part of a path; raise IdeogramInvalidInput for any other value."""
    if not is_request_id(request_id):
        raise IdeogramInvalidInput.of([f"{request_id!r} is not a request id"])
    return request_id
