"""
What all users of a connection share on an event loop: its settings, its transport, and its turn-taking.

Invariant: a triggerer with thousands of jobs looks a connection up, opens sockets and runs into a limit once for all
of them, not once each. By event loop, since a transport can't be used on another one than it was made on;
``dag.test()`` runs one a trigger.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from airflow_provider_ideogram.api.admission import Admission
from airflow_provider_ideogram.api.calls import Call
from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramError,
    IdeogramPermissionError,
)
from airflow_provider_ideogram.hooks.client import AsyncDriver
from airflow_provider_ideogram.hooks.transport import MAX_IN_FLIGHT, AsyncTransport, new_transport

if TYPE_CHECKING:
    from airflow_provider_ideogram.hooks.connection import ConnectionSettings

T = TypeVar("T")

#: Seconds for which a connection that was looked up serves users who come later. A key that is refused is looked up
#: at once; this is for all else that may be changed in a connection.
LOOK_UP_SECONDS = 60.0

log = logging.getLogger(__name__)


class Turns:
    """
    Who may send: first come, first served, as many at a time as the :class:`Admission` says.

    :param admission: What is known of the API's state.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._loop = asyncio.get_running_loop()
        self._in_flight = 0
        self._waiting: OrderedDict[asyncio.Future[int], None] = OrderedDict()
        self._opening: asyncio.TimerHandle | None = None

    async def take(self) -> int:
        """Wait for a turn, and return the admission's round that it belongs to."""
        if not self._waiting and self._has_room():
            self._in_flight += 1
            return self._admission.round
        turn: asyncio.Future[int] = self._loop.create_future()
        self._waiting[turn] = None
        self._let_in()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()  # it came too late
            else:
                self._waiting.pop(turn, None)
            raise

    def give_back(self) -> None:
        """End a turn."""
        self._in_flight -= 1
        self._let_in()

    def close(self) -> None:
        """Forget the time at which the API is to be tried again."""
        if self._opening is not None:
            self._opening.cancel()

    def _has_room(self) -> bool:
        return self._in_flight < self._admission.capacity(self._loop.time())

    def _let_in(self) -> None:
        # One at a time, each as another one ends: thousands that wait must not all wake at once.
        while self._waiting and self._has_room():
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                self._in_flight += 1
                turn.set_result(self._admission.round)
        if self._waiting and self._opening is None and self._admission.opens_at > self._loop.time():
            self._opening = self._loop.call_at(self._admission.opens_at, self._open)

    def _open(self) -> None:
        self._opening = None
        self._let_in()


class SharedConnection:
    """
    A connection's users on one event loop.

    :param look_up: Reads the connection.
    """

    def __init__(self, look_up: Callable[[], Awaitable[ConnectionSettings]]) -> None:
        rng = random.Random()
        self._look_up = look_up
        self._looked_up_at = float("-inf")
        self._lock = asyncio.Lock()
        self._admission = Admission(MAX_IN_FLIGHT, rng)
        self._turns = Turns(self._admission)
        self._loop = asyncio.get_running_loop()
        self._settings: ConnectionSettings | None = None
        self._driver: AsyncDriver | None = None
        self._transports: list[AsyncTransport] = []
        self.users = 0

    async def refresh(self, since: float) -> None:
        """Look the connection up, unless that was done after ``since``; all who ask meanwhile wait for one look."""
        if self._looked_up_at <= since:
            async with self._lock:
                if self._looked_up_at <= since:
                    await self._read()

    async def _has_changed(self, refused: ConnectionSettings | None, sent_at: float) -> bool:
        """Tell whether there are other settings than those that were refused, by a look that is later than that."""
        async with self._lock:
            if self._settings == refused and self._looked_up_at <= sent_at:
                await self._read()
            return self._settings != refused

    async def _read(self) -> None:
        """Read the connection. What is in flight goes on over the transport that it was sent with."""
        started = self._loop.time()
        try:
            settings = await self._look_up()
        except Exception as problem:
            if self._settings is None:
                raise
            log.warning("The connection can't be looked up again, what is known of it stays in use: %s", problem)
            settings = self._settings
        if settings != self._settings:
            self._transports.append(await new_transport(settings))
            self._settings, self._driver = settings, AsyncDriver(self._transports[-1])
        self._looked_up_at = started

    async def run(self, call: Call[T], max_attempts: int) -> T:
        """Send a read when its turn has come, once more with the new key where the key was changed."""
        while True:
            turn = await self._turns.take()
            sent_at, settings = self._loop.time(), self._settings
            try:
                return await self._send(call, max_attempts, turn)
            except (IdeogramAuthenticationError, IdeogramPermissionError):
                if not await self._has_changed(settings, sent_at):
                    raise

    async def _send(self, call: Call[T], max_attempts: int, turn: int) -> T:
        assert self._driver is not None  # noqa: S101 - users come in by way of refresh()
        try:
            answer = await self._driver.run(call, max_attempts)
        except IdeogramError as error:
            self._admission.on_error(turn, error, self._loop.time())
            raise
        else:
            self._admission.on_answer(turn)
            return answer
        finally:
            self._turns.give_back()

    async def aclose(self) -> None:
        """Close all connections."""
        self._turns.close()
        for transport in self._transports:
            await transport.aclose()


_connections: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedConnection]] = WeakKeyDictionary()


async def borrow(conn_id: str, look_up: Callable[[], Awaitable[ConnectionSettings]]) -> SharedConnection:
    """
    Return the running loop's connection of this id, which is to be given back.

    :param conn_id: The Airflow connection's id.
    :param look_up: Reads it; raises whatever is wrong with it.
    """
    loop = asyncio.get_running_loop()
    connections = _connections.setdefault(loop, {})
    shared = connections.get(conn_id)
    if shared is None:
        shared = connections[conn_id] = SharedConnection(look_up)
    shared.users += 1
    try:
        await shared.refresh(since=loop.time() - LOOK_UP_SECONDS)
    except BaseException:
        await give_back(conn_id, shared)
        raise
    return shared


async def give_back(conn_id: str, shared: SharedConnection) -> None:
    """Return what was borrowed; the last one closes it."""
    shared.users -= 1
    if not shared.users:
        del _connections[asyncio.get_running_loop()][conn_id]
        await shared.aclose()
