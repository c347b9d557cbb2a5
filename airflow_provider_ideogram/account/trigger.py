"""
The wait for a turn of the account's rate limit, in the triggerer.

Invariant: a trigger only reads. All waiting tasks of a triggerer share one read of the state every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_ideogram.account.limiter import AccountLimiter
from airflow_provider_ideogram.account.store import AccountStore
from airflow_provider_ideogram.account.turns import Ticket, Turns
from airflow_provider_ideogram.triggers.request import IdeogramTrigger

log = logging.getLogger(__name__)

#: Seconds between two reads of the state.
READ_SECONDS = 2.0
#: Seconds after which a store that can't be read is opened anew.
_REOPEN_SECONDS = 60.0
#: Seconds after which a task asks again that was not called.
MAX_WAIT_SECONDS = 6 * 3600.0


class IdeogramTurnTrigger(BaseTrigger):
    """
    Wait until a task is called, then fire one event ``{"payload": payload}``.

    :param turn: The place of the task, as :meth:`Turn.to_json` returns it.
    :param deadline: When to fire at the latest, in seconds since the epoch.
    :param aws_conn_id: The Airflow connection of type ``aws``.
    :param payload: Plain JSON without secrets, which the event returns to the resumed task.
    """

    def __init__(
        self, *, turn: Sequence[Any], deadline: float, aws_conn_id: str | None, payload: Mapping[str, Any]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.turn = list(turn)
        self.deadline = deadline
        self.aws_conn_id = aws_conn_id
        self.payload = dict(payload)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class and all arguments."""
        names = ("turn", "deadline", "aws_conn_id", "payload")
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire exactly one event."""
        try:
            async with asyncio.timeout(max(self.deadline - time.time(), 0.0)):
                await await_turn(self.aws_conn_id, self.turn)
        except TimeoutError:
            self.log.info("The task was not called in time: it asks again")
        yield TriggerEvent({"payload": self.payload})


class IdeogramRequestsOrTurnTrigger(IdeogramTrigger):
    """
    Poll requests as the base class does, but fire also when the task is called.

    :param turn: The place of the task, as :meth:`Turn.to_json` returns it.
    :param aws_conn_id: The Airflow connection of type ``aws``.
    """

    def __init__(self, *, turn: Sequence[Any], aws_conn_id: str | None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.turn = list(turn)
        self.aws_conn_id = aws_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class and all arguments."""
        path, arguments = super().serialize()
        return path, arguments | {"turn": self.turn, "aws_conn_id": self.aws_conn_id}

    async def _wait(self) -> None:
        waits = {asyncio.ensure_future(super()._wait()), asyncio.ensure_future(await_turn(self.aws_conn_id, self.turn))}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


async def await_turn(aws_conn_id: str | None, turn: Sequence[Any]) -> None:
    """Return when the task is called; ``turn`` is its place, as :meth:`Turn.to_json` returns it."""
    bucket, key, *ticket = turn
    await _reader_of(aws_conn_id, bucket, key).wait_for(Ticket(*ticket))


class _Reader:
    """The reads of one object for all tasks that wait on a loop; it reads while there are any."""

    def __init__(self, aws_conn_id: str | None, bucket: str, key: str) -> None:
        self._aws_conn_id, self._bucket, self._key = aws_conn_id, bucket, key
        self._waiting: dict[asyncio.Future[None], Ticket] = {}
        self._reading: asyncio.Task[None] | None = None

    async def wait_for(self, ticket: Ticket) -> None:
        """Return when the task is called."""
        called = asyncio.get_running_loop().create_future()
        self._waiting[called] = ticket
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        try:
            await called
        finally:
            self._waiting.pop(called, None)

    async def _read(self) -> None:
        store, opened_at = None, 0.0
        while self._waiting:
            try:
                if store is None:
                    store, opened_at = await self._store(), time.monotonic()
                self._call(await asyncio.to_thread(_read_turns, store, self._key))
            except Exception as error:  # a reader that ends would leave its tasks waiting
                log.warning("The turns of the rate limit can't be read: %s", error)
                if time.monotonic() > opened_at + _REOPEN_SECONDS:
                    store = None  # its credentials may have expired
            await asyncio.sleep(READ_SECONDS)

    def _call(self, turns: Turns) -> None:
        for called, ticket in self._waiting.items():
            if not called.done() and turns.is_called(ticket):
                called.set_result(None)

    async def _store(self) -> AccountStore:
        from airflow_provider_ideogram.storage.async_store import open_objects

        objects = await open_objects(self._aws_conn_id)
        return AccountStore(objects, self._bucket)


def _read_turns(store: AccountStore, key: str) -> Turns:
    """Return the turns of an object by now; called in a thread, since a long pause takes tens of ms to calculate."""
    limiter = store.read(key, AccountLimiter.from_json) or AccountLimiter()
    limiter.advance(time.time())
    return limiter.turns


#: The readers of each event loop.
_readers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str | None, str, str], _Reader]] = WeakKeyDictionary()


def _reader_of(aws_conn_id: str | None, bucket: str, key: str) -> _Reader:
    readers = _readers.setdefault(asyncio.get_running_loop(), {})
    return readers.setdefault((aws_conn_id, bucket, key), _Reader(aws_conn_id, bucket, key))
