"""Gates of the tests, which tasks import by name."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from PIL.Image import Image

#: The size and mode of each image, its item, and the thread of the call.
calls: list[Any] = []
#: The verdicts of :func:`scripted`, in order.
verdicts: list[Any] = []


def scripted(image: Image, item: Mapping[str, Any]) -> Any:
    """Return the next verdict, or raise it."""
    calls.append((image.size, image.mode, dict(item), threading.get_ident()))
    verdict = verdicts.pop(0) if verdicts else True
    if isinstance(verdict, BaseException):
        raise verdict
    return verdict


not_a_function = "text"
