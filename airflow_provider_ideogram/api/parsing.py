"""
What the API's responses mean.

Invariant: every function takes a whole :class:`ApiResponse` and either returns its meaning or raises an
:class:`~airflow_provider_ideogram.exceptions.IdeogramError`; no response, however malformed, raises anything else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_ideogram.api.errors import raise_for_status
from airflow_provider_ideogram.api.image_source import ImageBytes, ImageSource, find_image, has_image_signature
from airflow_provider_ideogram.api.request_id import is_request_id
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.api.sanitize import Redactor, sanitize_text
from airflow_provider_ideogram.exceptions import (
    IdeogramContentBlocked,
    IdeogramJobFailed,
    IdeogramServerUnavailable,
    IdeogramUnexpectedResponse,
    IdeogramUnknownSubmit,
)

COMPLETED, FAILED = "COMPLETED", "FAILED"
#: Words that other versions of the API and its gateways use for a state.
_STATE_SYNONYMS = {
    "SUCCEEDED": COMPLETED,
    "SUCCESS": COMPLETED,
    "SUCCESSFUL": COMPLETED,
    "COMPLETE": COMPLETED,
    "DONE": COMPLETED,
    "FINISHED": COMPLETED,
    "FAILURE": FAILED,
    "ERROR": FAILED,
    "CANCELED": FAILED,
    "CANCELLED": FAILED,
    "REJECTED": FAILED,
    "EXPIRED": FAILED,
    "TIMEOUT": FAILED,
}
RUNNING_STATES = frozenset({"QUEUED", "PROCESSING", "PENDING", "STARTING", "RUNNING", "IN_PROGRESS", "IN_QUEUE"})
#: A content block is a FAILED request; only the text of its error tells it from other failures.
_CONTENT_BLOCK = re.compile(
    r"content[ _-]?(polic|filter|block)|content\b[^.]{0,30}\bblocked|moderat(ion|ed|or)|safety|nsfw"
    r"|(?<![a-z])rai(?![a-z])|responsible[ _-]ai|prohibited"
    r"|inappropriate|violat\w+ .*(polic|guideline|terms)|sensitive content|flagged",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Submission:
    """
    An accepted submit.

    :param request_id: The vendor's id of the request.
    :param remaining_credits: The account's balance in USD, None if the response does not carry it.
    """

    request_id: str
    remaining_credits: float | None = None


@dataclass(frozen=True, slots=True)
class RequestStatus:
    """
    A request's status.

    :param state: ``QUEUED``, ``PROCESSING``, ``COMPLETED`` or ``FAILED``; any other word counts as running.
    :param inference_seconds: How long the vendor computed, None if unknown.
    :param error: Why the request failed.
    :param cost_usd: What the vendor charged, None if unknown.
    :param remaining_credits: The account's balance in USD after it, None if unknown.
    """

    state: str
    inference_seconds: float | None = None
    error: str | None = None
    cost_usd: float | None = None
    remaining_credits: float | None = None

    @property
    def content_blocked(self) -> bool:
        """Whether the request failed because of its content."""
        return self.state == FAILED and bool(_CONTENT_BLOCK.search(self.error or ""))

    @property
    def is_known(self) -> bool:
        """Whether the state is one of the API's."""
        return self.state in (COMPLETED, FAILED) or self.state in RUNNING_STATES


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """
    A completed request's result.

    :param image: The image's address, or the image itself.
    :param inference_seconds: How long the vendor computed, None if unknown.
    :param cost_usd: What the vendor charged, None if unknown.
    :param remaining_credits: The account's balance in USD after it, None if unknown.
    """

    image: ImageSource
    inference_seconds: float | None = None
    cost_usd: float | None = None
    remaining_credits: float | None = None


@dataclass(frozen=True, slots=True)
class Credits:
    """
    The account's balance in USD.

    :param credits: Bought credits.
    :param free_credits: Free credits.
    :param has_record: False for a valid key whose account has no balance record.
    """

    credits: float
    free_credits: float
    has_record: bool = True

    @property
    def total(self) -> float:
        """All that can be spent."""
        return self.credits + self.free_credits


def parse_submission(response: ApiResponse) -> Submission:
    """Read the response to a submit; success without a usable id is an unknown submit."""
    raise_for_status(response, charges=True)
    body = _json_object(response)
    if not is_request_id(body.get("request_id")):
        raise IdeogramUnknownSubmit(
            f"The API accepted the submit with HTTP {response.status}, but its response holds no usable request_id: "
            f"{response.message}",
            "The request is charged when it completes. Look it up in the account's request history.",
            status_code=response.status,
        )
    return Submission(body["request_id"], number_of(response.headers.get("x-remaining-credits")))


def parse_status(response: ApiResponse) -> RequestStatus:
    """Read a request's status, which the API serves as HTTP 422 if the request FAILED."""
    status = _reported_status(response, _json_object(response))
    if status is not None:
        return status
    raise_for_status(response)
    raise IdeogramServerUnavailable(
        f"The API's status response has no status: {response.message}", "Nothing was charged by this call."
    )


