"""
HTTP: how a :class:`~airflow_provider_ideogram.api.calls.Call` reaches the API.

Invariant: the key is added by :class:`SegmindAuth` and nowhere else, for the API's own origins only; redirects
are never followed with it. What is sent again is decided by :func:`~airflow_provider_ideogram.api.calls.retry_flow`;
the two drivers only send and wait. How a worker sends is here, how an event loop does in
:mod:`airflow_provider_ideogram.hooks.async_client`.
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
from airflow_provider_ideogram.api.sanitize import NO_REDACTION, Redactor, sanitize_text

if TYPE_CHECKING:
    from airflow_provider_ideogram.hooks.connection import ConnectionSettings

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


class SegmindClient:
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
        steps = retry_flow(call, self._rng, max_attempts)
        wait = next(steps)
        try:
            while True:
                if wait is None:
                    try:
                        answer = self._send(call)
                    except (RequestNotSent, ResponseNotReceived) as problem:
                        wait = steps.throw(problem)
                    else:
                        wait = steps.send(answer)
                else:
                    time.sleep(wait)
                    wait = next(steps)
        except StopIteration as stop:
            meaning: T = stop.value
            return meaning

    def _send(self, call: Call[Any]) -> ApiResponse:
        body = ResponseBody(call, self._settings)
        with (
            transport_errors(self._settings.redactor),
            self._client.stream(call.method, call.path, **request_options(call, self._client)) as response,
        ):
            for chunk in response.iter_raw():
                body.add(chunk)
            return body.answer(response.status_code, response.headers)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def request_options(call: Call[Any], client: httpx.Client | httpx.AsyncClient) -> dict[str, Any]:
    """Return what a call adds to its client's options."""
    options: dict[str, Any] = {"timeout": call.timeout or client.timeout}
    return options if call.body is None else {**options, "json": call.body}


def total_timeout(timeout: float) -> float:
    """Return the seconds in which an answer must be whole, by the timeout for each of its pieces."""
    return _WHOLE_ANSWER_TIMEOUTS * timeout


class ResponseBody:
    """An answer's body while it is read: bounded in size and time."""

    def __init__(self, call: Call[Any], settings: ConnectionSettings) -> None:
        self._chunks: list[bytes] = []
        self._left = call.max_bytes
        self._until = time.monotonic() + total_timeout(call.timeout or settings.timeout)
        self._redactor = settings.redactor

    def add(self, chunk: bytes) -> None:
        """Take in a piece; raise ResponseNotReceived where it gets too much, or takes too long."""
        self._left -= len(chunk)
        if self._left < 0:
            raise ResponseNotReceived("the answer is larger than any of the API's")
        if time.monotonic() > self._until:
            raise ResponseNotReceived("the answer came too slowly")
        self._chunks.append(chunk)

    def answer(self, status: int, headers: Mapping[str, str]) -> ApiResponse:
        """Return the answer that is now whole."""
        named = {name.lower(): value for name, value in headers.items()}
        # A server may say the key again in an error, and an error's text goes to logs, events and XComs.
        return ApiResponse(status, named, b"".join(self._chunks), self._redactor, time.time())


@contextmanager
def transport_errors(redactor: Redactor = NO_REDACTION) -> Iterator[None]:
    """
    Tell requests that certainly never reached the server from those that may have.

    :param redactor: Replaces the key, which a library's error may quote: the original error is not chained.
    """
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
        raise RequestNotSent(error_name(error, redactor)) from None
    except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
        raise RequestNotSent(error_name(error, redactor)) from None
    except (httpx.HTTPError, OSError) as error:
        raise ResponseNotReceived(error_name(error, redactor)) from None


def error_name(error: Exception, redactor: Redactor = NO_REDACTION) -> str:
    """Return an error as one short line, never an empty one, that does not hold the key."""
    return sanitize_text(f"{type(error).__name__}: {error}".rstrip(": "), redactor)
