"""
An image on its way.

Invariant: a :class:`SpooledImage` is a complete image that was decoded once, of bounded size, hashed while it
came in; its type is what its bytes are, whatever anybody said.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import IO, Self

from PIL import Image, UnidentifiedImageError

from airflow_provider_ideogram.exceptions import IdeogramInvalidImage, IdeogramStorageError

#: The vendor's images have 0.1 to 4 MB; a PNG of its largest resolution without any compression has 4.
MAX_IMAGE_BYTES = 32 << 20
#: An image of the vendor's has at most 1.5 million pixels; a file of 2 KB can unfold to billions.
MAX_PIXELS = 4096 * 4096
#: WebP takes 16 bytes of memory a pixel to decode, and a worker has eight images at once: larger ones take turns.
_MANY_PIXELS = 2048 * 2048
_decoding_many = threading.Lock()
#: Kept in memory up to this size, on disk beyond.
_SPOOL_BYTES = 4 << 20
_FORMATS = ("JPEG", "PNG", "WEBP")
#: By Pillow's format. A JPEG that brings a second picture, such as a gain map, is an MPO to it.
_TYPES = {
    "JPEG": ("image/jpeg", "jpg"),
    "MPO": ("image/jpeg", "jpg"),
    "PNG": ("image/png", "png"),
    "WEBP": ("image/webp", "webp"),
}
_PNG_SIGNATURE_BYTES = 8


@dataclass(frozen=True, slots=True)
class SpooledImage:
    """
    A complete image in a temporary file, which ``with`` closes.

    :param file: The bytes, at their beginning.
    :param size_bytes: Their number.
    :param sha256: Their SHA-256, as bytes.
    :param content_type: ``image/jpeg``, ``image/png`` or ``image/webp``.
    :param extension: The usual ending of such a file's name, without a dot.
    :param width: Pixels across.
    :param height: Pixels down.
    """

    file: IO[bytes]
    size_bytes: int
    sha256: bytes
    content_type: str
    extension: str
    width: int
    height: int

    def __enter__(self) -> Self:
        """Return the image."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary file."""
        self.file.close()


class ImageSpool:
    """Take an image in, piece by piece; ``with`` removes what was taken in unless :meth:`finish` handed it on."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, piece: bytes) -> None:
        """Take in the next piece; raise IdeogramInvalidImage when there is more than any image has."""
        self.size_bytes += len(piece)
        if self.size_bytes > MAX_IMAGE_BYTES:
            raise IdeogramInvalidImage(f"the image has more than {MAX_IMAGE_BYTES:,} bytes")
        assert self._file is not None  # noqa: S101  only finish() takes it away
        with _disk_errors():
            self._file.write(piece)
        self._hash.update(piece)

    def finish(self) -> SpooledImage:
        """Return the image; raise IdeogramInvalidImage if what came is not a complete one."""
        assert self._file is not None  # noqa: S101
        with _disk_errors():
            self._file.seek(0)
        kind, width, height = _inspect(self._file, self.size_bytes)
        self._file.seek(0)
        file, self._file = self._file, None
        return SpooledImage(file, self.size_bytes, self._hash.digest(), *_TYPES[kind], width, height)

    def __enter__(self) -> Self:
        """Return the spool."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what was taken in."""
        if self._file is not None:
            self._file.close()


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise IdeogramStorageError(
            f"The worker's temporary directory does not take the image: {error}", "The image is paid; free some space."
        ) from error


def _inspect(file: IO[bytes], size_bytes: int) -> tuple[str, int, int]:
    """Return the kind, width and height; decode all of it, since a cut image has a sound beginning."""
    try:
        with Image.open(file, formats=_FORMATS) as image:
            kind, (width, height) = image.format or "", image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"it has {width} by {height} pixels")
            with _decoding_many if width * height > _MANY_PIXELS else nullcontext():
                image.load()
        if kind == "PNG" and not _png_ends(file):
            raise ValueError("it has no end")
    except UnidentifiedImageError as problem:  # whose own text names a temporary file
        text = f"what came, {size_bytes:,} bytes, is not a complete image: it is no PNG, JPEG or WebP"
        raise IdeogramInvalidImage(text) from problem
    # SyntaxError is Pillow's word for a broken PNG; its warnings are errors where warnings are.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Warning) as problem:
        raise IdeogramInvalidImage(f"what came, {size_bytes:,} bytes, is not a complete image: {problem}") from problem
    return kind, width, height


def _png_ends(file: IO[bytes]) -> bool:
    """Return whether the chunks of a PNG go on to its last one, without which Pillow is content."""
    file.seek(_PNG_SIGNATURE_BYTES)
    while len(header := file.read(8)) == 8:
        length = int.from_bytes(header[:4])
        if header[4:] == b"IEND":
            return len(file.read(length + 4)) == length + 4  # and a checksum
        file.seek(length + 4, io.SEEK_CUR)
    return False
