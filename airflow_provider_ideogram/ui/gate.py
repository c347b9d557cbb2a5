"""
The ASGI application around the gallery.

Invariant: every answer, whatever part produces it, has the security headers. At most :data:`MAX_REQUESTS` requests are
in the gallery; others are answered 503 before anything is read. A request's work ends when its browser has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse

from airflow_provider_ideogram.ui.work import THREADS, Work

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: A browser requests the images of a page at once: 6 over HTTP/1.1, all 60 over HTTP/2.
MAX_REQUESTS = THREADS + 64
RETRY_SECONDS = 2
#: The limits of the body of a request that changes something: some decisions with notes.
MAX_BODY_BYTES = 48 * 1024
BODY_SECONDS = 5.0
#: The key of a request's :class:`Work` in its scope.
WORK = "ideogram.work"
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Gate:
    """
    Admits requests to the application and completes its answers.

    :param app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            return
        is_static = scope["path"].startswith(f"{scope.get('root_path', '')}/static/")
        # The browser may keep static files, and asks each time whether they have changed.
        secured = _with_headers(send, SECURITY_HEADERS | ({"Cache-Control": "no-cache"} if is_static else {}))
        if "\0" in scope["path"]:  # PostgreSQL has no text with it
            await PlainTextResponse("This page does not exist.", 404)(scope, receive, secured)
        elif is_static:
            await self.app(scope, receive, secured)
        elif self._requests >= MAX_REQUESTS:
            await busy()(scope, receive, secured)
        else:
            self._requests += 1
            try:
                await self._serve(scope, receive, secured)
            finally:
                self._requests -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _read_body(scope, receive)
        except _BodyRefused as refusal:
            return await PlainTextResponse(str(refusal), refusal.status)(scope, receive, send)
        work = scope[WORK] = Work()
        gone = asyncio.ensure_future(_disconnect(receive))
        served = asyncio.ensure_future(self.app(scope, _replay(body, gone), send))
        try:
            await asyncio.wait((served, gone), return_when=asyncio.FIRST_COMPLETED)
            if served.done():
                await served  # raises its error
            else:
                work.stop()
                served.cancel()
                await asyncio.wait((served,))
        finally:
            work.stop()
            served.cancel()
            gone.cancel()


def busy() -> PlainTextResponse:
    """Return the answer to a request that found no place or no thread."""
    return PlainTextResponse(
        "Too many requests for images. Try again in a few seconds.", 503, {"Retry-After": str(RETRY_SECONDS)}
    )


class _BodyRefused(Exception):
    """
    The body of a request is too large or too slow; the message says which.

    :param status: The status of the answer.
    """

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    """Return the body of a request that changes something; that of any other is ignored."""
    body, more = b"", scope["method"] == "POST"
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > MAX_BODY_BYTES:
                    raise _BodyRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large.")
    except TimeoutError as error:
        raise _BodyRefused(HTTPStatus.REQUEST_TIMEOUT, "The request takes too long to arrive.") from error
    return body


async def _disconnect(receive: Receive) -> Message:
    """Return when the browser has closed the connection; what else it sends is ignored."""
    while (message := await receive())["type"] != "http.disconnect":
        pass
    return message


def _replay(body: bytes, gone: asyncio.Future[Message]) -> Receive:
    """Return what the application receives: a request with its whole body, then the disconnect."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else await asyncio.shield(gone)

    return receive


def _with_headers(send: Send, defaults: Mapping[str, str]) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in defaults.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers
