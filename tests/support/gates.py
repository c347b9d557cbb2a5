"""Gates of the tests, which tasks import by name."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from PIL.Image import Image

#: The import path of :func:`scripted`.
SCRIPTED = "tests.support.gates.scripted"

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


def has_its_size(image: Image, item: Mapping[str, Any]) -> bool:
    """Return whether an image has the size that its item asks for."""
    return bool(item["resolution"] == "RESOLUTION_{}_{}".format(*image.size))


@pytest.fixture(autouse=True)
def forgotten_gates() -> Iterator[None]:
    """Forget calls and verdicts after each test of the module that imports this fixture."""
    yield
    calls.clear()
    verdicts.clear()


not_a_function = "text"
