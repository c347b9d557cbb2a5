"""Which proxy an address has, in the form in which users and other programs write the environment variables."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any

import httpx
import pytest

from airflow_provider_ideogram.api import calls
from airflow_provider_ideogram.api.calls import Call
from airflow_provider_ideogram.api.image_source import ImageUrl
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.parsing import RequestStatus, parse_credits
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramServerUnavailable
from airflow_provider_ideogram.hooks import proxies
from airflow_provider_ideogram.hooks.async_client import AsyncSegmindClient, new_transport
from airflow_provider_ideogram.hooks.client import SegmindClient
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from airflow_provider_ideogram.hooks.download import download_image
from airflow_provider_ideogram.hooks.proxies import proxy_of
from tests.support.hostile import KEY
from tests.unit.hooks.conftest import Reply, ScriptedServer

STATUS, SUBMIT = calls.get_status("r-1"), calls.submit(GenerationRequest("a cat", seed=7))
API = "https://api.segmind.com/v2/x"
pytestmark = pytest.mark.usefixtures("no_proxy")


def _proxy_url(url: str = API) -> str | None:
    proxy = proxy_of(httpx.URL(url))
    return None if proxy is None else str(proxy.url)


def _set(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://a:1"}, "http://a:1"),
        ({"HTTP_PROXY": "http://a:1"}, None),
        ({"ALL_PROXY": "http://a:1"}, "http://a:1"),
        ({"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:2"}, "http://b:2"),
        ({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2"}, "http://a:1"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://b:2"}, None),
        ({"HTTPS_PROXY": "a.example:3128"}, "http://a.example:3128"),
        ({"HTTPS_PROXY": "user:word@a.example:3128"}, "http://a.example:3128"),
        ({"HTTPS_PROXY": " 10.0.0.1:3128 "}, "http://10.0.0.1:3128"),
        ({"HTTPS_PROXY": "[fd00::1]:3128"}, "http://[fd00::1]:3128"),
        ({"HTTPS_PROXY": "https://a.example"}, "https://a.example"),
        ({"ALL_PROXY": "socks5h://a:1080"}, "socks5h://a:1080"),
    ],
)
def test_proxy_follows_from_the_environment(
    variables: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set(monkeypatch, **variables)
    assert _proxy_url() == expected


def test_credentials_are_separate_from_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, HTTPS_PROXY="user:p%40ss@a:1")
    proxy = proxy_of(httpx.URL(API))
    assert proxy is not None
    assert proxy.auth == ("user", "p@ss")


@pytest.mark.parametrize(
    ("url", "hosts", "exempt"),
    [
        (API, "segmind.com", True),
        (API, ".segmind.com", True),
        (API, "*.segmind.com", True),
        (API, "API.Segmind.com.", True),
        ("https://segmind.com./x", ".segmind.com", True),
        (API, "mind.com", False),
        (API, "other.example, *", True),
        (API, "a.example api.segmind.com", True),
        (API, "api.segmind.com:443", True),
        (API, "api.segmind.com:8443", False),
        ("https://api.segmind.com:8443/x", "segmind.com:8443", True),
        ("https://f\u00fc.example/x", "f\u00fc.example", True),
        ("https://f\u00fc.example/x", "xn--f-eha.example", True),
        ("https://10.1.2.3/x", "10.1.2.3", True),
        ("https://10.1.2.3/x", "10.1.2.3:443", True),
        ("https://10.1.2.3/x", "10.1.2.3:80", False),
        ("https://10.1.2.3/x", "10.0.0.0/8", True),
        ("https://10.1.2.3/x", "10.1.2.9/24", True),
        ("https://11.1.2.3/x", "10.0.0.0/8", False),
        ("https://10.1.2.3/x", "2.3", False),
        ("https://[::ffff:10.1.2.3]/x", "10.0.0.0/8", True),
        ("https://[fd00::1]/x", "fd00::/8", True),
        ("https://[fd00::1]/x", "fd00:0::1", True),
        ("https://[fd00::1]/x", "[fd00::1]", True),
        ("https://[fd00::1]/x", "[fd00::1]:443", True),
        ("https://[fd00::1]/x", "[fd00::1]:80", False),
        ("https://[fd00::1]/x", "10.0.0.0/8", False),
        ("https://ten.example/x", "10.0.0.0/8", False),
    ],
)
def test_no_proxy_exempts_hosts(url: str, hosts: str, exempt: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, HTTPS_PROXY="http://a:1", NO_PROXY=hosts)
    assert (_proxy_url(url) is None) == exempt


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "<local>", "10.*", "a:b", "http://a.example", "a.example/x"])
def test_unreadable_exemption_is_logged_once(
    entry: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    proxies._exemptions.cache_clear()
    _set(monkeypatch, HTTPS_PROXY="http://a:1", no_proxy=f"{entry},segmind.com")
    with caplog.at_level(logging.WARNING):
        assert [_proxy_url(), _proxy_url()] == [None, None]
        assert _proxy_url("https://a.example/x") == "http://a:1"
    assert caplog.messages == [f"An entry of the environment variable no_proxy can't be read and is ignored: {entry!r}"]


@pytest.mark.parametrize(
    "value",
    ["http://", "http://a:port", "http://user:pa#ss@a:1", "http://[::1", "ftp://a:1", "socks4://a:1", "socks://a:1"],
)
def test_error_names_the_variable_and_not_its_value(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, all_proxy=value)
    with pytest.raises(IdeogramInvalidInput, match="the environment variable all_proxy is not") as caught:
        _proxy_url()
    assert value not in str(caught.value)


def test_error_is_raised_for_exempt_hosts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the first call to fail could be the download of a paid image."""
    _set(monkeypatch, HTTPS_PROXY="ftp://a:1", NO_PROXY="api.segmind.com")
    with pytest.raises(IdeogramInvalidInput, match="HTTPS_PROXY"):
        _proxy_url()