def parse_result(response: ApiResponse, request_id: str) -> GenerationResult:
    """Read a completed request's result in every known form; raise the error of a request that is not completed."""
    if 200 <= response.status < 300 and _is_image(response):
        return GenerationResult(ImageBytes(response.body), **_header_metrics(response))
    body = _json_object(response)
    status = _reported_status(response, body)
    if status is not None and status.state == FAILED:
        raise failure(request_id, status)
    raise_for_status(response)
    if status is not None and status.state != COMPLETED:  # the images in its body may be its inputs
        raise IdeogramServerUnavailable(
            f"Request {request_id} has no result yet: it is {status.state}", "Nothing was charged by this call."
        )
    image = find_image(body)
    if image is None:
        raise IdeogramUnexpectedResponse(
            f"Request {request_id} is completed, but its result holds no image: {response.message}",
            "It was charged. The vendor holds its result for an hour and its image for seven days.",
            charged=True,
            request_id=request_id,
        )
    if status is None:
        return GenerationResult(image)
    return GenerationResult(image, status.inference_seconds, status.cost_usd, status.remaining_credits)


def parse_generated(response: ApiResponse) -> GenerationResult:
    """Read the response of the synchronous endpoint: the image's bytes, or JSON that holds or names it."""
    raise_for_status(response, charges=True)
    image = ImageBytes(response.body) if _is_image(response) else find_image(_json_object(response))
    if image is None:
        raise IdeogramUnexpectedResponse(
            f"The synchronous call succeeded, but its response holds no image: {response.message}",
            "It was charged. Look the image up in the account's request history.",
            charged=True,
        )
    return GenerationResult(image, **_header_metrics(response))


def parse_credits(response: ApiResponse) -> Credits:
    """Read the account's balance; "no credits found" is the answer to a valid key without a balance record."""
    if response.status == 404 and re.search(r"no credits found", response.message, re.IGNORECASE):
        return Credits(0.0, 0.0, has_record=False)
    raise_for_status(response)
    body = _json_object(response)
    bought, free = number_of(body.get("credits")), number_of(body.get("free-credits"))
    if bought is None and free is None:
        raise IdeogramServerUnavailable(
            f"The API's credits response has no credits: {response.message}", "Nothing was charged by this call."
        )
    return Credits(bought or 0.0, free or 0.0)


def failure(request_id: str, status: RequestStatus) -> IdeogramJobFailed:
    """Return the error of a FAILED request, which the vendor does not charge."""
    reason = status.error or "no reason given"
    if status.content_blocked:
        return IdeogramContentBlocked(
            f"Request {request_id} was blocked because of its content: {reason}",
            "It was not charged. Change the prompt.",
            request_id=request_id,
        )
    return IdeogramJobFailed(
        f"Request {request_id} failed at the vendor: {reason}",
        "It was not charged. A retry of the task that submitted it submits a new request.",
        request_id=request_id,
    )


def normal_state(value: object) -> str | None:
    """Return a state in upper case with synonyms resolved, None for a value that is not a state."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_ -]{1,40}", value):
        return None
    state = re.sub(r"[ -]", "_", value.strip().upper())
    return _STATE_SYNONYMS.get(state, state)


def number_of(value: object) -> float | None:
    """Return a finite, non-negative number, None for any other value."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _header_metrics(response: ApiResponse) -> dict[str, float | None]:
    """Return the metrics that accompany raw image bytes."""
    headers = response.headers
    return {
        "inference_seconds": number_of(headers.get("x-generation-time")),
        "cost_usd": number_of(headers.get("x-cost")),
        "remaining_credits": number_of(headers.get("x-remaining-credits")),
    }


def _is_image(response: ApiResponse) -> bool:
    """Return whether the body is an image by its signature, or by its content type and not JSON."""
    content_type = response.headers.get("content-type", "").strip().lower()
    return has_image_signature(response.body) or (content_type.startswith("image/") and not _json_object(response))


def _json_object(response: ApiResponse) -> dict[str, Any]:
    body = response.json()
    return body if isinstance(body, dict) else {}


def _reported_status(response: ApiResponse, body: Mapping[str, Any]) -> RequestStatus | None:
    """Return the request's status, None for a response that is an error of the API rather than a request's status."""
    status = _status_of(body, response.redactor)
    if status is None or 200 <= response.status < 300:
        return status
    return status if response.status == 422 and status.state == FAILED else None


def _status_of(body: Mapping[str, Any], redactor: Redactor) -> RequestStatus | None:
    state = normal_state(body.get("status"))
    if state is None:
        return None
    metrics = body.get("metrics")
    known = metrics if isinstance(metrics, Mapping) else {}
    error = body.get("error")
    return RequestStatus(
        state,
        inference_seconds=number_of(known.get("inference_time")),
        error=sanitize_text(error, redactor) if error else None,
        cost_usd=number_of(known.get("cost")),
        remaining_credits=number_of(known.get("remaining_credits")),
    )
