"""
What the API's answers mean.

Invariant: every function takes a whole :class:`Answer` and either returns its meaning or raises an
:class:`~airflow_provider_ideogram.exceptions.IdeogramError`; no answer, however broken, raises anything else.
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

from airflow_provider_ideogram.api.errors import Answer, raise_for_status, readable
from airflow_provider_ideogram.api.request_id import is_request_id
from airflow_provider_ideogram.exceptions import (
    IdeogramContentBlocked,
    IdeogramJobFailed,
    IdeogramServerUnavailable,
    IdeogramUnexpectedAnswer,
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
    """The image came inside the answer."""

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


def parse_submission(answer: Answer) -> Submission:
    """Read the answer to a submit; one of success without a usable id means a charge that nobody can follow."""
    raise_for_status(answer, charges=True)
    body = _json_object(answer)
    if not is_request_id(body.get("request_id")):
        raise IdeogramUnknownSubmit(
            f"The API accepted the submit with HTTP {answer.status}, but its answer holds no usable request_id: "
            f"{readable(answer)}. The job was probably charged. Look it up in the account's request history."
        )
    return Submission(body["request_id"], _number(answer.headers.get("x-remaining-credits")))


def parse_status(answer: Answer) -> RequestStatus:
    """Read a job's status, which the API serves as HTTP 422 where the job FAILED."""
    status = _reported(answer, _json_object(answer))
    if status is not None:
        return status
    raise_for_status(answer)
    raise IdeogramServerUnavailable(f"The API's status answer has no status: {readable(answer)}.")


def parse_result(answer: Answer, request_id: str) -> GenerationResult:
    """Read a completed job's result in every form that was seen; raise what a job that isn't completed means."""
    if 200 <= answer.status < 300 and _is_image(answer):
        return GenerationResult(ImageBytes(answer.body))
    body = _json_object(answer)
    status = _reported(answer, body)
    if status is not None and status.state == "FAILED":
        raise failure(request_id, status)
    raise_for_status(answer)
    if status is not None and status.state != "COMPLETED":  # the images in its body may be its inputs
        raise IdeogramServerUnavailable(f"Request {request_id} has no result yet: it is {status.state}.")
    image = find_image(body)
    if image is not None:
        return GenerationResult(image, status.inference_seconds if status else None)
    raise IdeogramUnexpectedAnswer(
        f"The API says that request {request_id} is completed, but its result holds no image: {readable(answer)}. "
        "The job was charged, and the vendor holds its result for one hour.",
        request_id=request_id,
    )


def parse_generated(answer: Answer) -> GenerationResult:
    """Read the answer of the synchronous endpoint: the image's bytes, or JSON that holds or names it."""
    raise_for_status(answer, charges=True)
    image = ImageBytes(answer.body) if _is_image(answer) else find_image(_json_object(answer))
    if image is None:
        raise IdeogramUnexpectedAnswer(
            f"The synchronous call succeeded and was charged, but its answer holds no image: {readable(answer)}. "
            "Look the image up in the account's request history."
        )
    return GenerationResult(image)


def parse_credits(answer: Answer) -> Credits:
    """Read the account's balance."""
    raise_for_status(answer)
    body = _json_object(answer)
    bought, free = _number(body.get("credits")), _number(body.get("free-credits"))
    if bought is None and free is None:
        raise IdeogramServerUnavailable(f"The API's credits answer has no credits: {readable(answer)}.")
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


def _is_image(answer: Answer) -> bool:
    return answer.headers.get("content-type", "").strip().lower().startswith("image/")


def _json_object(answer: Answer) -> dict[str, Any]:
    body = answer.json()
    return body if isinstance(body, dict) else {}


def _reported(answer: Answer, body: Mapping[str, Any]) -> RequestStatus | None:
    """Return the job's status, None where the answer is not one in which the API serves it: an error is no job's."""
    status = _status_of(body, answer.secret)
    if status is None or 200 <= answer.status < 300:
        return status
    return status if answer.status == 422 and status.state == "FAILED" else None


def _status_of(body: Mapping[str, Any], secret: str) -> RequestStatus | None:
    state = body.get("status")
    if not isinstance(state, str) or not re.fullmatch(r"[A-Za-z_ -]{1,40}", state):
        return None
    metrics = body.get("metrics")
    seconds = _number(metrics.get("inference_time")) if isinstance(metrics, Mapping) else None
    error = body.get("error")
    text = readable(error, secret) if error else None
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
