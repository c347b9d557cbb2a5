"""
A server that responds to each request after 50 ms, in a separate process.

Invariant: it uses as little CPU time as Python allows, without an HTTP framework and with prepared responses, so that
the client is measured on a small machine. The response depends on the path only, and no job is ever done. It counts the
requests of all clients in the same way; `/count` returns the number.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

RESPONSE_SECONDS = 0.05


def _response(status: str, body: dict[str, object]) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


_PROCESSING = _response("200 OK", {"request_id": "r-1", "status": "PROCESSING"})
#: The responses for the compared clients: a batch of OpenAI, and the 404 that HttpSensorTrigger repeats.
_BATCH = _response(
    "200 OK",
    {
        "id": "b",
        "object": "batch",
        "status": "in_progress",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "f",
        "completion_window": "24h",
        "created_at": 1,
    },
)
_NOT_YET = _response("404 Not Found", {"error": "not yet"})


class StatusServer(asyncio.Protocol):
    """One connection: requests without a body, one after the other."""

    polls = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1]
            if path == b"/count":
                self._reply(_response("200 OK", {"polls": StatusServer.polls}))
                continue
            StatusServer.polls += 1
            response = _BATCH if b"/batches/" in path else _NOT_YET if b"/not-yet/" in path else _PROCESSING
            asyncio.get_running_loop().call_later(RESPONSE_SECONDS, self._reply, response)

    def _reply(self, response: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(response)  # type: ignore[attr-defined]


async def serve() -> None:
    """Print a free port, and serve on it until the process ends."""
    server = await asyncio.get_running_loop().create_server(StatusServer, "127.0.0.1", 0, backlog=20_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def status_server() -> Iterator[str]:
    """Run the server in a separate process, and yield its base URL."""
    command = [sys.executable, "-m", "benchmarks.status_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run(serve())
