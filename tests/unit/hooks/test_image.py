from __future__ import annotations

import hashlib
import io
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from typing import IO, Any

import pytest
from hypothesis import given
from PIL import Image, PngImagePlugin

from airflow_provider_ideogram.exceptions import IdeogramInvalidImage, IdeogramStorageError
from airflow_provider_ideogram.hooks import image
from airflow_provider_ideogram.hooks.image import ImageSpool, SpooledImage
from tests.support import hostile

KINDS = {
    "PNG": ("image/png", "png"),
    "JPEG": ("image/jpeg", "jpg"),
    "WEBP": ("image/webp", "webp"),
    "GIF": ("image/gif", "gif"),
    "AVIF": ("image/avif", "avif"),
    "BMP": ("image/bmp", "bmp"),
    "TIFF": ("image/tiff", "tiff"),
    "JPEG2000": ("image/jp2", "jp2"),
}


def _encoded(kind: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((96, 64), 50).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def _spooled(*pieces: bytes) -> SpooledImage:
    with ImageSpool() as spool:
        for piece in pieces:
            spool.write(piece)
        return spool.finish()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The temporary files that the test made."""
    made: list[Any] = []
    make = tempfile.SpooledTemporaryFile

    def make_and_record(**options: Any) -> IO[bytes]:
        made.append(make(**options))
        file: IO[bytes] = made[-1]
        return file

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", make_and_record)
    return made


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("kind", KINDS)
def test_type_and_size_follow_from_the_bytes(kind: str, mode: str, files: list[Any]) -> None:
    if (kind, mode) == ("JPEG", "RGBA"):
        mode = "CMYK"
    data = _encoded(kind, mode)
    with _spooled(data[:7], data[7:-9], b"", data[-9:]) as spooled:
        assert spooled.file.read() == data
        assert (spooled.content_type, spooled.extension) == KINDS[kind]
        assert (spooled.width, spooled.height) == (96, 64)
        assert (spooled.size_bytes, spooled.sha256) == (len(data), hashlib.sha256(data).digest())
        assert not files[0].closed
    assert files[0].closed


def test_jpeg_with_a_second_picture_is_a_jpeg() -> None:
    buffer, picture = io.BytesIO(), Image.new("RGB", (8, 6))
    picture.save(buffer, "MPO", save_all=True, append_images=[picture])
    with _spooled(buffer.getvalue()) as spooled:
        assert (spooled.content_type, spooled.extension) == KINDS["JPEG"]
        assert (spooled.width, spooled.height) == (8, 6)


def test_first_frame_of_an_animation_is_decoded() -> None:
    buffer, frames = io.BytesIO(), [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    with _spooled(buffer.getvalue()) as spooled:
        assert (spooled.content_type, spooled.width, spooled.height) == ("image/gif", 8, 6)
        assert spooled.file.read() == buffer.getvalue()


@pytest.mark.parametrize("kind", ["TIFF", "JPEG2000"])
def test_decoder_may_read_the_file_itself(kind: str, files: list[Any]) -> None:
    """libtiff and OpenJPEG take a file descriptor, for which the file is written to disk."""
    buffer = io.BytesIO()
    Image.effect_noise((96, 64), 50).save(buffer, kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {}))
    with _spooled(buffer.getvalue()) as spooled:
        assert files[0]._rolled
        assert spooled.file.read() == buffer.getvalue()


def test_kind_that_pillow_cannot_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _encoded("AVIF")
    monkeypatch.delitem(Image.OPEN, "AVIF")
    image.readable_formats.cache_clear()
    try:
        with pytest.raises(IdeogramInvalidImage, match="it is of no known kind"):
            _spooled(data)
    finally:
        image.readable_formats.cache_clear()


@pytest.mark.slow
def test_slice_that_decodes_no_image_does_without_pillow() -> None:
    script = "import sys, airflow_provider_ideogram.storage.image_store; assert 'PIL.Image' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.parametrize("cut", [1, 4, 8, 11, 12])
def test_png_without_its_end_is_refused(cut: int) -> None:
    with pytest.raises(IdeogramInvalidImage, match="is not a complete image"):
        _spooled(_encoded("PNG")[:-cut])


def test_png_may_have_bytes_after_its_end() -> None:
    with _spooled(_encoded("PNG"), b"more bytes") as spooled:
        assert spooled.content_type == "image/png"


@pytest.mark.parametrize("call", ["write", "seek"])
def test_full_disk_is_a_storage_error(call: str, monkeypatch: pytest.MonkeyPatch, files: list[Any]) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def spool_image() -> None:
        with ImageSpool() as spool:
            monkeypatch.setattr(files[0], call, fail)
            spool.write(b"x")
            spool.finish()

    with pytest.raises(IdeogramStorageError, match=r"temporary directory does not accept the image.*No space left"):
        spool_image()


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_truncated_image_is_refused(kind: str, kept: float, files: list[Any]) -> None:
    data = _encoded(kind)
    with pytest.raises(IdeogramInvalidImage, match="is not a complete image"):
        _spooled(data[: int(len(data) * kept)])
    assert [file.closed for file in files] == [True]


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"<html>404</html>",
        lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        lambda: b"<html>" + _encoded("PNG"),
        lambda: b"\x89PNG\r\n\x1a\n" + bytes(100),
        lambda: _encoded("EPS"),
        lambda: _encoded("PPM"),
        lambda: _encoded("TGA"),
    ],
    ids=["empty", "html", "svg", "html before a PNG", "zeros", "EPS", "PPM", "TGA"],
)
def test_other_kinds_of_files_are_refused(make: Callable[[], bytes], files: list[Any]) -> None:
    with pytest.raises(IdeogramInvalidImage, match="is not a complete image"):
        _spooled(make())
    assert [file.closed for file in files] == [True]


def test_damaged_avif_is_refused() -> None:
    """Its decoder raises RuntimeError."""
    data = bytearray(_encoded("AVIF"))
    data[-200:] = bytes(200)
    data[data.index(b"mdat") + 4 : data.index(b"mdat") + 100] = bytes(96)
    with pytest.raises(IdeogramInvalidImage, match="is not a complete image"):
        _spooled(bytes(data))


@pytest.mark.parametrize("byte", [20, 45, 60])
def test_damaged_png_is_refused(byte: int) -> None:
    data = bytearray(_encoded("PNG"))
    data[byte] ^= 0xFF
    with pytest.raises(IdeogramInvalidImage, match="is not a complete image"):
        _spooled(bytes(data))


@pytest.mark.parametrize(
    ("width", "height"), [(100_000, 100_000), (10_000, 10_000), (4_096, 4_097), (2**31 - 1, 1), (0, 5)]
)
def test_header_with_too_many_pixels_is_refused(width: int, height: int, files: list[Any]) -> None:
    with pytest.raises(IdeogramInvalidImage, match="is not a complete image"):
        _spooled(_png_header(width, height))
    assert [file.closed for file in files] == [True]


@pytest.mark.parametrize(("limit", "one_at_a_time"), [(96 * 64 - 1, True), (96 * 64, False)])
def test_large_images_are_decoded_one_at_a_time(
    limit: int, one_at_a_time: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = PngImagePlugin.PngImageFile.load
    locked: list[bool] = []

    def check_lock_and_load(picture: PngImagePlugin.PngImageFile) -> Any:
        locked.append(image._large_image_lock.locked())
        return load(picture)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", check_lock_and_load)
    monkeypatch.setattr(image, "_LARGE_PIXELS", limit)
    with _spooled(_encoded("PNG")):
        assert locked == [one_at_a_time]
    assert not image._large_image_lock.locked()


def test_compressed_text_of_a_png_is_limited() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * (1 << 26), zip=True)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 4)).save(buffer, "PNG", pnginfo=info)
    assert len(buffer.getvalue()) < 100_000
    with pytest.raises(IdeogramInvalidImage, match="is not a complete image"):
        _spooled(buffer.getvalue())


def test_warning_of_pillow_is_refused_if_it_is_an_error() -> None:
    buffer, picture = io.BytesIO(), Image.new("RGB", (8, 6))
    picture.save(buffer, "MPO", save_all=True, append_images=[picture])
    with pytest.raises(IdeogramInvalidImage, match="malformed MPO"):
        _spooled(buffer.getvalue().replace(b"MPF\0MM", b"MPF\0XX").replace(b"MPF\0II", b"MPF\0XX"))


@given(**hostile.IMAGES)
def test_any_bytes_are_an_image_within_limits_or_refused(data: bytes) -> None:
    hostile.check_image(data)


def test_too_many_bytes_are_refused_at_once(monkeypatch: pytest.MonkeyPatch, files: list[Any]) -> None:
    monkeypatch.setattr(image, "MAX_IMAGE_BYTES", 10)
    with ImageSpool() as spool:
        spool.write(b"x" * 10)
        with pytest.raises(IdeogramInvalidImage, match="more than 10 bytes"):
            spool.write(b"x")
    assert [file.closed for file in files] == [True]


def test_large_image_is_written_to_disk(monkeypatch: pytest.MonkeyPatch, files: list[Any]) -> None:
    data = _encoded("PNG")
    with _spooled(data):
        assert not files[0]._rolled
    monkeypatch.setattr(image, "_SPOOL_BYTES", 1000)
    with _spooled(data[:2000], data[2000:]) as spooled:
        assert files[1]._rolled
        assert spooled.file.read() == data
    assert files[1].closed
