"""
What the API's answers mean.

Invariant: every function takes a whole :class:`ApiResponse` and either returns its meaning or raises an
:class:`~airflow_provider_ideogram.exceptions.IdeogramError`; no response, however broken, raises anything else.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

from airflow_provider_ideogram.api.errors import raise_for_status
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

#: Where the model pages and real clients have seen the image, in the order of trust.
_IMAGE_KEYS = ("output", "image", "images", "url", "image_url", "data", "b64_json", "base64")
#: Deeper than any form that was seen (``data[0].url`` is 3 deep).
_MAX_IMAGE_DEPTH = 4
#: How the image files that are in use begin: most words are base64, too.
_SIGNATURES = re.compile(rb"\x89PNG|\xff\xd8\xff|RIFF....WEBP|GIF8|....ftyp", re.DOTALL)
#: A content block is no state of its own; only the error's text tells it from a failure of the machinery.
_CONTENT_BLOCK = re.compile(
    r"content[ _-]?(polic|filter|block)|content\b[^.]{0,30}\bblocked|moderat(ion|ed|or)|safety|nsfw"
    r"|(?<![a-z])rai(?![a-z])|responsible[ _-]ai|prohibited"
    r"|inappropriate|violat\w+ .*(polic|guideline|terms)|sensitive content|flagged",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Submission:
    """
    An accepted submit: the job exists and is charged.

    :param request_id: The vendor's id of the job.
    :param remaining_credits: The account's balance after it, None if the answer did not carry it.
    """

    request_id: str
    remaining_credits: float | None = None


@dataclass(frozen=True, slots=True)
class RequestStatus:
    """
    A job's state.

    :param state: ``QUEUED``, ``PROCESSING``, ``COMPLETED`` or ``FAILED``; any other means "not done yet".
    :param inference_seconds: How long the vendor computed, where it says so.
    :param error: Why the job failed.
    """

    state: str
    inference_seconds: float | None = None
    error: str | None = None

    @property
    def content_blocked(self) -> bool:
        """Whether the job failed because of what was asked for."""
        return self.state == "FAILED" and bool(_CONTENT_BLOCK.search(self.error or ""))


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """The image is to be fetched from an address."""

    url: str


@dataclass(frozen=True, slots=True)
class ImageBytes:
    """The image came inside the response."""

    data: bytes = field(repr=False)


ImageSource: TypeAlias = ImageUrl | ImageBytes


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """
    A completed job's image.

    :param image: Where it is, or the image itself.
    :param inference_seconds: How long the vendor computed, where it says so.
    """

    image: ImageSource
    inference_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Credits:
    """The account's balance: bought and free credits, in USD."""

    credits: float
    free_credits: float

    @property
    def total(self) -> float:
        """All that can be spent."""
        return self.credits + self.free_credits


def parse_submission(response: ApiResponse) -> Submission:
    """Read the answer to a submit; one of success without a usable id means a charge that nobody can follow."""
    raise_for_status(response, charges=True)
    body = _json_object(response)
    if not is_request_id(body.get("request_id")):
        raise IdeogramUnknownSubmit(
            f"The API accepted the submit with HTTP {response.status}, but its answer holds no usable request_id: "
            f"{response.message}. The job was probably charged. Look it up in the account's request history."
        )
    return Submission(body["request_id"], _number(response.headers.get("x-remaining-credits")))


def parse_status(response: ApiResponse) -> RequestStatus:
    """Read a job's status, which the API serves as HTTP 422 where the job FAILED."""
    status = _reported(response, _json_object(response))
    if status is not None:
        return status
    raise_for_status(response)
    raise IdeogramServerUnavailable(f"The API's status answer has no status: {response.message}.")


def parse_result(response: ApiResponse, request_id: str) -> GenerationResult:
    """Read a completed job's result in every form that was seen; raise what a job that isn't completed means."""
    if 200 <= response.status < 300 and _is_image(response):
        return GenerationResult(ImageBytes(response.body))
    body = _json_object(response)
    status = _reported(response, body)
    if status is not None and status.state == "FAILED":
        raise failure(request_id, status)
    raise_for_status(response)
    if status is not None and status.state != "COMPLETED":  # the images in its body may be its inputs
        raise IdeogramServerUnavailable(f"Request {request_id} has no result yet: it is {status.state}.")
    image = find_image(body)
    if image is not None:
        return GenerationResult(image, status.inference_seconds if status else None)
    raise IdeogramUnexpectedResponse(
        f"The API says that request {request_id} is completed, but its result holds no image: {response.message}. "
        "The job was charged, and the vendor holds its result for one hour.",
        request_id=request_id,
    )


