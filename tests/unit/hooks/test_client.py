from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import threading
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest

from airflow_provider_ideogram import __version__
from airflow_provider_ideogram.api import calls
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.parsing import RequestStatus, Submission
from airflow_provider_ideogram.api.retry_flow import RequestNotSent, ResponseNotReceived
from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramInvalidInput,
    IdeogramServerUnavailable,
    IdeogramUnknownSubmit,
)
from airflow_provider_ideogram.hooks import async_client, client
from airflow_provider_ideogram.hooks.async_client import AiohttpTransport, AsyncSegmindClient, HttpxTransport
from airflow_provider_ideogram.hooks.client import SegmindAuth, SegmindClient, transport_errors
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from tests.support import hostile
from tests.support.hostile import KEY

SETTINGS = ConnectionSettings(KEY)
REQUEST = GenerationRequest("a cat", seed=7)
STATUS = calls.get_status("r-1")
SUBMIT = calls.submit(REQUEST)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which take no time."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds:  # aiohttp gives way to others with a sleep of 0
            waited.append(seconds)

    monkeypatch.setattr(client.time, "sleep", waited.append)
    monkeypatch.setattr(async_client.asyncio, "sleep", sleep)
    return waited


async def _run(way: str, settings: ConnectionSettings, call: calls.Call[Any]) -> Any:
    if way == "sync":
        driver = SegmindClient(settings)
        try:
            return driver.run(call)
        finally:
            driver.close()
    transport = {"aiohttp": AiohttpTransport, "httpx": HttpxTransport}[way](settings, ssl.create_default_context())
    try:
        return await AsyncSegmindClient(transport).run(call)
    finally:
        await transport.aclose()


each_way = pytest.mark.parametrize("way", ["sync", "aiohttp", "httpx"])


def _key_for(url: str, settings: ConnectionSettings = SETTINGS) -> str | None:
    request = next(SegmindAuth(settings).auth_flow(httpx.Request("GET", url)))
    return request.headers.get("x-api-key")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.segmind.com/v1/x",
        "https://API.segmind.com:443/",
        "https://api.spotprod.segmind.com/inference-request/request-history?page=1",
    ],
)
def test_key_goes_to_the_apis_own_origins(url: str) -> None:
    assert _key_for(url) == KEY


@pytest.mark.parametrize(
    "url",
    [
        "http://api.segmind.com/v1/x",
        "https://api.segmind.com:8443/v1/x",
        "https://images.segmind.com/x",
        "https://segmind.com/x",
        "https://api.segmind.com.example.com/x",
        "https://api.segmind.com@example.com/x",
    ],
)
def test_key_goes_nowhere_else(url: str) -> None:
    assert _key_for(url) is None


def test_key_follows_the_connections_own_addresses() -> None:
    own = replace(SETTINGS, base_url="http://127.0.0.1:8700", history_url="http://127.0.0.1:8701/history")
    assert [_key_for(f"http://127.0.0.1:{port}/x", own) for port in (8700, 8701, 8702)] == [KEY, KEY, None]
    assert _key_for("https://api.segmind.com/v1/x", own) is None


@each_way
async def test_request_is_what_the_call_describes(way: str, server: Any, reply: Callable[..., bytes]) -> None:
    server.script(reply({"status": "QUEUED"}))
    assert await _run(way, replace(SETTINGS, base_url=server.url), STATUS) == RequestStatus("QUEUED")
    (received,) = server.received
    assert (received.method, received.path, received.body) == ("GET", STATUS.path, b"")
    assert received.headers["x-api-key"] == KEY
    assert received.headers["user-agent"] == f"airflow-provider-ideogram/{__version__}"
    assert received.headers["accept-encoding"] == "identity"


