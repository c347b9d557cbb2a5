"""
Bodies that a server compressed without being asked to.

Invariant: a body is decompressed once at most, and in pieces of bounded size, so that its reader can stop at a limit.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain

from airflow_provider_ideogram.api.retry_flow import ResponseNotReceived

#: How gzip data begins, and no JSON document and no image. Headers are not asked: some servers send a wrong one.
GZIP_SIGNATURE = b"\x1f\x8b"
_PIECE_BYTES = 64 << 10


def decompressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """
    Yield a body in pieces, decompressed if it begins as gzip data does.

    :raises ResponseNotReceived: If the gzip data is damaged.
    """
    remaining = iter(chunks)
    start = b""
    for chunk in remaining:
        start += chunk
        if len(start) >= len(GZIP_SIGNATURE):
            break
    body = chain([start], remaining)
    if not start.startswith(GZIP_SIGNATURE):
        yield from body
        return
    gzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    for chunk in body:
        while chunk and not gzip.eof:
            try:
                yield gzip.decompress(chunk, _PIECE_BYTES)
            except zlib.error as error:
                raise ResponseNotReceived(f"the gzip data of the response is damaged: {error}") from error
            chunk = gzip.unconsumed_tail
        if gzip.eof:
            return