def parse_generated(response: ApiResponse) -> GenerationResult:
    """Read the answer of the synchronous endpoint: the image's bytes, or JSON that holds or names it."""
    raise_for_status(response, charges=True)
    image = ImageBytes(response.body) if _is_image(response) else find_image(_json_object(response))
    if image is None:
        raise IdeogramUnexpectedResponse(
            f"The synchronous call succeeded and was charged, but its answer holds no image: {response.message}. "
            "Look the image up in the account's request history."
        )
    return GenerationResult(image)


def parse_credits(response: ApiResponse) -> Credits:
    """Read the account's balance."""
    raise_for_status(response)
    body = _json_object(response)
    bought, free = _number(body.get("credits")), _number(body.get("free-credits"))
    if bought is None and free is None:
        raise IdeogramServerUnavailable(f"The API's credits answer has no credits: {response.message}.")
    return Credits(bought or 0.0, free or 0.0)


def failure(request_id: str, status: RequestStatus) -> IdeogramJobFailed:
    """Return the error that a FAILED job means."""
    kind = IdeogramContentBlocked if status.content_blocked else IdeogramJobFailed
    what = "was blocked because of its content" if status.content_blocked else "failed at the vendor"
    do = "Change the prompt" if status.content_blocked else "A retry of the task that submitted it pays for a new one"
    return kind(
        f"Request {request_id} {what}: {status.error or 'no reason given'}",
        f"It may have been charged: the account's request history tells. {do}.",
        request_id=request_id,
    )


def find_image(value: Any, depth: int = 0) -> ImageSource | None:
    """Return the first image in a result's value: an address, a ``data:`` URI or base64, however wrapped."""
    if depth > _MAX_IMAGE_DEPTH:
        return None
    if isinstance(value, str):
        return _image_of_text(value.strip())
    if isinstance(value, Mapping):
        candidates = [value[key] for key in _IMAGE_KEYS if key in value]
    else:
        candidates = value if isinstance(value, list) else []
    found = (find_image(candidate, depth + 1) for candidate in candidates)
    return next((image for image in found if image is not None), None)


def _image_of_text(text: str) -> ImageSource | None:
    if re.match(r"https?://", text, re.IGNORECASE):
        return ImageUrl(text)
    try:
        data = _data_of_uri(text) if text[:5].lower() == "data:" else _base64(text.encode("ascii"))
    except (binascii.Error, UnicodeEncodeError):
        return None
    return ImageBytes(data) if _SIGNATURES.match(data) else None


def _data_of_uri(uri: str) -> bytes:
    header, _, payload = uri.partition(",")
    data = unquote_to_bytes(payload)
    return _base64(data) if header.lower().endswith(";base64") else data


def _base64(data: bytes) -> bytes:
    compact = b"".join(data.split())
    return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)


def _is_image(response: ApiResponse) -> bool:
    return response.headers.get("content-type", "").strip().lower().startswith("image/")


def _json_object(response: ApiResponse) -> dict[str, Any]:
    body = response.json()
    return body if isinstance(body, dict) else {}


def _reported(response: ApiResponse, body: Mapping[str, Any]) -> RequestStatus | None:
    """Return the job's status, None where the answer is not one in which the API serves it: an error is no job's."""
    status = _status_of(body, response.redactor)
    if status is None or 200 <= response.status < 300:
        return status
    return status if response.status == 422 and status.state == "FAILED" else None


def _status_of(body: Mapping[str, Any], redactor: Redactor) -> RequestStatus | None:
    state = body.get("status")
    if not isinstance(state, str) or not re.fullmatch(r"[A-Za-z_ -]{1,40}", state):
        return None
    metrics = body.get("metrics")
    seconds = _number(metrics.get("inference_time")) if isinstance(metrics, Mapping) else None
    error = body.get("error")
    text = sanitize_text(error, redactor) if error else None
    return RequestStatus(state.upper(), seconds, text)


def _number(value: object) -> float | None:
    """Return a finite, non-negative number, None for whatever is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None
