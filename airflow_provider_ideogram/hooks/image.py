"""
An image in a temporary file.

Invariant: a :class:`SpooledImage` is a complete image of bounded size: it was decoded once, and hashed as it was
written. Its type follows from its bytes, not from a header or a file name. Pillow is imported only to decode: a slice
that submits does without.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import io
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import IO, Self

from airflow_provider_ideogram.exceptions import IdeogramInvalidImage, IdeogramStorageError

#: The start of the advice of all errors about an image: a request whose image can be downloaded was charged.
IMAGE_IS_PAID = "The image is paid."
#: The vendor's images have 0.1 to 4 MB; an uncompressed PNG of the largest resolution has 4 MB.
MAX_IMAGE_BYTES = 32 << 20
#: The vendor's images have at most 1.5 million pixels; a file of 2 KB can decode to billions.
MAX_PIXELS = 4096 * 4096
#: Above this size one image is decoded at a time: WebP takes 16 bytes of memory a pixel, and a worker handles eight
#: images at once.
_LARGE_PIXELS = 2048 * 2048
_large_image_lock = threading.Lock()
#: A larger image is written to disk instead of memory.
_SPOOL_BYTES = 4 << 20
#: Content type and extension by Pillow's format. Pillow calls a JPEG with a second picture, such as a gain map, an MPO.
#: The vendor sends the first four; an image of another kind is paid, too. Left out are formats without a signature, and
#: those that start a program (EPS).
_TYPES = {
    "JPEG": ("image/jpeg", "jpg"),
    "MPO": ("image/jpeg", "jpg"),
    "PNG": ("image/png", "png"),
    "WEBP": ("image/webp", "webp"),
    "GIF": ("image/gif", "gif"),
    "AVIF": ("image/avif", "avif"),
    "BMP": ("image/bmp", "bmp"),
    "TIFF": ("image/tiff", "tiff"),
    "JPEG2000": ("image/jp2", "jp2"),
}
#: Pillow's modules of these formats. All of its modules would take 50 ms of CPU, most of them for PDF.
_PLUGINS = ("Jpeg", "Mpo", "Png", "WebP", "Gif", "Avif", "Bmp", "Tiff", "Jpeg2K")
#: The extension by content type.
EXTENSIONS = dict(_TYPES.values())
_PNG_SIGNATURE_BYTES = 8


@dataclass(frozen=True, slots=True)
class SpooledImage:
    """
    A complete image in a temporary file, which ``with`` closes.

    :param file: The file, positioned at its start.
    :param size_bytes: Its size.
    :param sha256: Its SHA-256 digest.
    :param content_type: The content type, such as ``image/png``.
    :param extension: The usual file name extension, without a dot.
    :param width: The width in pixels.
    :param height: The height in pixels.
    :param provenance: The mark that it has, None if none was added.
    """

    file: IO[bytes]
    size_bytes: int
    sha256: bytes
    content_type: str
    extension: str
    width: int
    height: int
    provenance: str | None = None

    def __enter__(self) -> Self:
        """Return the image."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary file."""
        self.file.close()


class ImageSpool:
    """Writes an image to a temporary file; ``with`` removes the file unless :meth:`finish` returned it."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Write the next chunk; raise IdeogramInvalidImage if the image is too large."""
        self.size_bytes += len(chunk)
        if self.size_bytes > MAX_IMAGE_BYTES:
            raise IdeogramInvalidImage(f"the image has more than {MAX_IMAGE_BYTES:,} bytes", IMAGE_IS_PAID)
        assert self._file is not None  # noqa: S101 - only finish() removes it
        with _disk_errors():
            self._file.write(chunk)
        self._hash.update(chunk)

    def finish(self) -> SpooledImage:
        """Return the image; raise IdeogramInvalidImage if it is not complete."""
        assert self._file is not None  # noqa: S101 - finish() is called once
        with _disk_errors():
            self._file.seek(0)
        kind, width, height = _decode(self._file, self.size_bytes)
        self._file.seek(0)
        file, self._file = self._file, None
        return SpooledImage(file, self.size_bytes, self._hash.digest(), *_TYPES[kind], width, height)

    def __enter__(self) -> Self:
        """Return the spool."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary file, unless :meth:`finish` returned it."""
        if self._file is not None:
            self._file.close()


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise IdeogramStorageError(
            f"the worker's temporary directory does not accept the image: {error}",
            f"{IMAGE_IS_PAID} Free some space.",
            charged=True,
        ) from error


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """Return the formats that this build of Pillow can read: some have no AVIF or JPEG 2000."""
    from PIL import Image

    for plugin in _PLUGINS:
        with suppress(ImportError):  # before Pillow 11.3 there is none for AVIF
            importlib.import_module(f"PIL.{plugin}ImagePlugin")
    return tuple(name for name in _TYPES if name in Image.OPEN)


def large_image_turn(width: int, height: int) -> AbstractContextManager[object]:
    """Return the context in which an image of a size may be decoded: large ones one at a time."""
    return _large_image_lock if width * height > _LARGE_PIXELS else nullcontext()


def _decode(file: IO[bytes], size_bytes: int) -> tuple[str, int, int]:
    """Return Pillow's format, width and height; decode the whole image, since the start of a cut one is valid."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=readable_formats()) as image:
            kind, (width, height) = image.format or "", image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"it has {width} by {height} pixels")
            with large_image_turn(width, height):
                image.load()
        if kind == "PNG" and not _has_png_end(file):
            raise ValueError("its last chunk is missing")
    except UnidentifiedImageError as error:  # its text names the temporary file
        raise _not_an_image(size_bytes, "it is of no known kind") from error
    # Each decoder raises errors of its own: SyntaxError for a broken PNG, RuntimeError for a broken AVIF. Pillow's
    # warnings are errors if Python's filters say so.
    except Exception as error:
        raise _not_an_image(size_bytes, error) from error
    return kind, width, height


def _not_an_image(size_bytes: int, problem: object) -> IdeogramInvalidImage:
    return IdeogramInvalidImage(
        f"the file received ({size_bytes:,} bytes) is not a complete image: {problem}", IMAGE_IS_PAID
    )


def _has_png_end(file: IO[bytes]) -> bool:
    """Return whether a PNG has its last chunk, which Pillow does not require."""
    file.seek(_PNG_SIGNATURE_BYTES)
    while len(header := file.read(8)) == 8:
        length = int.from_bytes(header[:4])
        if header[4:] == b"IEND":
            return len(file.read(length + 4)) == length + 4  # the data and a checksum
        file.seek(length + 4, io.SEEK_CUR)
    return False
