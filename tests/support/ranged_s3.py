"""An S3 server with one manifest that is too large to be kept, and that can be held back."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class RangedS3(ThreadingHTTPServer):
    """
    Serves every key as the same lines of equal length, whose bytes are computed.

    :param rows: How many lines there are.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, rows: int, line_bytes: int = 800) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rows, self.line_bytes = rows, line_bytes
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.requests = 0
        self.bytes_sent = 0

    @property
    def url(self) -> str:
        """The address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def size(self) -> int:
        """The number of bytes of an object."""
        return self.rows * self.line_bytes

    def content(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of a range, line by line."""
        for row in range(start // self.line_bytes, -(-end // self.line_bytes)):
            line = self.line(row)
            first = row * self.line_bytes
            yield line[max(start - first, 0) : end - first]

    def line(self, row: int) -> bytes:
        """Return a row's line."""
        head = (
            f'{{"row": {row}, "id": "cat-{row}", "status": "generated", "fingerprint": "{"f" * 32}", "prompt": "Cat", '
        )
        return f'{head}"etag": "'.encode().ljust(self.line_bytes - 3, b"x") + b'"}\n'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangedS3

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        s3 = self.server
        with s3.lock:
            s3.requests += 1
        s3.released.wait(60)
        found = _RANGE.fullmatch(self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        end = min(int(found[2]) + 1 if found and found[2] else s3.size, s3.size)
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(end - start))
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        try:
            for part in s3.content(start, end) if with_body else ():
                self.wfile.write(part)
                with s3.lock:
                    s3.bytes_sent += len(part)
        except OSError:  # the client has read enough
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


@contextmanager
def ranged_s3(rows: int) -> Iterator[RangedS3]:
    """Run a server until the block ends."""
    with RangedS3(rows) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()
