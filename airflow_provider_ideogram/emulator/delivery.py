"""Apply a fault to the response of a call."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable

from aiohttp import web

from airflow_provider_ideogram.emulator.faults import Fault

_CHUNK = 1 << 16
#: l_onoff and l_linger: close() sends a TCP reset instead of an orderly end.
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
    request: web.Request, fault: Fault | None, execute: Callable[[], Awaitable[web.Response]]
) -> web.StreamResponse:
    """
    Execute a call and return its response, with a fault applied.

    :param request: The request.
    :param fault: The fault, None for none.
    :param execute: Executes the call and returns its response.
    """
    if fault is None:
        return await execute()
    if fault.kind in _ALTERATIONS:
        return await _ALTERATIONS[fault.kind](request, fault, await execute())
    response = await execute() if fault.when == "after" else None
    replacement = await _INTERRUPTIONS.get(fault.kind, _error)(request, fault)
    if replacement is not None:
        return replacement
    return await execute() if response is None else response


async def _error(_: web.Request, fault: Fault) -> web.Response:
    content_type, body = _ERROR_BODIES[fault.body]
    headers = dict(fault.headers or {})
    if fault.retry_after is not None:
        headers["Retry-After"] = str(fault.retry_after)
    status, text = fault.error
    return web.Response(status=status, body=body(text), content_type=content_type, headers=headers)


async def _reset(request: web.Request, _: Fault) -> web.Response:
    transport = request.transport
    if transport is not None:
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
    return web.Response()  # the connection is closed, so this is not sent


async def _slow(_: web.Request, fault: Fault) -> None:
    await asyncio.sleep(fault.seconds)


async def _truncated(request: web.Request, _: Fault, response: web.Response) -> web.StreamResponse:
    body = _body(response)
    stream = _stream(response)
    stream.content_length = len(body)
    await stream.prepare(request)
    await stream.write(body[: len(body) // 2])
    return stream


async def _not_image(_: web.Request, __: Fault, response: web.Response) -> web.Response:
    body = b"<html><body>This is not an image.</body></html>"
    return web.Response(body=body, content_type=response.content_type)


async def _oversize(request: web.Request, fault: Fault, response: web.Response) -> web.StreamResponse:
    stream = _stream(response)
    stream.content_length = max(fault.size, len(_body(response)))
    return await _pad(request, stream, _body(response), stream.content_length)


async def _endless(request: web.Request, _: Fault, response: web.Response) -> web.StreamResponse:
    return await _pad(request, _stream(response), _body(response), None)


async def _redirect(_: web.Request, fault: Fault, __: web.Response) -> web.Response:
    return web.Response(status=302, headers={"Location": fault.location})


async def _content_type(_: web.Request, fault: Fault, response: web.Response) -> web.Response:
    return web.Response(status=response.status, body=_body(response), headers={"Content-Type": fault.content_type})


def _body(response: web.Response) -> bytes:
    return bytes(response.body) if isinstance(response.body, bytes | bytearray | memoryview) else b""


def _stream(response: web.Response) -> web.StreamResponse:
    stream = web.StreamResponse(status=response.status, headers={"Content-Type": response.content_type})
    stream.force_close()
    return stream


async def _pad(request: web.Request, stream: web.StreamResponse, body: bytes, size: int | None) -> web.StreamResponse:
    """Send the body, then zeros up to the size, or until the client closes the connection."""
    await stream.prepare(request)
    with contextlib.suppress(ConnectionError):
        await stream.write(body)
        sent = len(body)
        while size is None or sent < size:
            chunk = bytes(_CHUNK if size is None else min(_CHUNK, size - sent))
            await stream.write(chunk)
            sent += len(chunk)
    return stream


#: All other kinds that replace a response are errors.
_INTERRUPTIONS: dict[str, Callable[[web.Request, Fault], Awaitable[web.Response | None]]] = {
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
