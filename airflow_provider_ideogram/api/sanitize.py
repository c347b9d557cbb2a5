"""
Short, safe text from values that a server or a user sent.

Invariant: the result is one line of printable characters, of bounded length, without the API key. Whatever undoes an
encoding (JSON, HTML) redacts its result again.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_MAX_TEXT = 300
#: Characters that are examined: a response that may hold an image is far larger.
MAX_EXAMINED = 20_000
#: ``{"error": {"message": ...}}`` and the like; no known server nests deeper.
_MAX_DEPTH = 5
_MASK = "***"


@dataclass(frozen=True, slots=True)
class Redactor:
    """
    Replaces the API key in texts.

    :param secret: The key; empty where there is nothing to replace.
    """

    secret: str = field(default="", repr=False)

    def text(self, text: str) -> str:
        """Replace the key in any case, also where a space took the place of a dropped character."""
        return _pattern_of(self.secret).sub(_MASK, text) if self.secret else text

    def json(self, value: Any, source: bytes) -> Any:
        """
        Replace the key in a value that was decoded from JSON.

        :param source: What it was decoded from: the key may be in it as it is, in escapes, or in UTF-16.
        """
        if not self.secret or not any(sign in source for sign in (self.secret.encode(), b"\\", b"\0")):
            return value
        text, secret = (json.dumps(item, ensure_ascii=False) for item in (value, self.secret))
        return json.loads(text.replace(secret[1:-1], _MASK))


NO_REDACTION = Redactor()


def sanitize_text(value: Any, redactor: Redactor = NO_REDACTION) -> str:
    """
    Return a text, or the message within a JSON value, as one short line without a full stop.

    JSON is searched for ``error``, ``message`` and ``detail``. Control characters are dropped, so that the text cannot
    forge a line of a log.
    """
    text = message_of(value)[:MAX_EXAMINED]
    text = "".join(character if character.isprintable() else " " for character in text)
    text = redactor.text(" ".join(text.split())).rstrip(" .")
    return (text[: _MAX_TEXT - 1] + "…" if len(text) > _MAX_TEXT else text) or "no text"


def message_of(value: Any, depth: int = 0) -> str:
    """Return the error message within a JSON value, or the whole value as JSON."""
    if isinstance(value, str):
        return value
    if depth < _MAX_DEPTH and isinstance(value, Mapping):
        for key in ("error", "message", "detail", "msg"):
            if value.get(key):
                return message_of(value[key], depth + 1)
    if depth < _MAX_DEPTH and isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return "; ".join(message_of(item, depth + 1) for item in value[:5])
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        return "text that is nested too deep"


@functools.lru_cache(maxsize=8)
def _pattern_of(secret: str) -> re.Pattern[str]:
    return re.compile(" ?".join(map(re.escape, secret)), re.IGNORECASE)
