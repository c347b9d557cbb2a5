"""
Each call of the API, described once.

Invariant: a :class:`Call` holds all that a driver needs; the sync and the async driver send the same calls
and ask the same :func:`retry_flow` what to do next. A call that charges is sent again only where it certainly
never reached the server.
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
from airflow_provider_ideogram.exceptions import (
    IdeogramInvalidInput,
)

T = TypeVar("T")

#: Times that a call is sent at most.
MAX_ATTEMPTS = 4
#: Seconds that a server may ask to wait in place: a longer wait is for a trigger, not for a worker.
MAX_WAIT = 5.0
#: Bytes of an answer that holds no image.
MAX_RESPONSE_BYTES = 1 << 20
#: Bytes of an answer that may hold an image, as base64 in JSON.
MAX_IMAGE_RESPONSE_BYTES = 48 << 20
#: Seconds for the synchronous endpoint, which answers when the image is made (12.4 s as a rule).
GENERATE_TIMEOUT = 180.0


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
    parse: Callable[[ApiResponse], T]
    body: Mapping[str, Any] | None = None
    charges: bool = False
    max_bytes: int = MAX_RESPONSE_BYTES
    timeout: float | None = None


def submit(request: GenerationRequest) -> Call[Submission]:
    """Submit a job: charged when accepted, answered at once with its id."""
    return Call("POST", f"/v2/{request.model}", parsing.parse_submission, request.body(), charges=True)


def get_status(request_id: str) -> Call[RequestStatus]:
    """Ask for a job's state."""
    return Call("GET", f"/v2/requests/{_id(request_id)}/status", parsing.parse_status)


def get_result(request_id: str) -> Call[GenerationResult]:
    """Ask for a completed job's image."""
    parse = partial(parsing.parse_result, request_id=request_id)
    return Call("GET", f"/v2/requests/{_id(request_id)}", parse, max_bytes=MAX_IMAGE_RESPONSE_BYTES)


def generate_sync(request: GenerationRequest) -> Call[GenerationResult]:
    """Generate in one blocking call: charged, and lost if its answer is."""
    return Call(
        "POST",
        f"/v1/{request.model}",
        parsing.parse_generated,
        request.body(),
        charges=True,
        max_bytes=MAX_IMAGE_RESPONSE_BYTES,
        timeout=GENERATE_TIMEOUT,
    )


def get_credits() -> Call[Credits]:
    """Ask for the account's balance, free of charge."""
    return Call("GET", "/v1/get-user-credits", parsing.parse_credits)


def _id(request_id: str) -> str:
    if not is_request_id(request_id):
        raise IdeogramInvalidInput.of([f"{request_id!r} is not a request id"])
    return request_id
