"""The watcher of an event loop sees what blocks, and nothing else."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.event_loop import blocking_calls


def _connect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: time.sleep(0), "time.sleep"),
        (lambda: Path(__file__).read_bytes(), "open"),
        (lambda: socket.getaddrinfo("127.0.0.1", 80), "socket.getaddrinfo"),
        (_connect, "socket.connect"),
        (ssl.create_default_context, "SSLContext.load_default_certs"),
        (lambda: subprocess.run([sys.executable, "-c", ""], check=True), "subprocess.Popen"),
    ],
)
async def test_finds_blocking_calls(call: Callable[[], object], named: str) -> None:
    with blocking_calls() as calls:
        call()

    assert any(found.startswith(named) for found in calls.found)
    assert "test_support_event_loop.py" in calls.found[0]


async def test_finds_nothing_in_awaited_calls() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    with blocking_calls() as calls:
        async with server:
            await asyncio.sleep(0)
            await asyncio.to_thread(time.sleep, 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
            writer.close()
            await writer.wait_closed()

    assert calls.found == []


async def test_sees_nothing_any_more_when_done() -> None:
    with blocking_calls() as calls:
        pass

    time.sleep(0)  # noqa: ASYNC251

    assert calls.found == []
