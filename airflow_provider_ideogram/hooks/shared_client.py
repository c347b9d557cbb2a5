"""
One client for all users of a connection on an event loop: settings, transport and poller.

Invariant: a triggerer with thousands of requests reads a connection, opens sockets and reaches a rate limit once, not
once for each request. Each event loop has its own shared clients, since a transport works only on the loop on which it
was made; ``dag.test()`` uses a new loop for each trigger.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from airflow_provider_ideogram.api.back_off import back_off
from airflow_provider_ideogram.api.calls import Call, get_status
from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramConnectionMissing,
    IdeogramInvalidInput,
    IdeogramPermissionError,
)
from airflow_provider_ideogram.hooks.async_client import AsyncSegmindClient, AsyncTransport, new_transport
from airflow_provider_ideogram.hooks.polls import Poller

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.parsing import RequestStatus
    from airflow_provider_ideogram.hooks.connection import ConnectionSettings

T = TypeVar("T")

#: Seconds for which the settings that were read serve new users. If the API refuses the key, they are read again at
#: once, so this limits how late all other changes of the connection take effect.
SETTINGS_TTL_SECONDS = 60.0
#: Attempts of the first read of a connection: with the back-off, they bridge an outage of the database or the secrets
#: backend of 30 to 60 s.
READ_ATTEMPTS = 8

log = logging.getLogger(__name__)


class SharedClient:
    """
    The client of all users of a connection on the running loop.

    :param read_connection: Reads the connection.
    """

    def __init__(self, read_connection: Callable[[], Awaitable[ConnectionSettings]]) -> None:
        self._read_connection = read_connection
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()
        self._rng = random.Random()
        self.poller = Poller(self._get_status_once, self._rng, self._polls_per_minute)
        self._loop = asyncio.get_running_loop()
        self._settings: ConnectionSettings | None = None
        self._client: AsyncSegmindClient | None = None
        self._transports: list[AsyncTransport] = []
        self.users = 0

    async def refresh(self, since: float) -> None:
        """Read the connection unless it was read after ``since``; concurrent callers share one read."""
        if self._read_at <= since:
            async with self._lock:
                if self._read_at <= since:
                    await self._read()

    async def _settings_changed(self, refused: ConnectionSettings | None, sent_at: float) -> bool:
        """Return whether the settings differ from the refused ones; read the connection if the last read is older."""
        async with self._lock:
            if self._settings == refused and self._read_at <= sent_at:
                await self._read()
            return self._settings != refused

    async def _read(self) -> None:
        """Read the connection; calls in flight continue with the transport with which they were sent."""
        started = self._loop.time()
        settings = await (self._read_first() if self._settings is None else self._reread(self._settings))
        if settings != self._settings:
            self._transports.append(await new_transport(settings))
            self._settings, self._client = settings, AsyncSegmindClient(self._transports[-1])
        self._read_at = started

    async def _read_first(self) -> ConnectionSettings:
        """Read the connection, with retries: an error ends the wait for all paid requests of the triggerer."""
        for attempt in range(1, READ_ATTEMPTS):
            try:
                return await self._read_connection()
            except (IdeogramInvalidInput, IdeogramConnectionMissing):
                raise
            except Exception as error:
                log.warning("The connection can't be read; it is read again: %s", error)
            await asyncio.sleep(back_off(attempt, self._rng))
        return await self._read_connection()

    async def _reread(self, current: ConnectionSettings) -> ConnectionSettings:
        try:
            return await self._read_connection()
        except Exception as error:
            log.warning("The connection can't be read again; its last settings stay in use: %s", error)
            return current

    async def run(self, call: Call[T], max_attempts: int) -> T:
        """Send a read; send it again with the new key if the key was refused and has been changed."""
        while True:
            assert self._client is not None  # noqa: S101 - acquire() calls refresh() first
            sent_at, settings = self._loop.time(), self._settings
            try:
                return await self._client.run(call, max_attempts)
            except (IdeogramAuthenticationError, IdeogramPermissionError):
                if not await self._settings_changed(settings, sent_at):
                    raise

    def _get_status_once(self, request_id: str) -> Awaitable[RequestStatus]:
        return self.run(get_status(request_id), max_attempts=1)

    def _polls_per_minute(self) -> float:
        return self._settings.polls_per_minute if self._settings else 0.0

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in self._transports:
            await transport.aclose()


_shared_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedClient]] = WeakKeyDictionary()


async def acquire(conn_id: str, read_connection: Callable[[], Awaitable[ConnectionSettings]]) -> SharedClient:
    """
    Return the running loop's shared client of a connection; :func:`release` must follow.

    :param conn_id: The Airflow connection's id.
    :param read_connection: Reads the connection; its errors pass.
    """
    loop = asyncio.get_running_loop()
    clients = _shared_clients.setdefault(loop, {})
    shared = clients.get(conn_id)
    if shared is None:
        shared = clients[conn_id] = SharedClient(read_connection)
    shared.users += 1
    try:
        await shared.refresh(since=loop.time() - SETTINGS_TTL_SECONDS)
    except BaseException:
        await release(conn_id, shared)
        raise
    return shared


async def release(conn_id: str, shared: SharedClient) -> None:
    """Release a shared client; close it when the last user releases it."""
    shared.users -= 1
    if not shared.users:
        del _shared_clients[asyncio.get_running_loop()][conn_id]
        await shared.aclose()
