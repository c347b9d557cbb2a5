"""
Where a result holds its image.

The vendor documents ``output`` as an address; public clients have seen a list, an object, base64, a ``data:`` URI, and
other keys.

Invariant: text counts as an image only if it is an address, or decodes to bytes with the signature of an image file; a
response's body is judged by its signature before its content type.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

#: The keys that hold images, in the order of preference.
_IMAGE_KEYS = ("output", "image", "images", "url", "image_url", "data", "b64_json", "base64")
#: The deepest known form, ``data[0].url``, has a depth of 3.
_MAX_DEPTH = 4
#: The beginnings of PNG, JPEG, WebP, GIF, AVIF, BMP, TIFF and JPEG 2000 files; without them most words would pass as
#: base64.
_SIGNATURES = re.compile(
    rb"\x89PNG|\xff\xd8\xff|RIFF....WEBP|GIF8|....ftyp|BM....\0{4}|II\*\0|MM\0\*|\0{3}\x0cjP  |\xff\x4f\xff\x51",
    re.DOTALL,
)
#: An address without a host, or without a scheme. A path that does not begin with a slash needs the ending of an image.
_RELATIVE_ADDRESS = re.compile(
    r"/\S{1,2000}|[^\s:]{1,2000}\.(?:png|jpe?g|webp|gif|avif)(?:\?\S{0,2000})?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """
    An image that is to be fetched from an address.

    :param url: The address, which may be relative to the API's base URL.
    """

    url: str


@dataclass(frozen=True, slots=True)
class ImageBytes:
    """An image that the response contains."""

    data: bytes = field(repr=False)


ImageSource: TypeAlias = ImageUrl | ImageBytes


def find_image(value: Any, depth: int = 0) -> ImageSource | None:
    """Return the first image in a result's value, None if it has none."""
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, str):
        return _image_of_text(value.strip())
    if isinstance(value, Mapping):
        candidates = [value[key] for key in _IMAGE_KEYS if key in value]
    else:
        candidates = value if isinstance(value, list) else []
    found = (find_image(candidate, depth + 1) for candidate in candidates)
    return next((image for image in found if image is not None), None)


def has_image_signature(data: bytes) -> bool:
    """Return whether data begins as an image file does."""
    return _SIGNATURES.match(data) is not None


def _image_of_text(text: str) -> ImageSource | None:
    if re.match(r"https?://", text, re.IGNORECASE):
        return ImageUrl(text)
    try:
        data = _data_of_uri(text) if text[:5].lower() == "data:" else _base64(text.encode("ascii"))
    except (binascii.Error, UnicodeEncodeError):
        data = b""
    if has_image_signature(data):  # before the address: the base64 of a JPEG begins with a slash
        return ImageBytes(data)
    return ImageUrl(text) if _RELATIVE_ADDRESS.fullmatch(text) else None


def _data_of_uri(uri: str) -> bytes:
    header, _, payload = uri.partition(",")
    data = unquote_to_bytes(payload)
    return _base64(data) if header.lower().endswith(";base64") else data


_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def _base64(data: bytes) -> bytes:
    compact = b"".join(data.split()).translate(_URL_SAFE)
    return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
