"""
The thumbnail of an image, which the gallery shows in its pages.

Invariant: a thumbnail has at most :data:`MAX_BYTES`, so that a page of 60 has less than 2 MB. Its key is derived from
the image's key and content: an image that replaces another never has the other's thumbnail.
"""

from __future__ import annotations

import hashlib
import io
from typing import IO, TYPE_CHECKING

from airflow_provider_ideogram.hooks.image import large_image_turn, readable_formats

if TYPE_CHECKING:
    from airflow_provider_ideogram.storage.target import Target

CONTENT_TYPE = "image/webp"
#: The folder of thumbnails below the ledger's prefix.
FOLDER = ".thumbnails/"
MAX_BYTES = 33_000
#: The long side in pixels and WebP's quality, until one of them is small enough; the last one is for noise.
_ENCODINGS = ((512, 65), (512, 40), (384, 35), (256, 40))
#: WebP's effort: half the time of the default for a few percent more bytes.
_METHOD = 2
#: JPEG is decoded at a fraction of its size, other images are reduced to three times the thumbnail's before resampling.
_REDUCING_GAP = 3.0


def thumbnail_key(prefix: str, target: Target, sha256: bytes) -> str:
    """
    Return the key of an image's thumbnail.

    :param prefix: The ledger's prefix.
    :param sha256: The digest of the image.
    """
    name = hashlib.sha256(target.key.encode() + b"\0" + sha256).hexdigest()
    return f"{prefix}{FOLDER}{name[:40]}.webp"


def make_thumbnail(file: IO[bytes]) -> bytes:
    """
    Return the thumbnail of an image.

    :param file: The image, which is read from its start.
    :raises Exception: Of any class, by Pillow, if it can't be decoded.
    """
    from PIL import Image, ImageOps  # a slice that submits does without

    file.seek(0)
    with Image.open(file, formats=readable_formats()) as image, large_image_turn(*image.size):
        side, _ = _ENCODINGS[0]
        image.thumbnail((side, side), Image.Resampling.LANCZOS, _REDUCING_GAP)
        # Browsers turn an image as its EXIF data says; the thumbnail has none.
        small = ImageOps.exif_transpose(image).convert("RGBA" if image.has_transparency_data else "RGB")
    for side, quality in _ENCODINGS:
        small.thumbnail((side, side))
        encoded = io.BytesIO()
        small.save(encoded, "WEBP", quality=quality, method=_METHOD)
        if encoded.tell() <= MAX_BYTES:
            break
    return encoded.getvalue()
