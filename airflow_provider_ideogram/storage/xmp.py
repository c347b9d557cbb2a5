"""
XMP in the containers of PNG, JPEG and WebP.

Invariant: the compressed image data is copied, never encoded again, so the decoded pixels stay the same. Parts that are
not understood are copied as they are. The libraries that do this are not safe in threads, or under a licence that an
Apache-2.0 package can't require.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEYWORD = b"XML:com.adobe.xmp\0"
_JPEG_START = b"\xff\xd8"
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
#: A segment's length counts its own two bytes.
_MAX_JPEG_CONTENT = 0xFFFF - 2
_APP0, _APP1, _APP11, _START_OF_SCAN = 0xE0, 0xE1, 0xEB, 0xDA
#: Bits of the flags of a VP8X chunk.
_WEBP_XMP, _WEBP_ALPHA = 0x04, 0x10


class NotEmbedded(Exception):
    """The packet can't be embedded; the text says why."""


#: Returns the packet to embed, given the file's own one.
Merge: TypeAlias = Callable[[bytes | None], bytes]


def embed(file: bytes, content_type: str, merge: Merge) -> bytes:
    """
    Return a file with an XMP packet, in place of the one that it may have.

    :param content_type: ``image/png``, ``image/jpeg`` or ``image/webp``.
    :raises NotEmbedded: If the file has a C2PA manifest, or is not of the container's form.
    """
    writers = {"image/png": _png, "image/jpeg": _jpeg, "image/webp": _webp}
    if content_type not in writers:
        raise NotEmbedded(f"{content_type} has no place for it")
    try:
        return writers[content_type](file, merge)
    except (struct.error, IndexError) as problem:
        raise NotEmbedded(f"the file is not of the form of {content_type}") from problem


def _png(file: bytes, merge: Merge) -> bytes:
    """Insert a chunk behind the header, where readers of streams find it, or replace the one that is there."""
    place: tuple[int, int] | None = None
    packet = None
    for kind, start, end in _png_chunks(file):
        _refuse_c2pa(kind == b"caBX")
        place = place or (end, end)
        if kind == b"iTXt" and file.startswith(_PNG_KEYWORD, start + 8):
            place, packet = (start, end), _png_packet(file[start + 8 + len(_PNG_KEYWORD) : end - 4])
    data = b"iTXt" + _PNG_KEYWORD + b"\0\0\0\0" + merge(packet)
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    start, end = place or (0, 0)
    return file[:start] + chunk + file[end:]


def _png_packet(content: bytes) -> bytes:
    """Return the packet of a chunk, behind its compression flag and method, language and translated keyword."""
    if content[0]:
        raise NotEmbedded("its XMP data is compressed")
    return content[2:].split(b"\0", 2)[2]


def _png_chunks(file: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, the start and the end of each chunk, its length and checksum included."""
    position = len(_PNG_SIGNATURE)
    if not file.startswith(_PNG_SIGNATURE) or file[position + 4 : position + 8] != b"IHDR":
        raise NotEmbedded("the file does not begin as a PNG")
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", file, position)
        yield kind, position, position + length + 12
        position += length + 12


def _jpeg(file: bytes, merge: Merge) -> bytes:
    """Insert a segment behind those of JFIF and Exif, which have to be the first, or replace the one that is there."""
    place, packet, is_start = (len(_JPEG_START), len(_JPEG_START)), None, True
    for kind, start, end in _jpeg_segments(file):
        content = file[start + 4 : end]
        _refuse_c2pa(kind == _APP11 and b"jumb" in content and b"c2pa" in content)
        is_start &= kind == _APP0 or (kind == _APP1 and content.startswith(b"Exif\0"))
        if kind == _APP1 and content.startswith(_JPEG_XMP):
            place, packet = (start, end), content.removeprefix(_JPEG_XMP)
        elif is_start:
            place = end, end
    content = _JPEG_XMP + merge(packet)
    if len(content) > _MAX_JPEG_CONTENT:
        raise NotEmbedded(f"{len(content):,} bytes of XMP data do not fit into a JPEG")
    return file[: place[0]] + struct.pack(">BBH", 0xFF, _APP1, len(content) + 2) + content + file[place[1] :]


def _jpeg_segments(file: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, the start and the end of each segment before the image data."""
    position = len(_JPEG_START)
    if not file.startswith(_JPEG_START):
        raise NotEmbedded("the file does not begin as a JPEG")
    while True:
        if file[position] != 0xFF:
            raise NotEmbedded("the file has no marker where one is due")
        kind = file[position + 1]
        if kind == 0xFF:  # a fill byte
            position += 1
            continue
        if kind == _START_OF_SCAN:
            return
        (length,) = struct.unpack_from(">H", file, position + 2)
        yield kind, position, position + 2 + length
        position += 2 + length


def _webp(file: bytes, merge: Merge) -> bytes:
    """Append a chunk, and say so in the chunk VP8X, which is added to a file of the simple form."""
    riff, size, form = struct.unpack_from("<4sI4s", file)
    end = size + 8
    if (riff, form) != (b"RIFF", b"WEBP") or end > len(file):
        raise NotEmbedded("the file does not begin as a WebP, or is cut off")
    kept, packet = b"", None
    for kind, chunk in _riff_chunks(file[12:end]):
        _refuse_c2pa(kind == b"C2PA")
        if kind == b"XMP ":
            packet = chunk[8 : 8 + int.from_bytes(chunk[4:8], "little")]
        elif kind == b"VP8X":
            kept += chunk[:8] + bytes([chunk[8] | _WEBP_XMP]) + chunk[9:]
        else:
            kept += chunk if kept else _vp8x(kind, chunk[8:]) + chunk
    content = merge(packet)
    kept += b"XMP " + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(kept) + 4) + b"WEBP" + kept + file[end:]


def _riff_chunks(chunks: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and the bytes of each chunk, its header and padding included."""
    position = 0
    while position < len(chunks):
        kind, length = struct.unpack_from("<4sI", chunks, position)
        end = position + 8 + length + length % 2
        yield kind, chunks[position:end]
        position = end


def _vp8x(kind: bytes, data: bytes) -> bytes:
    """Return the chunk VP8X of a file whose image data is in a single chunk."""
    flags = _WEBP_XMP
    width: int
    height: int
    if kind == b"VP8L" and data[0] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, 1)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        flags |= _WEBP_ALPHA if bits >> 28 & 1 else 0
    elif kind == b"VP8 " and data[3:6] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 6))
    else:
        raise NotEmbedded("the WebP's image data is of an unknown form")
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X" + struct.pack("<I", 10) + bytes([flags, 0, 0, 0]) + size


def _refuse_c2pa(is_c2pa: bool) -> None:
    if is_c2pa:
        raise NotEmbedded("it has a C2PA manifest, which any change would invalidate")
