"""Calls on a server that closes a kept connection at the moment when the next request arrives."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace

import pytest

from airflow_provider_ideogram.api import calls
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.parsing import RequestStatus, Submission
from airflow_provider_ideogram.hooks.client import SegmindClient
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from tests.support.hostile import KEY

STATUS, SUBMIT = calls.get_status("r-1"), calls.submit(GenerationRequest("a cat", seed=7))
pytestmark = pytest.mark.usefixtures("no_proxy", "waits")


@dataclass
class ClosingServer:
    """Answers the first request of each connection, and closes the connection when the second one arrives."""

    settings: ConnectionSettings
    connections: int = 0
    #: The requests that were not answered, by their method.
    lost: list[str] = field(default_factory=list)

    def serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            method = stream.readline().split()[0].decode()
            length = 0
            while header := stream.readline().strip():
                if header.lower().startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
            stream.read(length)
            body = json.dumps({"request_id": "r-1"} if method == "POST" else {"status": "QUEUED"}).encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            if second := stream.readline():
                self.lost.append(second.split()[0].decode())


@pytest.fixture
def server() -> Iterator[ClosingServer]:
    with socket.create_server(("127.0.0.1", 0)) as listening, ExitStack() as threads:
        port = listening.getsockname()[1]
        closing_server = ClosingServer(replace(ConnectionSettings(KEY), base_url=f"http://127.0.0.1:{port}"))

        def accept() -> None:
            while True:
                connection, _ = listening.accept()
                if stopping.is_set():
                    connection.close()
                    return
                closing_server.connections += 1
                thread = threading.Thread(target=closing_server.serve, args=(connection,))
                thread.start()
                threads.callback(thread.join)

        stopping = threading.Event()
        accepting = threading.Thread(target=accept)
        accepting.start()
        yield closing_server
        stopping.set()
        socket.create_connection(listening.getsockname()).close()
        accepting.join()


def test_submit_has_a_connection_of_its_own(server: ClosingServer) -> None:
    with closing(SegmindClient(server.settings)) as client:
        assert client.run(STATUS) == RequestStatus("QUEUED")
        assert [client.run(SUBMIT) for _ in range(3)] == [Submission("r-1")] * 3
    assert server.lost == []
    assert server.connections == 4


def test_concurrent_submits_have_connections_of_their_own(server: ClosingServer) -> None:
    with closing(SegmindClient(server.settings)) as client, ThreadPoolExecutor(8) as threads:
        assert list(threads.map(client.run, [SUBMIT] * 40)) == [Submission("r-1")] * 40
    assert server.lost == []
    assert server.connections == 40


def test_read_on_a_closed_connection_is_sent_again(server: ClosingServer) -> None:
    with closing(SegmindClient(server.settings)) as client:
        assert [client.run(STATUS) for _ in range(2)] == [RequestStatus("QUEUED")] * 2
    assert server.lost == ["GET"]
