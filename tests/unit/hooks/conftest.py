"""A server on a socket that says what a test tells it to, byte by byte, and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest


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
    """Each connection takes one request and gets the next reply; with the last one it goes on."""

    replies: list[bytes] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def script(self, *replies: bytes) -> None:
        self.replies = list(replies)

    def answer(self, connection: socket.socket) -> None:
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

        def serve() -> None:
            while True:
                connection, _ = listening.accept()
                if stopping.is_set():
                    connection.close()
                    return
                scripted.answer(connection)

        stopping = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield scripted
        finally:
            stopping.set()
            socket.create_connection(("127.0.0.1", scripted.port)).close()
            thread.join()


@pytest.fixture
def reply() -> Callable[..., bytes]:
    """Makes the bytes of an answer: a body, as JSON where it is no bytes, with a status and headers."""

    def make(body: Any = b"", status: int = 200, **headers: str) -> bytes:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"content-length": str(len(raw)), "connection": "close"}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        return f"HTTP/1.1 {status} -\r\n{head}\r\n".encode() + raw

    return make
