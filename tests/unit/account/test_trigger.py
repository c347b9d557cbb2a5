"""The readers of the turns, which all waiting tasks of a triggerer share."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast
from unittest import mock

import pytest

from airflow_provider_ideogram.account import trigger
from airflow_provider_ideogram.account.limiter import AccountLimiter
from airflow_provider_ideogram.account.store import AccountStore
from airflow_provider_ideogram.account.turns import Ticket


class Store:
    """A store that a reader has opened; without a state it can't be read."""

    def __init__(self, state: AccountLimiter | None) -> None:
        self.state, self.reads = state, 0

    def read(self, *_: Any) -> AccountLimiter:
        """Return the state."""
        self.reads += 1
        if self.state is None:
            raise ConnectionError("the token has expired")
        return self.state


def test_store_that_cannot_be_read_is_opened_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = AccountLimiter()
    ticket = waiting.turns.issue("run", time.time(), 1)
    stores, now = [Store(None), Store(AccountLimiter())], iter(range(0, 10_000, 25))
    opened: list[Store] = []

    async def open_store(_: Any) -> AccountStore:
        opened.append(stores[len(opened)])
        return cast("AccountStore", opened[-1])

    monkeypatch.setattr(trigger._Reader, "_store", open_store)
    monkeypatch.setattr(trigger, "READ_SECONDS", 0.0)
    monkeypatch.setattr(trigger, "time", mock.Mock(time=time.time, monotonic=lambda: next(now)))

    asyncio.run(asyncio.wait_for(trigger._Reader(None, "bucket", "key").wait_for(ticket), 10))

    assert [store.reads for store in opened] == [3, 1]  # not at each failure


def test_task_is_called_by_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = AccountLimiter()
    limiter.configure(60, time.time())
    while isinstance(ticket := limiter.ask("run", time.time()), list):
        pass
    assert isinstance(ticket, Ticket)
    store = Store(limiter)
    assert not trigger._read_turns(cast("AccountStore", store), "key").is_called(ticket)
    later = time.time() + 60
    monkeypatch.setattr(trigger, "time", mock.Mock(time=lambda: later))
    assert trigger._read_turns(cast("AccountStore", store), "key").is_called(ticket)
