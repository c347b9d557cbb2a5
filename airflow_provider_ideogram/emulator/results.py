"""The forms in which the API has been observed to return an image."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

#: The response body is the image itself, not JSON.
RAW = "raw"
URL = "url"
URL_LIST = "list"

#: The forms with URLs. Those without a list have room for the first output only.
_URL_FORMS: dict[str, Callable[[Sequence[str]], dict[str, Any]]] = {
    URL: lambda urls: {"output": urls[0]},
    URL_LIST: lambda urls: {"output": urls},
    "object-url": lambda urls: {"output": {"url": urls[0]}},
    "object-image_url": lambda urls: {"output": {"image_url": urls[0]}},
    "image": lambda urls: {"image": urls[0]},
    "images-list": lambda urls: {"images": urls},
    "images-object": lambda urls: {"images": [{"url": url} for url in urls]},
    "top-url": lambda urls: {"url": urls[0]},
    "data-list": lambda urls: {"data": [{"url": url} for url in urls]},
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


def image_fields(form: str, urls: Sequence[str], image_format: str, image: bytes) -> dict[str, Any]:
    """
    Return the fields of a result body that contain the image or its URL.

    :param form: One of :data:`RESULT_FORMS` except ``raw``.
    :param urls: The URLs of the outputs.
    :param image_format: The image's format, such as ``png``.
    :param image: The bytes of the first output; used only for :data:`FORMS_WITH_BYTES`.
    """
    if form in _URL_FORMS:
        return _URL_FORMS[form](urls)
    return _BASE64_FORMS[form](base64.b64encode(image).decode(), image_format)
