from __future__ import annotations

import asyncio
import ssl
from typing import Any

import aiohttp
import httpx
import pytest

from airflow_provider_ideogram.api import calls
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.retry_flow import RequestNotSent, ResponseNotReceived
from airflow_provider_ideogram.hooks.async_client import (
    AiohttpTransport,
    AsyncSegmindClient,
    HttpxTransport,
    new_transport,
)
from airflow_provider_ideogram.hooks.connection import ConnectionSettings

SETTINGS = ConnectionSettings("SG_0123456789abcdef")
pytestmark = pytest.mark.usefixtures("no_proxy")


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ({}, AiohttpTransport),
        ({"HTTPS_PROXY": "http://127.0.0.1:9"}, HttpxTransport),
        ({"ALL_PROXY": "http://127.0.0.1:9"}, HttpxTransport),
        ({"HTTP_PROXY": "http://127.0.0.1:9"}, AiohttpTransport),
        ({"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "segmind.com"}, AiohttpTransport),
    ],
)
async def test_httpx_is_used_through_a_proxy(
    environment: dict[str, str], kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    transport = await new_transport(SETTINGS)
    assert type(transport) is kind
    await transport.aclose()


@pytest.mark.usefixtures("no_certificates")
async def test_certificates_are_read_once_and_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    on_loop: list[bool] = []

    def create(**_: Any) -> ssl.SSLContext:
        on_loop.append(asyncio._get_running_loop() is not None)
        return ssl.create_default_context()

    monkeypatch.setattr(httpx, "create_ssl_context", create)
    for transport in await asyncio.gather(*(new_transport(SETTINGS) for _ in range(5))):
        await transport.aclose()
    assert on_loop == [False]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (aiohttp.ClientConnectorError(None, OSError("refused")), RequestNotSent),  # type: ignore[arg-type]
        (aiohttp.ConnectionTimeoutError("30 s"), RequestNotSent),
        (aiohttp.InvalidURL("x"), RequestNotSent),
        (aiohttp.ServerDisconnectedError("gone"), ResponseNotReceived),
        (aiohttp.SocketTimeoutError("30 s"), ResponseNotReceived),
        (aiohttp.ClientPayloadError("cut"), ResponseNotReceived),
        (aiohttp.ClientOSError("reset"), ResponseNotReceived),
        (ConnectionResetError("reset"), ResponseNotReceived),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_errors_of_aiohttp_are_translated(
    error: Exception, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(aiohttp.ClientSession, "_request", fail)
    monkeypatch.setattr(aiohttp.ClientConnectorError, "__str__", lambda _: "refused")
    transport = AiohttpTransport(SETTINGS, httpx.create_ssl_context())
    with pytest.raises(expected, match=type(error).__name__):
        await transport.send(calls.get_status("r-1"))
    await transport.aclose()


async def test_call_that_charges_is_refused() -> None:
    transport = AiohttpTransport(SETTINGS, httpx.create_ssl_context())
    with pytest.raises(ValueError, match="must be sent by SegmindClient"):
        await AsyncSegmindClient(transport).run(calls.submit(GenerationRequest("a cat", seed=7)))
    await transport.aclose()
