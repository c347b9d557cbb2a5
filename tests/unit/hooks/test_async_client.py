from __future__ import annotations

import asyncio
import ssl
from typing import Any

import aiohttp
import httpx
import pytest

from airflow_provider_ideogram.api import calls
from airflow_provider_ideogram.api.retry_flow import RequestNotSent, ResponseNotReceived
from airflow_provider_ideogram.hooks import async_client as module
from airflow_provider_ideogram.hooks.async_client import AiohttpTransport, HttpxTransport, new_transport
from airflow_provider_ideogram.hooks.connection import ConnectionSettings

SETTINGS = ConnectionSettings("SG_0123456789abcdef")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


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
async def test_httpx_carries_what_goes_through_a_proxy(
    environment: dict[str, str], kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    transport = await new_transport(SETTINGS)
    assert type(transport) is kind
    await transport.aclose()


async def test_certificates_are_read_once_and_on_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    module._load_tls_context.cache_clear()
    on_loop: list[bool] = []

    def create() -> ssl.SSLContext:
        on_loop.append(asyncio._get_running_loop() is not None)
        return ssl.create_default_context()

    monkeypatch.setattr(module.httpx, "create_ssl_context", create)
    for transport in await asyncio.gather(*(new_transport(SETTINGS) for _ in range(5))):
        await transport.aclose()
    assert on_loop == [False]
    module._load_tls_context.cache_clear()


@pytest.mark.parametrize(
    ("error", "means"),
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
async def test_what_certainly_never_reached_the_server_is_told_from_what_may_have(
    error: Exception, means: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(aiohttp.ClientSession, "_request", fail)
    monkeypatch.setattr(aiohttp.ClientConnectorError, "__str__", lambda _: "refused")
    transport = AiohttpTransport(SETTINGS, httpx.create_ssl_context())
    with pytest.raises(means, match=type(error).__name__):
        await transport.send(calls.get_status("r-1"))
    await transport.aclose()
