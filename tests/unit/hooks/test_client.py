"""The client of a worker and, with the same tests where they behave the same, both transports of an event loop."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import threading
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest
import socksio

from airflow_provider_ideogram import __version__
from airflow_provider_ideogram.api import calls
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.parsing import RequestStatus, Submission
from airflow_provider_ideogram.api.retry_flow import MAX_ATTEMPTS, RequestNotSent, ResponseNotReceived
from airflow_provider_ideogram.api.sanitize import NO_REDACTION
from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramInvalidInput,
    IdeogramServerUnavailable,
    IdeogramUnknownSubmit,
)
from airflow_provider_ideogram.hooks import client
from airflow_provider_ideogram.hooks.async_client import AiohttpTransport, AsyncSegmindClient, HttpxTransport
from airflow_provider_ideogram.hooks.client import SegmindAuth, SegmindClient, transport_errors
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from tests.support import hostile
from tests.support.hostile import KEY
from tests.unit.hooks.conftest import Reply, ScriptedServer

SETTINGS = ConnectionSettings(KEY)
REQUEST = GenerationRequest("a cat", seed=7)
STATUS = calls.get_status("r-1")
SUBMIT = calls.submit(REQUEST)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, in seconds; they take no time."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds:  # aiohttp yields to other tasks with a sleep of 0
            waited.append(seconds)

    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return waited


async def _run(kind: str, settings: ConnectionSettings, call: calls.Call[Any]) -> Any:
    """Run a call with a client of a kind, and close the client."""
    if kind == "sync":
        with closing(SegmindClient(settings)) as sync_client:
            return sync_client.run(call)
    transport_class = AiohttpTransport if kind == "aiohttp" else HttpxTransport
    transport = transport_class(settings, ssl.create_default_context())
    try:
        return await AsyncSegmindClient(transport).run(call)
    finally:
        await transport.aclose()


each_kind = pytest.mark.parametrize("kind", ["sync", "aiohttp", "httpx"])


def _key_for(url: str, settings: ConnectionSettings = SETTINGS) -> str | None:
    request = next(SegmindAuth(settings).auth_flow(httpx.Request("GET", url)))
    return dict(request.headers).get("x-api-key")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.segmind.com/v1/x",
        "https://API.segmind.com:443/",
        "https://api.spotprod.segmind.com/inference-request/request-history?page=1",
    ],
)
def test_key_goes_to_the_api_and_the_history(url: str) -> None:
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
def test_key_goes_to_no_other_origin(url: str) -> None:
    assert _key_for(url) is None


def test_key_goes_to_the_addresses_of_the_connection() -> None:
    own = replace(SETTINGS, base_url="http://127.0.0.1:8700", history_url="http://127.0.0.1:8701/history")
    assert [_key_for(f"http://127.0.0.1:{port}/x", own) for port in (8700, 8701, 8702)] == [KEY, KEY, None]
    assert _key_for("https://api.segmind.com/v1/x", own) is None


@each_kind
async def test_request_follows_the_call(kind: str, server: ScriptedServer, reply: Reply) -> None:
    server.script(reply({"status": "QUEUED"}))
    assert await _run(kind, replace(SETTINGS, base_url=server.url), STATUS) == RequestStatus("QUEUED")
    (received,) = server.received
    assert (received.method, received.path, received.body) == ("GET", STATUS.path, b"")
    assert received.headers["x-api-key"] == KEY
    assert received.headers["user-agent"] == f"airflow-provider-ideogram/{__version__}"
    assert received.headers["accept-encoding"] == "identity"


async def test_submit_follows_the_call(server: ScriptedServer, reply: Reply) -> None:
    server.script(reply({"request_id": "r-1"}, x_remaining_credits="4.5"))
    assert await _run("sync", replace(SETTINGS, base_url=server.url), SUBMIT) == Submission("r-1", 4.5)
    (received,) = server.received
    assert (received.method, received.path, received.json) == ("POST", SUBMIT.path, REQUEST.body())
    assert received.headers["x-api-key"] == KEY
    assert received.headers["content-type"] == "application/json"


@each_kind
async def test_read_is_sent_again_after_retry_after(
    kind: str, server: ScriptedServer, reply: Reply, waits: list[float]
) -> None:
    server.script(
        reply(status=429, retry_after="2"), reply(status=503), reply(b"<html>", 502), reply({"status": "QUEUED"})
    )
    assert await _run(kind, replace(SETTINGS, base_url=server.url), STATUS) == RequestStatus("QUEUED")
    assert len(server.received) == 4
    assert 2.25 <= waits[0] <= 2.5
    assert len(waits) == 3


@each_kind
async def test_read_is_sent_again_after_the_reset_time(
    kind: str, server: ScriptedServer, reply: Reply, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1795392000.0)
    server.script(reply(status=429, x_rate_limit_reset_at_utc="2026-11-23T00:00:03"), reply({"status": "QUEUED"}))
    assert await _run(kind, replace(SETTINGS, base_url=server.url), STATUS) == RequestStatus("QUEUED")
    assert len(waits) == 1
    assert 3.25 <= waits[0] <= 3.5


@pytest.mark.parametrize("kept", [0, 5, -3], ids=["no response", "cut status line", "cut body"])
async def test_submit_without_a_response_is_sent_once(
    server: ScriptedServer, reply: Reply, waits: list[float], kept: int
) -> None:
    server.script(reply({"request_id": "r-1"})[:kept])
    with pytest.raises(IdeogramUnknownSubmit, match="connection failed"):
        await _run("sync", replace(SETTINGS, base_url=server.url), SUBMIT)
    assert len(server.received) == 1
    assert waits == []


@each_kind
async def test_refused_connection_is_tried_again(kind: str, server: ScriptedServer, waits: list[float]) -> None:
    with pytest.raises(IdeogramServerUnavailable, match="can't be reached"):
        await _run(kind, replace(SETTINGS, base_url="http://127.0.0.1:1"), STATUS)
    assert len(waits) == MAX_ATTEMPTS - 1


@each_kind
async def test_redirect_is_not_followed_with_the_key(kind: str, server: ScriptedServer, reply: Reply) -> None:
    server.script(reply(status=307, location=f"{server.url}/elsewhere"))
    with pytest.raises(IdeogramInvalidInput, match=r"redirects .* not followed with a key"):
        await _run(kind, replace(SETTINGS, base_url=server.url), STATUS)
    assert [received.path for received in server.received] == [STATUS.path]


@each_kind
async def test_key_in_a_response_is_redacted(kind: str, server: ScriptedServer, reply: Reply) -> None:
    server.script(reply({"error": f"the key {KEY} is unknown"}, 401))
    with pytest.raises(Exception, match=r"the key \*\*\* is unknown") as caught:
        await _run(kind, replace(SETTINGS, base_url=server.url), STATUS)
    assert KEY not in str(caught.value)


@each_kind
async def test_too_large_response_is_not_read_to_its_end(
    kind: str, server: ScriptedServer, reply: Reply, waits: list[float]
) -> None:
    server.script(reply(b"x" * (STATUS.max_bytes + 1)))
    with pytest.raises(IdeogramServerUnavailable, match="has more than 1,048,576 bytes"):
        await _run(kind, replace(SETTINGS, base_url=server.url), STATUS)


@each_kind
async def test_slow_response_times_out(
    kind: str, server: ScriptedServer, reply: Reply, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script(reply({"status": "QUEUED"}))
    monkeypatch.setattr(client, "_TOTAL_TIMEOUT_FACTOR", -1)
    with pytest.raises(IdeogramServerUnavailable, match=r"was not complete after|TimeoutError"):
        await _run(kind, replace(SETTINGS, base_url=server.url), STATUS)


@each_kind
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
async def test_malformed_response_is_reported_without_the_key(
    kind: str, head: str, server: ScriptedServer, waits: list[float]
) -> None:
    server.script(head.encode())
    with pytest.raises(IdeogramServerUnavailable, match="The API did not respond") as caught:
        await _run(kind, replace(SETTINGS, base_url=server.url), STATUS)
    hostile.check_message(str(caught.value))
    assert KEY not in "".join(traceback.format_exception(caught.value))


@each_kind
async def test_compressed_response_is_decompressed(kind: str, server: ScriptedServer, reply: Reply) -> None:
    server.script(reply(gzip.compress(b'{"status": "QUEUED"}'), content_encoding="gzip"))
    assert await _run(kind, replace(SETTINGS, base_url=server.url), STATUS) == RequestStatus("QUEUED")
    server.script(reply(gzip.compress(b"<h1>No</h1>"), 401, content_encoding="gzip"))
    with pytest.raises(IdeogramAuthenticationError, match=r"HTTP 401: No\)"):
        await _run(kind, replace(SETTINGS, base_url=server.url), STATUS)


@each_kind
async def test_compression_bomb_is_not_unpacked(
    kind: str, server: ScriptedServer, reply: Reply, waits: list[float]
) -> None:
    server.script(reply(gzip.compress(bytes(64 << 20), 9), content_encoding="gzip"))
    settings = replace(SETTINGS, base_url=server.url)
    tracemalloc.start()
    try:
        with pytest.raises(IdeogramServerUnavailable, match="has more than 1,048,576 bytes"):
            await _run(kind, settings, STATUS)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


async def test_submit_with_a_damaged_response_is_unknown(server: ScriptedServer, reply: Reply) -> None:
    server.script(reply(b"\x1f\x8b is not gzip"))
    with pytest.raises(IdeogramUnknownSubmit, match="gzip data of the response is damaged"):
        await _run("sync", replace(SETTINGS, base_url=server.url), SUBMIT)
    assert len(server.received) == 1


@each_kind
async def test_response_is_decompressed_once_at_most(kind: str, server: ScriptedServer, reply: Reply) -> None:
    bomb = gzip.compress(gzip.compress(b"\0" * (64 << 20), 9), 9)
    server.script(reply(bomb, 401, content_encoding="gzip, gzip"))
    settings = replace(SETTINGS, base_url=server.url)
    tracemalloc.start()
    try:
        with pytest.raises(IdeogramAuthenticationError, match="in the content-encoding gzip, gzip"):
            await _run(kind, settings, STATUS)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@contextmanager
def _endless_server(head: bytes, repeated: bytes) -> Iterator[str]:
    """Run a server that sends a head and then repeats some bytes for ever; yield its address."""
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while not stopping.is_set():
                connection, _ = listening.accept()
                with connection, suppress(OSError):
                    connection.sendall(head)
                    while not stopping.wait(0.001):
                        connection.sendall(repeated)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield "http://127.0.0.1:{1}".format(*listening.getsockname())
        finally:
            stopping.set()
            socket.create_connection(listening.getsockname()).close()
            thread.join()


@pytest.mark.parametrize("kind", ["aiohttp", "httpx"])
@pytest.mark.parametrize(
    ("head", "repeated"),
    [(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), (b"HTTP/1.1 200 OK\r\nx: ", b"a")],
    ids=["1xx", "header"],
)
async def test_endless_head_times_out(
    kind: str, head: bytes, repeated: bytes, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll without an end would occupy one of the connection's slots for ever."""
    monkeypatch.setattr(client, "_TOTAL_TIMEOUT_FACTOR", 0.002)
    with _endless_server(head, repeated) as url:
        with pytest.raises(IdeogramServerUnavailable, match=r"did not respond \(TimeoutError"):
            await _run(kind, replace(SETTINGS, base_url=url), STATUS)
        assert len(waits) == MAX_ATTEMPTS - 1


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("30 s"),
        httpx.PoolTimeout("30 s"),
        httpx.UnsupportedProtocol("ftp"),
        httpx.LocalProtocolError("header"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_requests_that_were_not_sent(error: Exception) -> None:
    with pytest.raises(RequestNotSent, match=f"{type(error).__name__}: {error}"), transport_errors(NO_REDACTION):
        raise error


@pytest.mark.parametrize("error", [httpx.ProxyError("407 -"), socksio.ProtocolError("Malformed reply")], ids=repr)
def test_error_of_a_proxy_names_the_environment(error: Exception) -> None:
    with (
        pytest.raises(RequestNotSent, match=f"environment's proxy refuses it: {type(error).__name__}: {error}"),
        transport_errors(NO_REDACTION),
    ):
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
def test_errors_of_requests_that_may_have_been_received(error: Exception) -> None:
    with pytest.raises(ResponseNotReceived, match=type(error).__name__), transport_errors(NO_REDACTION):
        raise error


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), ValueError("a bug"), RequestNotSent("x"), ResponseNotReceived("x")]
)
def test_other_errors_are_not_translated(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, transport_errors(NO_REDACTION):
        raise error
    assert caught.value is error


def test_error_without_a_text_is_named_by_its_class() -> None:
    with pytest.raises(ResponseNotReceived, match=r"^ReadTimeout$"), transport_errors(NO_REDACTION):
        raise httpx.ReadTimeout("")
