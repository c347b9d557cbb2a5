"""
Which error an answer is.

Invariant: the kind of error depends on the status alone, never on the body, and on whether the call charges:
where the server may have accepted a charged call, the error says so. Whatever undoes an encoding, of JSON or HTML,
takes the key out of what it finds.
"""

from __future__ import annotations

import functools
import html
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramError,
    IdeogramInsufficientCredits,
    IdeogramInvalidInput,
    IdeogramNotFound,
    IdeogramPermissionError,
    IdeogramRateLimited,
    IdeogramServerUnavailable,
    IdeogramUnknownSubmit,
)

#: As much of a server's words as helps a person; a gateway's page may be long.
_MAX_TEXT = 300
#: As much of them as is looked at: an answer that may hold an image is far larger.
_MAX_READ = 20_000
_MAX_JSON_BYTES = 1 << 20
#: Values in an answer, each of which takes up to 70 bytes of memory; a page of the history has some thousands.
_MAX_VALUES = 1_000_000
#: Tags, and what is no text between them. No "<" can make it look at the same text twice.
_MARKUP = re.compile(r"(?is)<(script|style)\b.*?(?:</\1\s*>|\Z)|<[^<>]*>")
#: ``{"error": {"message": ...}}`` and the like; no server goes deeper.
_MAX_DEPTH = 5
#: No server is believed that asks for more than the life of a result.
_MAX_RETRY_AFTER = 3600.0

_REFUSED: dict[int, tuple[type[IdeogramError], str, str]] = {
    400: (IdeogramInvalidInput, "refused the parameters", "Correct them."),
    401: (IdeogramAuthenticationError, "does not accept the API key", "Check the connection's password."),
    402: (IdeogramInsufficientCredits, "wants to be paid first", "Top up the account."),
    403: (
        IdeogramPermissionError,
        "does not permit this to the API key",
        "Check the account's plan and the key.",
    ),
    404: (
        IdeogramNotFound,
        "knows no such model, endpoint or request",
        "Check the model and the connection's host.",
    ),
    405: (IdeogramNotFound, "does not allow the method here", "Check the connection's host."),
    406: (IdeogramInsufficientCredits, "says that the credits don't suffice", "Top up the account."),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """
    An HTTP answer, read whole.

    :param status: The HTTP status.
    :param headers: The headers, their names in lower case.
    :param body: The body as it came: what is compressed, though that was not asked for, stays so.
    :param secret: The key, which a server may say again: no words of the answer, and no JSON of it, have it.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    secret: str = field(default="", repr=False)

    def json(self) -> Any:
        """Return the body as JSON, None if it is none, is nested too deep, or has more values than any of the API's."""
        if sum(map(self.body.count, (b",", b"[", b"{"))) > _MAX_VALUES:
            return None
        try:
            value = json.loads(self.body)
            # It may have come as it is, in escapes, or in UTF-16.
            if self.secret and any(sign in self.body for sign in (self.secret.encode(), b"\\", b"\0")):
                text, secret = (json.dumps(item, ensure_ascii=False) for item in (value, self.secret))
                value = json.loads(text.replace(secret[1:-1], "***"))
        except (ValueError, RecursionError):
            return None
        return value


def raise_for_status(answer: Answer, *, charges: bool = False) -> None:
    """
    Raise the error that a status outside of 2xx means.

    :param answer: The API's answer.
    :param charges: Whether the call was one that costs money when it is accepted.
    """
    status = answer.status
    if 200 <= status < 300:
        return
    said = f"HTTP {status}: {readable(answer)}"
    if status == 429:
        raise IdeogramRateLimited(
            f"The API's rate limit is reached ({said})",
            "Nothing was charged. An Airflow pool keeps single images below it, requests_per_minute a dataset.",
            retry_after=retry_after(answer),
        )
    if status >= 500 or status == 408:
        raise _server_error(said, answer, charges=charges)
    if 300 <= status < 400:
        raise IdeogramInvalidInput(
            f"The API redirects ({said}), which is not followed with a key",
            "Nothing was charged. Check the connection's host.",
        )
    kind, what, do = _REFUSED.get(status, (IdeogramInvalidInput, "refused the request", "Check the parameters."))
    raise kind(f"The API {what} ({said})", f"Nothing was charged. {do}")


def _server_error(said: str, answer: Answer, *, charges: bool) -> IdeogramError:
    if charges:
        return unknown_submit(f"The API failed ({said})")
    return IdeogramServerUnavailable(
        f"The API failed ({said})", "Nothing was charged by this call.", retry_after=retry_after(answer)
    )


def unknown_submit(what_happened: str) -> IdeogramUnknownSubmit:
    """Return the error of a submit that was sent and may or may not have been accepted."""
    return IdeogramUnknownSubmit(
        f"{what_happened} after the submit was sent: it may have been accepted and charged, and is not repeated",
        "Look it up in the account's request history; clear the task to submit, and pay for, a new request.",
    )


def retry_after(answer: Answer) -> float | None:
    """Return the seconds that ``Retry-After`` asks for (a number, or a date against the answer's own), or None."""
    value = answer.headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value, answer.headers.get("date", ""))
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER) if math.isfinite(seconds) else None


def _seconds_until(date: str, now: str) -> float:
    try:
        return (parsedate_to_datetime(date) - parsedate_to_datetime(now)).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return math.nan


def readable(said: Any, secret: str = "") -> str:
    """
    Return the words of an answer, or of a value in one, as one short line without a full stop.

    JSON is searched for ``error``, ``message`` and ``detail``, HTML is stripped; control characters are dropped,
    so that nothing in it can forge a line of a log.

    :param secret: The key, which is left out also where it was split. An answer brings its own.
    """
    if isinstance(said, Answer):
        said, secret = _words(said), said.secret
    text = _words_of_json(said)[:_MAX_READ]
    text = "".join(character if character.isprintable() else " " for character in text)
    text = " ".join(text.split())
    if secret:
        text = _anyhow(secret).sub("***", text)
    text = text.rstrip(" .")
    return (text[: _MAX_TEXT - 1] + "…" if len(text) > _MAX_TEXT else text) or "no text"


@functools.lru_cache(maxsize=8)
def _anyhow(secret: str) -> re.Pattern[str]:
    """Match a secret in any case, and with a space where something was dropped."""
    return re.compile(" ?".join(map(re.escape, secret)), re.IGNORECASE)


def _words(answer: Answer) -> str:
    if len(answer.body) <= _MAX_JSON_BYTES and (value := answer.json()) is not None:
        return _words_of_json(value)
    if (encoding := answer.headers.get("content-encoding", "identity")) != "identity":
        return f"a body in the content-encoding {encoding}, which was not asked for"
    text = answer.body[:_MAX_READ].decode("utf-8", "replace")
    if re.search(r"<\s*(!doctype|html|head|body|title|h1)", text, re.IGNORECASE):
        text = html.unescape(_MARKUP.sub(" ", text))
    return text


def _words_of_json(value: Any, depth: int = 0) -> str:
    if isinstance(value, str):
        return value
    if depth < _MAX_DEPTH and isinstance(value, Mapping):
        for key in ("error", "message", "detail", "msg"):
            if value.get(key):
                return _words_of_json(value[key], depth + 1)
    if depth < _MAX_DEPTH and isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return "; ".join(_words_of_json(item, depth + 1) for item in value[:5])
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        return "text that is nested too deep"