def test_socks_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "_has_socks", False)
    _set(monkeypatch, HTTPS_PROXY="socks5://a:1080")
    with pytest.raises(IdeogramInvalidInput, match=r"HTTPS_PROXY names a SOCKS proxy: install .*ideogram\[socks\]"):
        _proxy_url()


async def _use(path: str, base_url: str) -> Any:
    """Send a request on one of the paths to the network."""
    settings = replace(ConnectionSettings(KEY), base_url=base_url)
    if path == "download":
        return download_image(ImageUrl(f"{base_url}/a.png"), settings)
    if path == "poll":
        async with aclosing(await new_transport(settings)) as transport:
            return await AsyncSegmindClient(transport).run(STATUS, max_attempts=1)
    with closing(SegmindClient(settings)) as client:
        call: Call[Any] = SUBMIT if path == "submit" else STATUS
        return client.run(call, max_attempts=1)


each_path = pytest.mark.parametrize("path", ["submit", "call", "poll", "download"])


@each_path
@pytest.mark.parametrize("base_url", ["https://api.segmind.com", "http://api.example"])
@pytest.mark.usefixtures("waits")
async def test_proxy_that_refuses_is_named(
    path: str, base_url: str, server: ScriptedServer, reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script(reply(b"<html>", 407))
    _set(monkeypatch, ALL_PROXY=server.url)
    with pytest.raises(IdeogramServerUnavailable, match=r"(?i)the environment's proxy refuses .*407") as caught:
        await _use(path, base_url)
    assert caught.value.charged == (path == "download")
    method = "CONNECT" if base_url.startswith("https") else "POST" if path == "submit" else "GET"
    assert {received.method for received in server.received} == {method}
    assert method != "CONNECT" or all(KEY not in str(received.headers) for received in server.received)


@pytest.mark.parametrize("path", ["call", "poll"])
async def test_socks_proxy_resolves_names(path: str, reply: Reply, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[bytes] = []

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            for answer in (b"\x05\x00", b"\x05\x00\x00\x01" + bytes(6), reply({"status": "QUEUED"})):
                received.append(connection.recv(65536))
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        _set(monkeypatch, ALL_PROXY=f"socks5://127.0.0.1:{listening.getsockname()[1]}")
        assert await _use(path, "http://api.example") == RequestStatus("QUEUED")
        thread.join()
    assert b"api.example" in received[1]
    assert received[2].startswith(b"GET /v2/requests/r-1/status HTTP/1.1")


@pytest.mark.parametrize("path", ["call", "poll"])
async def test_error_in_the_environment_precedes_every_request(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, HTTPS_PROXY="ftp://a:1")
    with pytest.raises(IdeogramInvalidInput, match="HTTPS_PROXY"):
        SegmindClient(ConnectionSettings(KEY)) if path == "call" else await new_transport(ConnectionSettings(KEY))


async def test_history_may_have_another_proxy(
    server: ScriptedServer, reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script(reply({"credits": 1}))
    settings = ConnectionSettings(KEY, base_url="http://api.example", history_url="http://history.example:8080/rows")
    _set(monkeypatch, HTTP_PROXY=server.url, NO_PROXY="api.example")
    with closing(SegmindClient(settings)) as client:
        client.run(Call("GET", settings.history_url or "", parse_credits), max_attempts=1)
    assert [received.path for received in server.received] == ["http://history.example:8080/rows"]