async def test_submit_is_what_the_call_describes(server: Any, reply: Callable[..., bytes]) -> None:
    server.script(reply({"request_id": "r-1"}, x_remaining_credits="4.5"))
    assert await _run("sync", replace(SETTINGS, base_url=server.url), SUBMIT) == Submission("r-1", 4.5)
    (received,) = server.received
    assert (received.method, received.path, received.json) == ("POST", SUBMIT.path, REQUEST.body())
    assert received.headers["x-api-key"] == KEY
    assert received.headers["content-type"] == "application/json"


@each_way
async def test_read_is_repeated_after_the_servers_time(
    way: str, server: Any, reply: Callable[..., bytes], waits: list[float]
) -> None:
    server.script(
        reply(status=429, retry_after="2"), reply(status=503), reply(b"<html>", 502), reply({"status": "QUEUED"})
    )
    assert await _run(way, replace(SETTINGS, base_url=server.url), STATUS) == RequestStatus("QUEUED")
    assert len(server.received) == 4
    assert 2.25 <= waits[0] <= 2.5
    assert len(waits) == 3


@pytest.mark.parametrize("kept", [0, 5, -3], ids=["no answer", "cut status line", "cut body"])
async def test_submit_whose_answer_is_lost_is_sent_once(
    server: Any, reply: Callable[..., bytes], waits: list[float], kept: int
) -> None:
    server.script(reply({"request_id": "r-1"})[:kept])
    with pytest.raises(IdeogramUnknownSubmit, match="connection failed"):
        await _run("sync", replace(SETTINGS, base_url=server.url), SUBMIT)
    assert len(server.received) == 1
    assert waits == []


@each_way
async def test_server_that_is_not_there_got_nothing(way: str, server: Any, waits: list[float]) -> None:
    with pytest.raises(IdeogramServerUnavailable, match="can't be reached"):
        await _run(way, replace(SETTINGS, base_url="http://127.0.0.1:1"), STATUS)
    assert len(waits) == calls.MAX_ATTEMPTS - 1


@each_way
async def test_redirect_is_not_followed_with_the_key(way: str, server: Any, reply: Callable[..., bytes]) -> None:
    server.script(reply(status=307, location=f"{server.url}/elsewhere"))
    with pytest.raises(IdeogramInvalidInput, match=r"redirects .* not followed with a key"):
        await _run(way, replace(SETTINGS, base_url=server.url), STATUS)
    assert [received.path for received in server.received] == [STATUS.path]


@each_way
async def test_key_that_the_server_echoes_is_taken_out(way: str, server: Any, reply: Callable[..., bytes]) -> None:
    server.script(reply({"error": f"the key {KEY} is unknown"}, 401))
    with pytest.raises(Exception, match=r"the key \*\*\* is unknown") as caught:
        await _run(way, replace(SETTINGS, base_url=server.url), STATUS)
    assert KEY not in str(caught.value)


@each_way
async def test_answer_without_an_end_is_not_read_to_it(
    way: str, server: Any, reply: Callable[..., bytes], waits: list[float]
) -> None:
    server.script(reply(b"x" * (STATUS.max_bytes + 1)))
    with pytest.raises(IdeogramServerUnavailable, match="larger than any of the API's"):
        await _run(way, replace(SETTINGS, base_url=server.url), STATUS)


