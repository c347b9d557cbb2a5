"""
The client of a worker: sends calls to the API over httpx.

Invariant: only :class:`SegmindAuth` adds the API key, and only to requests to the API's and the history's origin;
redirects are not followed. A call that charges is sent on a new connection: a server may close a connection that was
kept open just when the next request arrives, and then it is not known whether it accepted the request.
:func:`~airflow_provider_ideogram.api.retry_flow.retry_flow` decides whether a call is sent again; the clients send and
wait. The client of an event loop is in :mod:`airflow_provider_ideogram.hooks.async_client`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from airflow_provider_ideogram import __version__
from airflow_provider_ideogram.api.calls import Call
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.api.retry_flow import MAX_ATTEMPTS, RequestNotSent, ResponseNotReceived, retry_flow
from airflow_provider_ideogram.api.sanitize import Redactor, sanitize_text
from airflow_provider_ideogram.hooks.compression import decompressed
from airflow_provider_ideogram.hooks.proxies import PROXY_ERRORS, proxy_of
from airflow_provider_ideogram.hooks.transport import Transport

if TYPE_CHECKING:
    from airflow_provider_ideogram.hooks.connection import ConnectionSettings

T = TypeVar("T")

USER_AGENT = f"airflow-provider-ideogram/{__version__}"
#: No compression: responses are small, or images, which do not shrink. httpx and aiohttp never decompress; that is for
#: :mod:`airflow_provider_ideogram.hooks.compression`, so that a small response cannot expand in memory.
HEADERS = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
#: The time limit for a whole response, as a multiple of the timeout for each chunk.
_TOTAL_TIMEOUT_FACTOR = 4


class SegmindAuth(httpx.Auth):
    """
    Adds the API key to requests to the API's and the history's origin.

    :param settings: The connection's settings, with the key and both addresses.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._key = settings.api_key
        self._origins = {_origin(httpx.URL(url)) for url in (settings.base_url, settings.history_url) if url}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the key to a request, unless it goes to another origin."""
        request.headers.update(self.headers(request.url))
        yield request

    def headers(self, url: httpx.URL) -> dict[str, str]:
        """Return the header with the key, or no header for an address at another origin."""
        return {"x-api-key": self._key} if _origin(url) in self._origins else {}


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def client_options(settings: ConnectionSettings) -> dict[str, Any]:
    """Return the options that the sync and the async httpx client share."""
    return {
        "base_url": settings.base_url,
        "auth": SegmindAuth(settings),
        "timeout": settings.timeout,
        "follow_redirects": False,
        "trust_env": False,  # the transports read the environment
        "headers": HEADERS,
    }


class SegmindClient:
    """
    Send calls from a worker.

    :param settings: The connection's settings.
    :raises IdeogramInvalidInput: If the environment names a proxy or certificates that can't be used.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._rng = random.Random()
        options = client_options(settings)
        # All transports are made here, so that an error in the environment precedes each submit.
        proxy = proxy_of(httpx.URL(settings.base_url))
        history = _history_transport(settings.history_url)
        self._client = httpx.Client(transport=Transport(proxy), mounts=history, **options)
        self._charging_client = httpx.Client(transport=Transport(proxy), **options)
        # A pool without idle connections would not suffice: another thread can take one just before it is closed.
        self._charging_client.headers["Connection"] = "close"

    def run(self, call: Call[T], max_attempts: int = MAX_ATTEMPTS) -> T:
        """Send the call, again where that is allowed, and return the parsed response."""
        steps = retry_flow(call, self._rng, max_attempts)
        wait = next(steps)
        try:
            while True:
                if wait is None:
                    try:
                        response = self._send(call)
                    except Exception as error:  # of any class: the call may have been sent
                        wait = steps.throw(error)
                    else:
                        wait = steps.send(response)
                else:
                    time.sleep(wait)
                    wait = next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _send(self, call: Call[Any]) -> ApiResponse:
        body = ResponseBody(call, self._settings)
        client = self._charging_client if call.charges else self._client
        with (
            transport_errors(self._settings.redactor),
            client.stream(call.method, call.path, **request_options(call, client)) as response,
        ):
            for chunk in response.iter_raw():
                body.add(chunk)
            return body.response(response.status_code, response.headers)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._charging_client.close()


def _history_transport(history_url: str | None) -> dict[str, Transport]:
    """Return the transport for the history's origin, for which the environment may set another proxy."""
    if history_url is None:
        return {}
    url = httpx.URL(history_url)
    return {f"{url.scheme}://{url.netloc.decode()}": Transport(proxy_of(url))}


def request_options(call: Call[Any], client: httpx.Client | httpx.AsyncClient) -> dict[str, Any]:
    """Return httpx's options for one request: the timeout and the JSON body."""
    options: dict[str, Any] = {"timeout": call.timeout or client.timeout}
    return options if call.body is None else {**options, "json": call.body}


def total_timeout(timeout: float) -> float:
    """Return the time limit in seconds for a whole response, given the timeout for each chunk."""
    return _TOTAL_TIMEOUT_FACTOR * timeout


class ResponseBody:
    """
    Collects the body of a response, within limits of size and time.

    :param call: The call that is answered; it limits the size.
    :param settings: The connection's settings.
    """

    def __init__(self, call: Call[Any], settings: ConnectionSettings) -> None:
        self._chunks: list[bytes] = []
        self._max_bytes = self._bytes_left = call.max_bytes
        self._max_seconds = total_timeout(call.timeout or settings.timeout)
        self._deadline = time.monotonic() + self._max_seconds
        self._settings = settings

    def add(self, chunk: bytes) -> None:
        """Add a chunk; raise ResponseNotReceived if the body is too large or takes too long."""
        self._bytes_left -= len(chunk)
        if self._bytes_left < 0:
            raise ResponseNotReceived(f"the response has more than {self._max_bytes:,} bytes")
        if time.monotonic() > self._deadline:
            raise ResponseNotReceived(f"the response was not complete after {self._max_seconds:.0f} s")
        self._chunks.append(chunk)

    def response(self, status: int, headers: Mapping[str, str]) -> ApiResponse:
        """Return the complete response; raise ResponseNotReceived if it can't be decompressed within the limits."""
        lower_case = {name.lower(): value for name, value in headers.items()}
        received, self._chunks, self._bytes_left = self._chunks, [], self._max_bytes
        for piece in decompressed(received):
            self.add(piece)
        # A server may repeat the key in an error, and the text of errors goes to logs, events and XComs.
        return ApiResponse(
            status, lower_case, b"".join(self._chunks), self._settings.redactor, time.time(), self._settings.conn_id
        )


@contextmanager
def transport_errors(redactor: Redactor) -> Iterator[None]:
    """
    Translate httpx's errors: RequestNotSent if the request cannot have reached the server, else ResponseNotReceived.

    :param redactor: Replaces the key. httpx may quote it, so its own error is not chained.
    """
    try:
        yield
    except (
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.LocalProtocolError,
        httpx.PoolTimeout,
        httpx.UnsupportedProtocol,
    ) as error:
        raise RequestNotSent(describe_error(error, redactor)) from None
    except PROXY_ERRORS as error:
        raise RequestNotSent(f"the environment's proxy refuses it: {describe_error(error, redactor)}") from None
    except (httpx.HTTPError, OSError) as error:
        raise ResponseNotReceived(describe_error(error, redactor)) from None


def describe_error(error: Exception, redactor: Redactor) -> str:
    """Return the class and the text of an error as one short line without the key."""
    return sanitize_text(f"{type(error).__name__}: {error}".rstrip(": "), redactor)
