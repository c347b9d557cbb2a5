"""
The client of an event loop: sends reads to the API over aiohttp, or over httpx through a proxy.

aiohttp is the default: a poll over httpx takes about three times the CPU time, and httpx searches its whole connection
pool for each request. httpx is used where the environment sets a proxy for the API, since it supports all kinds of
proxies.

Invariant: nothing here blocks the loop, and only reads are sent: aiohttp itself sends a request again if a connection
that was kept open turns out to be closed.
"""

from __future__ import annotations

import asyncio
import random
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
    describe_error,
    request_options,
    total_timeout,
    transport_errors,
)
from airflow_provider_ideogram.hooks.proxies import proxy_of
from airflow_provider_ideogram.hooks.tls import tls_context

if TYPE_CHECKING:
    import ssl

    from airflow_provider_ideogram.hooks.connection import ConnectionSettings

T = TypeVar("T")

#: Polls in flight per connection and event loop. If a response takes 100 ms, that is 500 polls a second, about the most
#: that an event loop can process.
MAX_IN_FLIGHT = 50


class AsyncTransport(Protocol):
    """Sends reads whose path is below the base URL."""

    async def send(self, call: Call[Any]) -> ApiResponse:
        """Send a read once and return the response; raise RequestNotSent or ResponseNotReceived."""

    async def aclose(self) -> None:
        """Close the connections."""


async def new_transport(settings: ConnectionSettings) -> AsyncTransport:
    """
    Return a new transport for the running loop.

    :raises IdeogramInvalidInput: If the environment names a proxy or certificates that can't be used.
    """
    tls, proxy = await asyncio.to_thread(_prepare, settings.base_url)
    return AiohttpTransport(settings, tls) if proxy is None else HttpxTransport(settings, tls, proxy)


def _prepare(base_url: str) -> tuple[ssl.SSLContext, httpx.Proxy | None]:
    """Return the TLS context and the proxy; blocks, since it imports aiohttp and reads certificates."""
    import aiohttp  # noqa: F401

    return tls_context(), proxy_of(httpx.URL(base_url))


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
            # The total limit also covers the response's head, which a server can send slowly or without an end.
            timeout=aiohttp.ClientTimeout(
                total_timeout(settings.timeout), sock_connect=settings.timeout, sock_read=settings.timeout
            ),
            auto_decompress=False,
        )
        self._not_sent = (aiohttp.ClientConnectorError, aiohttp.InvalidURL, aiohttp.ConnectionTimeoutError)
        self._not_received = (aiohttp.ClientError, OSError)

    async def send(self, call: Call[Any]) -> ApiResponse:
        """Send a read once and return the response; raise RequestNotSent or ResponseNotReceived."""
        body = ResponseBody(call, self._settings)
        url = self._settings.base_url + call.path
        try:
            async with self._session.request(call.method, url, allow_redirects=False) as response:
                async for chunk in response.content.iter_any():
                    body.add(chunk)
                return body.response(response.status, response.headers)
        except self._not_sent as error:
            raise RequestNotSent(describe_error(error, self._settings.redactor)) from None
        except self._not_received as error:
            raise ResponseNotReceived(describe_error(error, self._settings.redactor)) from None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()


class HttpxTransport:
    """
    Send over httpx, through a proxy.

    :param settings: The connection's settings.
    :param tls: The process's TLS context.
    :param proxy: The proxy; None sends directly.
    """

    def __init__(self, settings: ConnectionSettings, tls: ssl.SSLContext, proxy: httpx.Proxy | None = None) -> None:
        self._settings = settings
        limits = httpx.Limits(max_connections=MAX_IN_FLIGHT)
        self._client = httpx.AsyncClient(verify=tls, proxy=proxy, limits=limits, **client_options(settings))

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
                return body.response(response.status_code, response.headers)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class AsyncSegmindClient:
    """
    Send reads from an event loop.

    :param transport: Sends each of them once.
    """

    def __init__(self, transport: AsyncTransport) -> None:
        self._rng = random.Random()
        self._transport = transport

    async def run(self, call: Call[T], max_attempts: int = MAX_ATTEMPTS) -> T:
        """
        Send the call, again where that is allowed, and return the parsed response.

        :raises ValueError: For a call that charges: aiohttp can send a request twice, and then report it as not sent.
        """
        if call.charges:
            raise ValueError("a call that charges must be sent by SegmindClient")
        steps = retry_flow(call, self._rng, max_attempts)
        wait = next(steps)
        try:
            while True:
                if wait is None:
                    try:
                        response = await self._transport.send(call)
                    except (RequestNotSent, ResponseNotReceived) as error:
                        wait = steps.throw(error)
                    else:
                        wait = steps.send(response)
                else:
                    await asyncio.sleep(wait)
                    wait = next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
