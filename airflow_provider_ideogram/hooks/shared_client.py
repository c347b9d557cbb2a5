"""
What all users of a connection share on an event loop: its settings, its transport, and the queue of its polls.

Invariant: a triggerer with thousands of jobs looks a connection up, opens sockets and runs into a limit once for all
of them, not once each. By event loop, since a transport can't be used on another one than it was made on;
``dag.test()`` runs one a trigger.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_ideogram.api.back_off import back_off
from airflow_provider_ideogram.api.calls import Call, get_status
from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramInvalidInput,
    IdeogramPermissionError,
)
from airflow_provider_ideogram.hooks.async_client import AsyncSegmindClient, AsyncTransport, new_transport
from airflow_provider_ideogram.hooks.polls import PollQueue

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.parsing import RequestStatus
    from airflow_provider_ideogram.hooks.connection import ConnectionSettings

T = TypeVar("T")

#: Seconds for which a connection that was looked up serves users who come later. A key that is refused is looked up
#: at once; this is for all else that may be changed in a connection.
SETTINGS_TTL_SECONDS = 60.0
#: Times that a connection of which nothing is known is looked up: with the back-off half a minute to a minute of a
#: database or a secrets backend that is away.
READ_ATTEMPTS = 8

log = logging.getLogger(__name__)


class SharedClient:
    """
    A connection's users on one event loop.

    :param read_connection: Reads the connection.
    """

    def __init__(self, read_connection: Callable[[], Awaitable[ConnectionSettings]]) -> None:
        self._read_connection = read_connection
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()
        self._rng = random.Random()
        self.polls = PollQueue(self._get_status_once, self._rng)
        self._loop = asyncio.get_running_loop()
        self._settings: ConnectionSettings | None = None
        self._driver: AsyncSegmindClient | None = None
        self._transports: list[AsyncTransport] = []
        self.users = 0

    async def refresh(self, since: float) -> None:
        """Look the connection up, unless that was done after ``since``; all who ask meanwhile wait for one look."""
        if self._read_at <= since:
            async with self._lock:
                if self._read_at <= since:
                    await self._read()

    async def _has_changed(self, refused: ConnectionSettings | None, sent_at: float) -> bool:
        """Tell whether there are other settings than those that were refused, by a look that is later than that."""
        async with self._lock:
            if self._settings == refused and self._read_at <= sent_at:
                await self._read()
            return self._settings != refused

    async def _read(self) -> None:
        """Read the connection. What is in flight goes on over the transport that it was sent with."""
        started = self._loop.time()
        settings = await (self._read_first() if self._settings is None else self._read_again(self._settings))
        if settings != self._settings:
            self._transports.append(await new_transport(settings))
            self._settings, self._driver = settings, AsyncSegmindClient(self._transports[-1])
        self._read_at = started

    async def _read_first(self) -> ConnectionSettings:
        """Look the connection up with patience: all waits of a triggerer, for images that are paid, hang on it."""
        for attempt in range(1, READ_ATTEMPTS):
            try:
                return await self._read_connection()
            except (IdeogramInvalidInput, AirflowNotFoundException):
                raise
            except Exception as problem:
                log.warning("The connection can't be looked up, and is tried again: %s", problem)
            await asyncio.sleep(back_off(attempt, self._rng))
        return await self._read_connection()

    async def _read_again(self, known: ConnectionSettings) -> ConnectionSettings:
        try:
            return await self._read_connection()
        except Exception as problem:
            log.warning("The connection can't be looked up again, what is known of it stays in use: %s", problem)
            return known

    async def run(self, call: Call[T], max_attempts: int) -> T:
        """Send a read, once more with the new key where the key was changed."""
        while True:
            assert self._driver is not None  # noqa: S101 - users come in by way of refresh()
            sent_at, settings = self._loop.time(), self._settings
            try:
                return await self._driver.run(call, max_attempts)
            except (IdeogramAuthenticationError, IdeogramPermissionError):
                if not await self._has_changed(settings, sent_at):
                    raise

    def _get_status_once(self, request_id: str) -> Awaitable[RequestStatus]:
        return self.run(get_status(request_id), max_attempts=1)

    async def aclose(self) -> None:
        """Close all connections."""
        self.polls.close()
        for transport in self._transports:
            await transport.aclose()


_connections: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedClient]] = WeakKeyDictionary()


async def acquire(conn_id: str, read_connection: Callable[[], Awaitable[ConnectionSettings]]) -> SharedClient:
    """
    Return the running loop's connection of this id, which is to be given back.

    :param conn_id: The Airflow connection's id.
    :param read_connection: Reads it; raises whatever is wrong with it.
    """
    loop = asyncio.get_running_loop()
    connections = _connections.setdefault(loop, {})
    shared = connections.get(conn_id)
    if shared is None:
        shared = connections[conn_id] = SharedClient(read_connection)
    shared.users += 1
    try:
        await shared.refresh(since=loop.time() - SETTINGS_TTL_SECONDS)
    except BaseException:
        await release(conn_id, shared)
        raise
    return shared


async def release(conn_id: str, shared: SharedClient) -> None:
    """Return what was borrowed; the last one closes it."""
    shared.users -= 1
    if not shared.users:
        del _connections[asyncio.get_running_loop()][conn_id]
        await shared.aclose()
