"""The forms in which the API has been observed to return an image."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

#: The response body is the image itself, not JSON.
RAW = "raw"
URL = "url"

_URL_FORMS: dict[str, Callable[[str], dict[str, Any]]] = {
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
_BASE64_FORMS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "base64": lambda text, _: {"output": text},
    "data-uri": lambda text, image_format: {"output": f"data:image/{image_format};base64,{text}"},
}

#: ``none`` is the result of a completed job without an image.
RESULT_FORMS = (*_URL_FORMS, *_BASE64_FORMS, RAW)
#: The forms that contain the image bytes.
FORMS_WITH_BYTES = (*_BASE64_FORMS, RAW)


def image_fields(form: str, url: str, image_format: str, image: bytes) -> dict[str, Any]:
    """
    Return the fields of a result body that contain the image or its URL.

    :param form: One of :data:`RESULT_FORMS` except ``raw``.
    :param url: The image's URL.
    :param image_format: The image's format, such as ``png``.
    :param image: The image's bytes; used only for :data:`FORMS_WITH_BYTES`.
    """
    if form in _URL_FORMS:
        return _URL_FORMS[form](url)
    return _BASE64_FORMS[form](base64.b64encode(image).decode(), image_format)
