"""
The gallery's own threads, and the limits of each request's work.

Invariant: the API server also serves the tasks' heartbeats, so the gallery blocks no threads but its own
:data:`THREADS`. A request begins no read after its time, reads no more than its bytes, and ends at its next read when
the browser has closed the connection. Work that waits for a thread is dropped then. Searches occupy the processor, so
that at most :data:`SEARCHES` run at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 8
#: Seconds after which a page or an image begins no further read, the wait for a thread included.
PAGE_SECONDS = 8.0
#: Seconds in which an image must be sent, also to a slow browser.
STREAM_SECONDS = 120.0
#: Bytes that a page reads from S3: a page of rows needs some 100 KB, a search of 5,000 rows 5 MB.
PAGE_BYTES = 16 << 20

SEARCHES = 2
#: Seconds that a search waits for others, in one of the threads.
_SEARCH_WAIT_SECONDS = 2.0

_searches = BoundedSemaphore(SEARCHES)
_threads = ThreadPoolExecutor(THREADS, "ideogram-gallery")


class Busy(Exception):
    """No thread, or no place for a search, was free in time."""


class BrowserGone(Exception):
    """The browser has closed the connection."""


class LimitReached(Exception):
    """The request has used its time or its bytes; the message says which."""


class Work:
    """
    The work of one request.

    :param seconds: How long it may begin reads.
    :param max_bytes: How many bytes it may read from S3.
    """

    def __init__(self, seconds: float = PAGE_SECONDS, max_bytes: int = PAGE_BYTES) -> None:
        self._ends_at = time.monotonic() + seconds
        self._bytes_left = max_bytes
        self._is_stopped = False

    @property
    def seconds_left(self) -> float:
        """The rest of its time, 0 after the end."""
        return max(self._ends_at - time.monotonic(), 0.0)

    def stop(self) -> None:
        """End the work at its next read."""
        self._is_stopped = True

    def spend(self, size: int = 0) -> None:
        """
        Check the limits; to be called before and after each read.

        :param size: How many bytes were read.
        :raises BrowserGone: If the work was stopped.
        :raises LimitReached: If a limit is exceeded.
        """
        self._bytes_left -= size
        if self._is_stopped:
            raise BrowserGone
        if self._bytes_left < 0:
            raise LimitReached("there is too much to read")
        if not self.seconds_left:
            raise LimitReached("reading takes too long")

    def start_stream(self, size: int, seconds: float = STREAM_SECONDS) -> None:
        """Set the limits for sending so many bytes."""
        self._ends_at = time.monotonic() + seconds
        self._bytes_left = size

    @contextmanager
    def search(self) -> Iterator[None]:
        """
        Wait for other searches.

        :raises Busy: If they did not end in time.
        """
        if not _searches.acquire(timeout=min(_SEARCH_WAIT_SECONDS, self.seconds_left)):
            raise Busy
        try:
            yield
        finally:
            _searches.release()

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Run a blocking function in one of the gallery's threads.

        :raises Busy: If no thread was free in time.
        """

        def begin() -> T:
            if not self.seconds_left:
                raise Busy
            return function(*args, **kwargs)

        return await asyncio.wrap_future(_threads.submit(begin))
