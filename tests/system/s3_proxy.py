"""
A reverse proxy that adds faults to an S3 server: 5xx, resets, slow responses, and times without access.

Invariant: the writes to one key are forwarded one at a time, so that a conditional write is atomic, as in S3. The
server behind the proxy compares first and writes later.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import struct
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web
from yarl import URL

COUNTS_PATH = "/__faults__"
STORED_PATH = "/__stored__"
_REQUEST_ID = "x-amz-meta-ideogram-request-id"
_HOP_BY_HOP = {"connection", "transfer-encoding", "expect", "keep-alive", "server", "date"}
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
#: The share of requests that have each fault.
_SHARES = {
    "500 before": 0.03,
    "503 before": 0.03,
    "500 after": 0.015,
    "reset before": 0.015,
    "reset after": 0.015,
    "slow": 0.03,
}
_SLOW_SECONDS = 1.5
#: All requests fail in the last seconds of each period; the two kinds alternate.
_PERIOD_SECONDS = 45.0
_OUTAGE_SECONDS = 5.0
_OUTAGES = ("access denied for a while", "503 for a while")
_ERRORS = {
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "access": (403, "AccessDenied"),
}


class FaultyProxy:
    """
    The proxy.

    :param upstream: The S3 server's address.
    :param seed: Chooses the requests that fail, in the order of their arrival.
    :param faults: Whether any requests fail.
    """

    def __init__(self, upstream: str, seed: int, faults: bool) -> None:
        self._upstream = upstream
        self._rng = random.Random(seed)
        self._faults = faults
        self._started = time.monotonic()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.counts: Counter[str] = Counter()
        self.stored: list[str] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Forward a request, with a fault if one is chosen."""
        try:
            body = await request.read()
        except (ConnectionError, asyncio.IncompleteReadError, aiohttp.ClientPayloadError, web.RequestPayloadError):
            self.counts["(uploads that were cut off)"] += 1
            raise
        fault = self._fault() if self._faults else ""
        self.counts[fault or "(requests without a fault)"] += 1
        if fault == "slow":
            await asyncio.sleep(_SLOW_SECONDS)
        if fault.endswith(("before", "while")):
            return self._fail(request, fault)
        lock = self._locks[request.path] if request.method in ("PUT", "DELETE") else asyncio.Lock()
        async with lock:
            response = await self._forward(request, body)
            if request.method == "PUT" and response.status == 200 and _REQUEST_ID in request.headers:
                self.stored.append(request.headers[_REQUEST_ID])
        return self._fail(request, fault) if fault.endswith("after") else response

    async def count(self, _: web.Request) -> web.Response:
        """Respond with the number of requests that had each fault."""
        return web.json_response(self.counts)

    async def list_stored(self, _: web.Request) -> web.Response:
        """Respond with the request id of each image that was ever stored, also if it was replaced later."""
        return web.json_response(self.stored)

    def _fault(self) -> str:
        period, moment = divmod(time.monotonic() - self._started, _PERIOD_SECONDS)
        if moment > _PERIOD_SECONDS - _OUTAGE_SECONDS:
            return _OUTAGES[int(period) % len(_OUTAGES)]
        draw = self._rng.random()
        for fault, share in _SHARES.items():
            draw -= share
            if draw < 0:
                return fault
        return ""

    def _fail(self, request: web.Request, fault: str) -> web.Response:
        kind = fault.split()[0]
        if kind == "reset":
            assert request.transport is not None
            connection: socket.socket = request.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            request.transport.abort()
            return web.Response()
        status, code = _ERRORS[kind]
        text = f"<Error><Code>{code}</Code><Message>made by the system test</Message></Error>"
        return web.Response(status=status, text=text, content_type="application/xml")

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        url = URL(self._upstream + request.raw_path, encoded=True)
        async with self._client.request(
            request.method, url, data=body, headers=headers, skip_auto_headers=("Content-Type",)
        ) as response:
            content = await response.read()
            kept = [(name, value) for name, value in response.headers.items() if name.lower() not in _HOP_BY_HOP]
            if request.method != "HEAD":
                kept = [(name, value) for name, value in kept if name.lower() != "content-length"]
            return web.Response(status=response.status, body=content, headers=kept)

    async def client(self, _: web.Application) -> AsyncIterator[None]:
        """Keep the connections to the server while the application runs."""
        async with aiohttp.ClientSession(auto_decompress=False) as self._client:
            yield


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--no-faults", dest="faults", action="store_false")
    options = parser.parse_args()
    proxy = FaultyProxy(options.upstream, options.seed, options.faults)
    app = web.Application(client_max_size=64 << 20)
    app.cleanup_ctx.append(proxy.client)
    app.router.add_get(COUNTS_PATH, proxy.count)
    app.router.add_get(STORED_PATH, proxy.list_stored)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    web.run_app(app, host="127.0.0.1", port=options.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
