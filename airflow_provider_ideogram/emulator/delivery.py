"""How a fault strikes an answer on its way to the client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable

from aiohttp import web

from airflow_provider_ideogram.emulator.faults import Fault

_PIECE = 1 << 16
#: l_onoff, l_linger: closing then sends a reset instead of the orderly end.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

_ERROR_BODIES: dict[str, tuple[str, Callable[[str], bytes]]] = {
    "error": ("application/json", lambda text: json.dumps({"error": text}).encode()),
    "message": ("application/json", lambda text: json.dumps({"message": text}).encode()),
    "detail": ("application/json", lambda text: json.dumps({"detail": text}).encode()),
    "text": ("text/plain", str.encode),
    "html": ("text/html", lambda text: f"<html><body><h1>{text}</h1></body></html>".encode()),
    "empty": ("text/plain", lambda _: b""),
    "binary": ("text/plain", lambda _: b"\xff\xfe\x80 not UTF-8"),
}


async def deliver(
    request: web.Request, fault: Fault | None, act: Callable[[], Awaitable[web.Response]]
) -> web.StreamResponse:
    """
    Answer a request, with a fault if there is one.

    :param request: The request.
    :param fault: What goes wrong.
    :param act: Makes the call take effect and returns its answer.
    """
    if fault is None:
        return await act()
    if fault.kind in _ALTERATIONS:
        return await _ALTERATIONS[fault.kind](request, fault, await act())
    answer = await act() if fault.when == "after" else None
    instead = await _INTERRUPTIONS[fault.kind](request, fault)
    if instead is not None:
        return instead
    return await act() if answer is None else answer


async def _error(_: web.Request, fault: Fault) -> web.Response:
    content_type, body = _ERROR_BODIES[fault.body]
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    text = fault.text or f"emulated error {fault.status}"
    return web.Response(status=fault.status, body=body(text), content_type=content_type, headers=headers)


async def _reset(request: web.Request, _: Fault) -> web.Response:
    transport = request.transport
    if transport is not None:
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
    return web.Response()  # goes nowhere


async def _slow(_: web.Request, fault: Fault) -> None:
    await asyncio.sleep(fault.seconds)


async def _truncated(request: web.Request, _: Fault, answer: web.Response) -> web.StreamResponse:
    body = _body(answer)
    stream = _stream(answer)
    stream.content_length = len(body)
    await stream.prepare(request)
    await stream.write(body[: len(body) // 2])
    return stream


async def _not_image(_: web.Request, __: Fault, answer: web.Response) -> web.Response:
    body = b"<html><body>This is not the image that was announced.</body></html>"
    return web.Response(body=body, content_type=answer.content_type)


async def _oversize(request: web.Request, fault: Fault, answer: web.Response) -> web.StreamResponse:
    stream = _stream(answer)
    stream.content_length = max(fault.size, len(_body(answer)))
    return await _pad(request, stream, _body(answer), stream.content_length)


async def _endless(request: web.Request, _: Fault, answer: web.Response) -> web.StreamResponse:
    return await _pad(request, _stream(answer), _body(answer), None)


async def _redirect(_: web.Request, fault: Fault, __: web.Response) -> web.Response:
    return web.Response(status=302, headers={"Location": fault.location})


async def _content_type(_: web.Request, fault: Fault, answer: web.Response) -> web.Response:
    return web.Response(status=answer.status, body=_body(answer), headers={"Content-Type": fault.content_type})


def _body(answer: web.Response) -> bytes:
    return bytes(answer.body) if isinstance(answer.body, bytes | bytearray | memoryview) else b""


def _stream(answer: web.Response) -> web.StreamResponse:
    stream = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
    stream.force_close()
    return stream


async def _pad(request: web.Request, stream: web.StreamResponse, body: bytes, size: int | None) -> web.StreamResponse:
    """Send the body, then zeros up to the size, or until the client has had enough."""
    await stream.prepare(request)
    with contextlib.suppress(ConnectionError):
        await stream.write(body)
        sent = len(body)
        while size is None or sent < size:
            piece = bytes(_PIECE if size is None else min(_PIECE, size - sent))
            await stream.write(piece)
            sent += len(piece)
    return stream


_INTERRUPTIONS: dict[str, Callable[[web.Request, Fault], Awaitable[web.Response | None]]] = {
    "error": _error,
    "reset": _reset,
    "slow": _slow,
}
_ALTERATIONS: dict[str, Callable[[web.Request, Fault, web.Response], Awaitable[web.StreamResponse]]] = {
    "truncated": _truncated,
    "not_image": _not_image,
    "oversize": _oversize,
    "endless": _endless,
    "redirect": _redirect,
    "content_type": _content_type,
}
