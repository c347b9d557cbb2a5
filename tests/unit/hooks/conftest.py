"""What tests of the hook share: a server on a socket with scripted replies, a simulated internet, and no proxy."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpcore
import httpx
import pytest
from PIL import Image

from airflow_provider_ideogram.hooks import tls
from airflow_provider_ideogram.hooks.transport import Transport

Reply: TypeAlias = Callable[..., bytes]
#: The address to which ``images.segmind.com`` resolves in the simulated internet.
PUBLIC = "93.184.216.34"


def _make_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 4), "red").save(buffer, "PNG")
    return buffer.getvalue()


#: An image of 8 by 4 pixels.
PNG = _make_png()


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class ScriptedServer:
    """Serves one request for each connection with the next reply; repeats the last reply."""

    replies: list[bytes] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def script(self, *replies: bytes) -> None:
        self.replies = list(replies)

    def serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            method, path, _ = stream.readline().decode().split()
            lines = iter(lambda: stream.readline().decode().strip(), "")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = stream.read(int(headers.get("content-length", 0)))
            self.received.append(Received(method, path, headers, body))
            connection.sendall(self.replies.pop(0) if len(self.replies) > 1 else self.replies[0])


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        scripted.port = listening.getsockname()[1]

        def accept() -> None:
            while True:
                connection, _ = listening.accept()
                if stopping.is_set():
                    connection.close()
                    return
                scripted.serve(connection)

        stopping = threading.Event()
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield scripted
        finally:
            stopping.set()
            socket.create_connection(("127.0.0.1", scripted.port)).close()
            thread.join()


@pytest.fixture
def reply() -> Reply:
    """Return a function that makes a response: a body, sent as JSON unless it is bytes, a status and headers."""

    def make(body: Any = b"", status: int = 200, **headers: str) -> bytes:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        all_headers = {"content-length": str(len(raw)), "connection": "close"}
        all_headers |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in all_headers.items())
        return f"HTTP/1.1 {status} -\r\n{head}\r\n".encode() + raw

    return make


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the machine's proxies from the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def no_certificates(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove the machine's certificates from the environment, and those that were read before."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    tls._load.cache_clear()
    yield
    tls._load.cache_clear()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, in seconds; they take no time."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The addresses to which each name resolves; other names don't resolve."""
    addresses: dict[str, list[str]] = {"images.segmind.com": [PUBLIC]}

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        if host not in addresses:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return addresses


class Internet:
    """
    Accepts all connections, and answers requests with one handler each; repeats the last handler.

    :param connected: The addresses that were connected to, also in vain.
    :param unreachable: The errors of addresses that accept no connection.
    """

    def __init__(self) -> None:
        self.handlers: list[Callable[[httpx.Request], httpx.Response]] = []
        self.requests: list[httpx.Request] = []
        self.connected: list[str] = []
        self.unreachable: dict[str, Exception] = {}

    def connect_tcp(self, host: str, *_: Any, **__: Any) -> httpcore.NetworkStream:
        self.connected.append(host)
        if host in self.unreachable:
            raise self.unreachable[host]
        return httpcore.MockStream([])

    def handle_request(self, transport: Transport, request: httpx.Request) -> httpx.Response:
        try:
            transport.backend.connect_tcp(request.url.raw_host.decode(), request.url.port or 443, 30.0)
        except httpcore.ConnectError as error:
            raise httpx.ConnectError(str(error)) from error
        except httpcore.ConnectTimeout as error:
            raise httpx.ConnectTimeout(str(error)) from error
        return self(request)

    def script(self, *answers: httpx.Response | Exception) -> None:
        def handler(answer: httpx.Response | Exception) -> Callable[[httpx.Request], httpx.Response]:
            def handle(_: httpx.Request) -> httpx.Response:
                if isinstance(answer, Exception):
                    raise answer
                # A new response, since an answer that was read cannot be read again.
                return httpx.Response(answer.status_code, headers=answer.headers, stream=answer.stream)

            return handle

        self.handlers = [handler(answer) for answer in answers]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return (self.handlers.pop(0) if len(self.handlers) > 1 else self.handlers[0])(request)


@pytest.fixture
def internet(names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> Internet:
    """A simulated internet, which answers with a PNG unless it is scripted."""
    simulated = Internet()
    simulated.script(httpx.Response(200, content=PNG))
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", lambda _, *arguments: simulated.connect_tcp(*arguments))
    monkeypatch.setattr(Transport, "handle_request", lambda *arguments: simulated.handle_request(*arguments))
    return simulated
