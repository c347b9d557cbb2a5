"""Every form in which the vendor was seen to hand over an image."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

#: The image's bytes as the whole answer, instead of JSON.
RAW = "raw"
URL = "url"

_BY_ADDRESS: dict[str, Callable[[str], dict[str, Any]]] = {
    URL: lambda url: {"output": url},
    "list": lambda url: {"output": [url]},
    "object-url": lambda url: {"output": {"url": url}},
    "object-image_url": lambda url: {"output": {"image_url": url}},
    "image": lambda url: {"image": url},
    "images-list": lambda url: {"images": [url]},
    "images-object": lambda url: {"images": [{"url": url}]},
    "top-url": lambda url: {"url": url},
    "data-list": lambda url: {"data": [{"url": url}]},
    "none": lambda _: {},
}
_BY_CONTENT: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "base64": lambda text, _: {"output": text},
    "data-uri": lambda text, image_format: {"output": f"data:image/{image_format};base64,{text}"},
}

#: ``none`` is a completed job whose result holds no image.
RESULT_FORMS = (*_BY_ADDRESS, *_BY_CONTENT, RAW)
#: The forms that hold the image itself.
FORMS_WITH_BYTES = (*_BY_CONTENT, RAW)


def image_part(form: str, url: str, image_format: str, image: bytes) -> dict[str, Any]:
    """
    Return the part of a result's body that holds or names the image.

    :param form: One of :data:`RESULT_FORMS` except ``raw``.
    :param url: The image's address.
    :param image_format: Such as ``png``.
    :param image: Its bytes; needed for :data:`FORMS_WITH_BYTES` alone.
    """
    if form in _BY_ADDRESS:
        return _BY_ADDRESS[form](url)
    return _BY_CONTENT[form](base64.b64encode(image).decode(), image_format)