@each_way
async def test_answer_that_trickles_is_given_up(
    way: str, server: Any, reply: Callable[..., bytes], waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script(reply({"status": "QUEUED"}))
    monkeypatch.setattr(client, "_WHOLE_ANSWER_TIMEOUTS", -1)
    with pytest.raises(IdeogramServerUnavailable, match=r"came too slowly|TimeoutError"):
        await _run(way, replace(SETTINGS, base_url=server.url), STATUS)


@each_way
@pytest.mark.parametrize(
    "head",
    [
        f"HTTP/1.1 what is {KEY}\x1b[31m\r\n\r\n",
        f"{KEY} is your key\r\n\r\n",
        f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n",
        f"HTTP/1.1 200 OK\r\ncontent-length: {KEY}\r\n\r\n",
        f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{KEY}\r\n",
        f"HTTP/1.1 200 OK\r\nx: {KEY * 20_000}\r\n\r\n",
    ],
    ids=["status", "no HTTP", "header", "length", "chunk", "long"],
)
async def test_broken_answer_is_told_in_a_short_line_without_the_key(
    way: str, head: str, server: Any, waits: list[float]
) -> None:
    server.script(head.encode())
    with pytest.raises(IdeogramServerUnavailable, match="The API did not answer") as caught:
        await _run(way, replace(SETTINGS, base_url=server.url), STATUS)
    hostile.check_message(str(caught.value))
    assert KEY not in "".join(traceback.format_exception(caught.value))


@each_way
async def test_compressed_answer_is_not_unfolded(way: str, server: Any, reply: Callable[..., bytes]) -> None:
    bomb = gzip.compress(gzip.compress(b"\0" * (64 << 20), 9), 9)
    server.script(reply(bomb, 401, content_encoding="gzip, gzip"))
    settings = replace(SETTINGS, base_url=server.url)
    tracemalloc.start()
    try:
        with pytest.raises(IdeogramAuthenticationError, match="in the content-encoding gzip, gzip"):
            await _run(way, settings, STATUS)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@contextmanager
def _without_end(head: bytes, again: bytes) -> Iterator[str]:
    """Yield the address of a server that sends a head, and then something again and again."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while not over.is_set():
                connection, _ = listening.accept()
                with connection, suppress(OSError):
                    connection.sendall(head)
                    while not over.wait(0.001):
                        connection.sendall(again)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield "http://127.0.0.1:{1}".format(*listening.getsockname())
        finally:
            over.set()
            socket.create_connection(listening.getsockname()).close()
            thread.join()


@pytest.mark.parametrize("way", ["aiohttp", "httpx"])
@pytest.mark.parametrize(
    ("head", "again"),
    [(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), (b"HTTP/1.1 200 OK\r\nx: ", b"a")],
    ids=["1xx", "header"],
)
async def test_head_without_an_end_is_given_up(
    way: str, head: bytes, again: bytes, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll that never ends would take the place of others for good."""
    monkeypatch.setattr(client, "_WHOLE_ANSWER_TIMEOUTS", 0.002)
    with _without_end(head, again) as url:
        with pytest.raises(IdeogramServerUnavailable, match=r"did not answer \(TimeoutError"):
            await _run(way, replace(SETTINGS, base_url=url), STATUS)
        assert len(waits) == calls.MAX_ATTEMPTS - 1


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("30 s"),
        httpx.PoolTimeout("30 s"),
        httpx.ProxyError("403"),
        httpx.UnsupportedProtocol("ftp"),
        httpx.LocalProtocolError("header"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_certainly_never_reached_the_server(error: Exception) -> None:
    with pytest.raises(RequestNotSent, match=f"{type(error).__name__}: {error}"), transport_errors():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadTimeout("30 s"),
        httpx.WriteTimeout("30 s"),
        httpx.ReadError("reset"),
        httpx.WriteError("reset"),
        httpx.CloseError("reset"),
        httpx.RemoteProtocolError("cut"),
        httpx.DecodingError("gzip"),
        ConnectionResetError("reset"),
        ssl.SSLError("EOF"),
        TimeoutError("30 s"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_have_reached_the_server(error: Exception) -> None:
    with pytest.raises(ResponseNotReceived, match=type(error).__name__), transport_errors():
        raise error


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), ValueError("a bug"), RequestNotSent("x"), ResponseNotReceived("x")]
)
def test_other_errors_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, transport_errors():
        raise error
    assert caught.value is error


def test_error_without_words_is_named_by_its_kind() -> None:
    with pytest.raises(ResponseNotReceived, match=r"^ReadTimeout$"), transport_errors():
        raise httpx.ReadTimeout("")
