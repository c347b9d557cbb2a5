from __future__ import annotations

import io
import json
import logging
import random
import shutil
import struct
import subprocess
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.hooks.image import ImageSpool, SpooledImage
from airflow_provider_ideogram.storage.provenance import SOURCE_TYPE, mark
from airflow_provider_ideogram.storage.xmp import NotEmbedded, embed

if TYPE_CHECKING:
    from pathlib import Path

REQUEST = GenerationRequest("a lighthouse")
JOB = Job("r-1 <&\"'\0>", 1795392000.25, REQUEST, REQUEST.fingerprint, "s3://bucket/key")
#: The forms of a file: how Pillow writes them.
FORMS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "png with alpha": {"format": "PNG", "mode": "RGBA"},
    "jpeg": {"format": "JPEG"},
    "progressive jpeg with exif": {"format": "JPEG", "exif": True, "progressive": True},
    "webp": {"format": "WEBP"},
    "lossless webp": {"format": "WEBP", "lossless": True},
    "lossless webp with alpha": {"format": "WEBP", "lossless": True, "mode": "RGBA"},
    "extended webp": {"format": "WEBP", "exif": True, "mode": "RGBA"},
}
OWN_PACKET = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="the vendor"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def encoded(form: str, **options: Any) -> bytes:
    """Return a file of noise, of an odd size."""
    arguments = FORMS[form] | options
    mode = arguments.pop("mode", "RGB")
    size = (65, 47)
    noise = random.Random(7).randbytes(len(mode) * size[0] * size[1])
    if arguments.pop("exif", False):
        exif = Image.Exif()
        exif[0x010E] = "described"
        arguments["exif"] = exif
    file = io.BytesIO()
    Image.frombytes(mode, size, noise).save(file, **arguments)
    return file.getvalue()


def spooled(file: bytes) -> SpooledImage:
    with ImageSpool() as spool:
        spool.write(file)
        return spool.finish()


def marked(file: bytes) -> bytes | None:
    with spooled(file) as image:
        found = mark(JOB, image)
        assert image.file.read() == file
    if found is None:
        return None
    with found:
        return found.file.read()


def pixels(file: bytes) -> tuple[str, bytes]:
    with Image.open(io.BytesIO(file)) as image:
        return image.mode, image.tobytes()


def exif_of(file: bytes) -> Any:
    with Image.open(io.BytesIO(file)) as image:
        return dict(image.getexif())


@pytest.mark.parametrize("form", FORMS)
def test_marked_file_has_the_same_pixels_and_is_found_by_pillow(form: str) -> None:
    file = encoded(form)
    found = marked(file)
    assert found is not None
    assert pixels(found) == pixels(file)
    assert exif_of(found) == exif_of(file)
    with Image.open(io.BytesIO(found)) as image:
        assert SOURCE_TYPE in str(image.info["xmp"])
    assert marked(file) == found  # an image that is fetched again has the same bytes
    assert marked(found) is None  # and it has one mark


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed: libimage-exiftool-perl")
def test_exiftool_reads_the_mark_in_every_form(tmp_path: Path) -> None:
    for number, form in enumerate(FORMS):
        (tmp_path / f"{number}.{FORMS[form]['format'].lower()}").write_bytes(marked(encoded(form)) or b"")
        own = marked(encoded(form, xmp=OWN_PACKET)) if FORMS[form]["format"] != "PNG" else None
        if own:
            (tmp_path / f"own-{number}.{FORMS[form]['format'].lower()}").write_bytes(own)

    read = subprocess.run(["exiftool", "-json", "-n", "-G1", str(tmp_path)], capture_output=True, text=True, check=True)
    found = json.loads(read.stdout)
    assert len(found) == len(FORMS) + 6
    for tags in found:
        is_own = "/own-" in tags["SourceFile"]
        assert tags["XMP-iptcExt:DigitalSourceType"] == SOURCE_TYPE, tags
        assert tags["XMP-xmp:CreatorTool"] == ("the vendor" if is_own else REQUEST.model)
        assert tags["XMP-xmp:CreateDate"].startswith("2026:11:23 00:00:00.25")
        assert tags["XMP-dc:Identifier"] == "r-1 <&\"'>"
        assert "ExifTool:Warning" not in tags, tags


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    file = encoded("png")
    added = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return file[:33] + added + file[33:]


def jpeg_with(marker: int, data: bytes) -> bytes:
    file = encoded("jpeg")
    return file[:2] + struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data + file[2:]


def webp_with(kind: bytes, data: bytes) -> bytes:
    file = encoded("extended webp") + kind + struct.pack("<I", len(data)) + data
    return file[:4] + struct.pack("<I", len(file) - 8) + file[8:]


XMP_CHUNK = b"XML:com.adobe.xmp\0"
SOURCED = OWN_PACKET.replace(b"xmp:CreatorTool", b"Iptc4xmpExt:DigitalSourceType")


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (png_with((b"caBX", b"jumb")), "C2PA"),
        (jpeg_with(0xEB, b"JP\0\1\0\0\0\1....jumb....c2pa"), "C2PA"),
        (webp_with(b"C2PA", b"jumb"), "C2PA"),
        (png_with((b"iTXt", XMP_CHUNK + b"\1\0\0\0" + zlib.compress(OWN_PACKET))), "XMP data is compressed"),
        (png_with((b"iTXt", XMP_CHUNK + b"\0\0\0\0" + SOURCED)), "names a source"),
        (encoded("webp", xmp=b"no packet"), "not of the usual form"),
        (jpeg_with(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b" " * 65_000 + OWN_PACKET), "do not fit into a JPEG"),
        (encoded("png", format="GIF"), "image/gif has no place for it"),
    ],
)
def test_file_that_can_not_be_marked_is_left_alone(file: bytes, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert marked(file) is None
    assert "is stored without a provenance mark: " in caplog.text
    assert reason in caplog.text


def test_xmp_of_a_png_is_kept() -> None:
    found = marked(png_with((b"iTXt", XMP_CHUNK + b"\0\0\0\0" + OWN_PACKET)))
    assert found is not None
    assert found.count(XMP_CHUNK) == 1
    assert (b'xmp:CreatorTool="the vendor"' in found, SOURCE_TYPE.encode() in found) == (True, True)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_damaged_file_raises_no_other_error(kind: str) -> None:
    """Whatever is cut off or changed: the image is stored as it is."""
    file, rng = encoded(kind, mode="RGB"), random.Random(3)
    damaged = [file[:length] for length in range(0, 200, 3)]
    for _ in range(300):
        position = rng.randrange(min(len(file), 120))
        damaged.append(file[:position] + rng.randbytes(1) + file[position + 1 :])
    for each in damaged:
        try:
            embed(each, f"image/{kind}", lambda existing: b"packet")
        except NotEmbedded:
            continue
