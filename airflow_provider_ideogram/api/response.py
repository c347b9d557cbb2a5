"""An HTTP response of the API."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_ideogram.api.sanitize import MAX_EXAMINED, NO_REDACTION, Redactor, sanitize_text

_MAX_ERROR_BYTES = 1 << 20
#: Values in a JSON document, each of which takes up to 70 bytes of memory; a page of the history has some thousands.
_MAX_VALUES = 1_000_000
#: Tags, and what is no text between them. No "<" can make it look at the same text twice.
_MARKUP = re.compile(r"(?is)<(script|style)\b.*?(?:</\1\s*>|\Z)|<[^<>]*>")


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """
    An HTTP response, read whole.

    :param status: The HTTP status.
    :param headers: The headers, their names in lower case.
    :param body: The body. Of its content-encodings, only one of gzip is decoded.
    :param redactor: Replaces the key, which a server may repeat, in :meth:`json` and :attr:`message`.
    :param received_at: When it was received, in seconds since the epoch; None where no clock was read.
    :param conn_id: The Airflow connection whose key was sent, for errors; empty if there is none.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    redactor: Redactor = NO_REDACTION
    received_at: float | None = None
    conn_id: str = ""

    def json(self) -> Any:
        """Return the body as JSON; None if it is not JSON, is nested too deep, or has too many values."""
        if sum(map(self.body.count, (b",", b"[", b"{"))) > _MAX_VALUES:
            return None
        try:
            return self.redactor.json(json.loads(self.body), self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def message(self) -> str:
        """What the server says, as one short line."""
        return sanitize_text(self._message(), self.redactor)

    def _message(self) -> Any:
        if len(self.body) <= _MAX_ERROR_BYTES and (value := self.json()) is not None:
            return value
        encoding = self.headers.get("content-encoding", "identity")
        if encoding.lower() not in ("identity", "gzip", "x-gzip"):
            return f"a body in the content-encoding {encoding}, which was not asked for"
        text = self.body[:MAX_EXAMINED].decode("utf-8", "replace")
        if re.search(r"<\s*(!doctype|html|head|body|title|h1)", text, re.IGNORECASE):
            text = html.unescape(_MARKUP.sub(" ", text))
        return text
