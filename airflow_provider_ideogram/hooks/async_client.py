"""
What carries the calls of an event loop: the one place that chooses the HTTP library.

aiohttp by itself, since a poll through httpx costs the triggerer about three times as much, and httpx's own pool is
scanned whole for each request. Where the environment names a proxy for the API, httpx, which knows all kinds of them.

Invariant: nothing here blocks the loop, and what is sent is a read: aiohttp repeats a request by itself where a
connection that was kept open turns out to be closed.
"""

from __future__ import annotations

import asyncio
import functools
import random
import threading
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import httpx

from airflow_provider_ideogram.api.calls import Call
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.api.retry_flow import MAX_ATTEMPTS, RequestNotSent, ResponseNotReceived, retry_flow
from airflow_provider_ideogram.hooks.client import (
    HEADERS,
    ResponseBody,
    SegmindAuth,
    client_options,
    error_name,
    request_options,
    total_timeout,
    transport_errors,
)

if TYPE_CHECKING:
    import ssl

    from airflow_provider_ideogram.hooks.connection import ConnectionSettings

T = TypeVar("T")

#: Polls in flight per connection and event loop: at 100 ms an answer some 500 a second, which a loop just bears.
MAX_IN_FLIGHT = 50


class AsyncTransport(Protocol):
    """Send calls of the API itself, that is with a path below the base URL."""

    async def send(self, call: Call[Any]) -> ApiResponse:
        """Send a read once and return the response; raise RequestNotSent or ResponseNotReceived."""

    async def aclose(self) -> None:
        """Close the connections."""


async def new_transport(settings: ConnectionSettings) -> AsyncTransport:
    """Make a connection's transport for the running loop."""
    tls, proxied = await asyncio.to_thread(_prepare, settings.base_url)
    return HttpxTransport(settings, tls) if proxied else AiohttpTransport(settings, tls)


def _prepare(base_url: str) -> tuple[ssl.SSLContext, bool]:
    """Do what takes long, off the loop: import, read certificates, ask whether there is a proxy."""
    import urllib.request

    import aiohttp  # noqa: F401

    url = httpx.URL(base_url)
    proxies = urllib.request.getproxies()
    proxied = url.scheme in proxies or "all" in proxies
    return _tls_context(), proxied and not urllib.request.proxy_bypass(f"{url.host}:{url.port or ''}".rstrip(":"))


_tls_lock = threading.Lock()


@functools.cache
def _load_tls_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _tls_context() -> ssl.SSLContext:
    """Return the process's TLS context. Reading the certificates takes 50 to 100 ms: once, and on no event loop."""
    with _tls_lock:
        return _load_tls_context()


class AiohttpTransport:
    """
    Send over aiohttp.

    :param settings: The connection's settings.
    :param tls: The process's TLS context.
    """

    def __init__(self, settings: ConnectionSettings, tls: ssl.SSLContext) -> None:
        import aiohttp

        self._settings = settings
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_IN_FLIGHT, ssl=tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=HEADERS | SegmindAuth(settings).headers(httpx.URL(settings.base_url)),
            # In total too, since an answer's head can trickle, or be repeated without an end, as well.
            timeout=aiohttp.ClientTimeout(
                total_timeout(settings.timeout), sock_connect=settings.timeout, sock_read=settings.timeout
            ),
            auto_decompress=False,
        )
        self._not_sent = (aiohttp.ClientConnectorError, aiohttp.InvalidURL, aiohttp.ConnectionTimeoutError)
        self._unanswered = (aiohttp.ClientError, OSError)

    async def send(self, call: Call[Any]) -> ApiResponse:
        """Send a read once and return the response; raise RequestNotSent or ResponseNotReceived."""
        body = ResponseBody(call, self._settings)
        url = self._settings.base_url + call.path
        try:
            async with self._session.request(call.method, url, allow_redirects=False) as response:
                async for chunk in response.content.iter_any():
                    body.add(chunk)
                return body.answer(response.status, response.headers)
        except self._not_sent as error:
            raise RequestNotSent(error_name(error, self._settings.redactor)) from None
        except self._unanswered as error:
            raise ResponseNotReceived(error_name(error, self._settings.redactor)) from None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()


class HttpxTransport:
    """
    Send over httpx, for where aiohttp does not do.

    :param settings: The connection's settings.
    :param tls: The process's TLS context.
    """

    def __init__(self, settings: ConnectionSettings, tls: ssl.SSLContext) -> None:
        self._settings = settings
        limits = httpx.Limits(max_connections=MAX_IN_FLIGHT)
        self._client = httpx.AsyncClient(verify=tls, limits=limits, **client_options(settings))

    async def send(self, call: Call[Any]) -> ApiResponse:
        """Send a read once and return the response; raise RequestNotSent or ResponseNotReceived."""
        body = ResponseBody(call, self._settings)
        options = request_options(call, self._client)
        with transport_errors(self._settings.redactor):
            async with (
                asyncio.timeout(total_timeout(self._settings.timeout)),
                self._client.stream(call.method, call.path, **options) as response,
            ):
                async for chunk in response.aiter_raw():
                    body.add(chunk)
                return body.answer(response.status_code, response.headers)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class AsyncSegmindClient:
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
        steps = retry_flow(call, self._rng, max_attempts)
        wait = next(steps)
        try:
            while True:
                if wait is None:
                    try:
                        answer = await self._transport.send(call)
                    except (RequestNotSent, ResponseNotReceived) as problem:
                        wait = steps.throw(problem)
                    else:
                        wait = steps.send(answer)
                else:
                    await asyncio.sleep(wait)
                    wait = next(steps)
        except StopIteration as stop:
            meaning: T = stop.value
            return meaning
