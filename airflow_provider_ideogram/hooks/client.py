"""
HTTP: how a :class:`~airflow_provider_ideogram.api.calls.Call` reaches the API.

Invariant: the key is added by :class:`SegmindAuth` and nowhere else, for the API's own origins only; redirects
are never followed with it. What is sent again is decided by :func:`~airflow_provider_ideogram.api.calls.exchange`;
the two drivers only send and wait. How a worker sends is here, how an event loop does in
:mod:`airflow_provider_ideogram.hooks.transport`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from airflow_provider_ideogram import __version__
from airflow_provider_ideogram.api.calls import MAX_ATTEMPTS, Call, NotSent, Unanswered, exchange
from airflow_provider_ideogram.api.errors import Answer, readable

if TYPE_CHECKING:
    from airflow_provider_ideogram.hooks.connection import ConnectionSettings
    from airflow_provider_ideogram.hooks.transport import AsyncTransport

T = TypeVar("T")

USER_AGENT = f"airflow-provider-ideogram/{__version__}"
#: An answer is small or an image, which does not get smaller; and what is not compressed can't explode. A server may
#: compress all the same: its answers are taken as they come, and never decompressed.
HEADERS = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
#: Seconds in which an answer must be whole, as a multiple of the timeout for each of its pieces.
_WHOLE_ANSWER_TIMEOUTS = 4


class SegmindAuth(httpx.Auth):
    """
    The key, for the API's own origins.

    :param settings: The connection's settings, which hold the key and name the origins.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._key = settings.api_key
        self._origins = {_origin(httpx.URL(url)) for url in (settings.base_url, settings.history_url) if url}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the key to a request to one of the origins, and to no other."""
        request.headers.update(self.headers(request.url))
        yield request

    def headers(self, url: httpx.URL) -> dict[str, str]:
        """Return the key's header for an address at one of the origins, and none for any other."""
        return {"x-api-key": self._key} if _origin(url) in self._origins else {}


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def client_options(settings: ConnectionSettings) -> dict[str, Any]:
    """Return what the sync and the async client of a connection have in common."""
    return {
        "base_url": settings.base_url,
        "auth": SegmindAuth(settings),
        "timeout": settings.timeout,
        "follow_redirects": False,
        "headers": HEADERS,
    }


class SyncDriver:
    """
    Send calls from a worker.

    :param settings: The connection's settings.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._rng = random.Random()
        self._client = httpx.Client(**client_options(settings))

    def run(self, call: Call[T], max_attempts: int = MAX_ATTEMPTS) -> T:
        """Send the call, again where that is allowed, and return what its answer means."""
        steps = exchange(call, self._rng, max_attempts)
        wait = next(steps)
        try:
            while True:
                if wait is None:
                    try:
                        answer = self._send(call)
                    except (NotSent, Unanswered) as problem:
                        wait = steps.throw(problem)
                    else:
                        wait = steps.send(answer)
                else:
                    time.sleep(wait)
                    wait = next(steps)
        except StopIteration as stop:
            meaning: T = stop.value
            return meaning

    def _send(self, call: Call[Any]) -> Answer:
        body = AnswerBody(call, self._settings)
        with (
            transport_errors(self._settings.api_key),
            self._client.stream(call.method, call.path, **request_options(call, self._client)) as response,
        ):
            for chunk in response.iter_raw():
                body.add(chunk)
            return body.answer(response.status_code, response.headers)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class AsyncDriver:
    """
    Send calls from an event loop. Reads only: see :class:`AsyncTransport`.

    :param transport: What sends them.
    """

    def __init__(self, transport: AsyncTransport) -> None:
        self._rng = random.Random()
        self._transport = transport

    async def run(self, call: Call[T], max_attempts: int = MAX_ATTEMPTS) -> T:
        """
        Send the call, again where that is allowed, and return what its answer means.

        :raises ValueError: For a call that charges: this transport says of some that they were not sent, and they were.
        """
        if call.charges:
            raise ValueError("calls that charge are sent by the sync driver only")
        steps = exchange(call, self._rng, max_attempts)
        wait = next(steps)
        try:
            while True:
                if wait is None:
                    try:
                        answer = await self._transport.send(call)
                    except (NotSent, Unanswered) as problem:
                        wait = steps.throw(problem)
                    else:
                        wait = steps.send(answer)
                else:
                    await asyncio.sleep(wait)
                    wait = next(steps)
        except StopIteration as stop:
            meaning: T = stop.value
            return meaning


def request_options(call: Call[Any], client: httpx.Client | httpx.AsyncClient) -> dict[str, Any]:
    """Return what a call adds to its client's options."""
    options: dict[str, Any] = {"timeout": call.timeout or client.timeout}
    return options if call.body is None else {**options, "json": call.body}


def whole_answer(timeout: float) -> float:
    """Return the seconds in which an answer must be whole, by the timeout for each of its pieces."""
    return _WHOLE_ANSWER_TIMEOUTS * timeout


class AnswerBody:
    """An answer's body while it is read: bounded in size and time."""

    def __init__(self, call: Call[Any], settings: ConnectionSettings) -> None:
        self._chunks: list[bytes] = []
        self._left = call.max_bytes
        self._until = time.monotonic() + whole_answer(call.timeout or settings.timeout)
        self._key = settings.api_key

    def add(self, chunk: bytes) -> None:
        """Take in a piece; raise Unanswered where it gets too much, or takes too long."""
        self._left -= len(chunk)
        if self._left < 0:
            raise Unanswered("the answer is larger than any of the API's")
        if time.monotonic() > self._until:
            raise Unanswered("the answer came too slowly")
        self._chunks.append(chunk)

    def answer(self, status: int, headers: Mapping[str, str]) -> Answer:
        """Return the answer that is now whole."""
        named = {name.lower(): value for name, value in headers.items()}
        # A server may say the key again in an error, and an error's text goes to logs, events and XComs.
        return Answer(status, named, b"".join(self._chunks), secret=self._key)


@contextmanager
def transport_errors(secret: str = "") -> Iterator[None]:
    """
    Tell requests that certainly never reached the server from those that may have.

    :param secret: The key. What a library says of a broken answer quotes it, and so is no part of a traceback either.
    """
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
        raise NotSent(error_name(error, secret)) from None
    except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
        raise NotSent(error_name(error, secret)) from None
    except (httpx.HTTPError, OSError) as error:
        raise Unanswered(error_name(error, secret)) from None


def error_name(error: Exception, secret: str = "") -> str:
    """Return an error as one short line, never an empty one, that does not hold the key."""
    return readable(f"{type(error).__name__}: {error}".rstrip(": "), secret)
