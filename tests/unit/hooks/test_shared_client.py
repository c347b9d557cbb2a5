from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_ideogram.api import back_off, calls
from airflow_provider_ideogram.api.calls import Call
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramConnectionMissing,
    IdeogramInvalidInput,
)
from airflow_provider_ideogram.hooks import shared_client
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from airflow_provider_ideogram.hooks.shared_client import _shared_clients, acquire, release

OLD = ConnectionSettings("SG_the_old_key_of_the_account")
NEW = replace(OLD, api_key="SG_the_new_key_of_the_account")
STATUS = calls.get_status("r-1")
QUEUED = ApiResponse(200, {}, b'{"status": "QUEUED"}')
pytestmark = pytest.mark.usefixtures("vendor")


class Vendor:
    """The API without a network: it accepts one key, and counts requests and open transports."""

    def __init__(self) -> None:
        self.key = OLD.api_key
        self.sent: list[str] = []
        self.responses: list[ApiResponse] = []
        self.open = 0
        self.arrived = asyncio.Event()
        self.may_respond = asyncio.Event()
        self.may_respond.set()

    async def connect(self, settings: ConnectionSettings) -> Transport:
        self.open += 1
        return Transport(self, settings.api_key)


class Transport:
    def __init__(self, vendor: Vendor, key: str) -> None:
        self._vendor, self._key, self._open = vendor, key, True

    async def send(self, call: Call[Any]) -> ApiResponse:
        self._vendor.sent.append(self._key)
        self._vendor.arrived.set()
        await self._vendor.may_respond.wait()
        assert self._open, "closed while a request was in flight"
        if self._vendor.responses:
            return self._vendor.responses.pop(0)
        return QUEUED if self._key == self._vendor.key else ApiResponse(401)

    async def aclose(self) -> None:
        self._open = False
        self._vendor.open -= 1


class ConnectionStore:
    """Airflow's store of the connection; counts the reads."""

    def __init__(self) -> None:
        self.settings = OLD
        self.reads = 0
        self.broken = False
        self.errors: list[Exception] = []

    async def read_connection(self) -> ConnectionSettings:
        self.reads += 1
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        if self.broken:
            raise OSError("no database")
        return self.settings


@pytest.fixture
async def vendor(monkeypatch: pytest.MonkeyPatch) -> Vendor:
    vendor = Vendor()
    monkeypatch.setattr(shared_client, "new_transport", vendor.connect)
    return vendor


@pytest.fixture
def store() -> ConnectionStore:
    return ConnectionStore()


def _all_released() -> bool:
    """Return whether the loop has no shared client left."""
    return not _shared_clients.get(asyncio.get_running_loop())


async def test_concurrent_users_share_one_read_and_one_transport(vendor: Vendor, store: ConnectionStore) -> None:
    users = await asyncio.gather(*(acquire("c", store.read_connection) for _ in range(100)))
    assert len({id(user) for user in users}) == 1
    assert (store.reads, vendor.open) == (1, 1)
    for user in users:
        assert vendor.open == 1
        await release("c", user)
    assert vendor.open == 0
    assert _all_released()


async def test_each_connection_has_its_own_client(vendor: Vendor, store: ConnectionStore) -> None:
    one, other = await acquire("one", store.read_connection), await acquire("other", store.read_connection)
    assert one is not other
    await release("one", one)
    assert vendor.open == 1
    await release("other", other)
    assert _all_released()


async def test_cancelled_first_user_does_not_affect_the_others(vendor: Vendor, store: ConnectionStore) -> None:
    first, second = (asyncio.create_task(acquire("c", store.read_connection)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    shared = await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert shared.users == 1
    await release("c", shared)
    assert _all_released()


@pytest.fixture
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(back_off, "_BACK_OFF_BASE", 0.0)


@pytest.mark.usefixtures("no_back_off")
async def test_unreadable_connection_leaves_no_client(store: ConnectionStore) -> None:
    store.broken = True
    with pytest.raises(OSError, match="no database"):
        await acquire("c", store.read_connection)
    assert store.reads == shared_client.READ_ATTEMPTS
    assert _all_released()


@pytest.mark.usefixtures("no_back_off")
async def test_failed_first_read_is_repeated(
    vendor: Vendor, store: ConnectionStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.errors = [OSError("no database"), RuntimeError("no API server")]
    users = await asyncio.gather(*(acquire("c", store.read_connection) for _ in range(100)))
    assert (store.reads, vendor.open) == (3, 1)
    assert [text in caplog.text for text in ("no database", "no API server")] == [True, True]
    for user in users:
        await release("c", user)
    assert _all_released()


@pytest.mark.parametrize("error", [IdeogramInvalidInput("no key"), IdeogramConnectionMissing.of("x")])
async def test_invalid_or_missing_connection_is_an_error_at_once(store: ConnectionStore, error: Exception) -> None:
    store.errors = [error]
    with pytest.raises(type(error)):
        await acquire("c", store.read_connection)
    assert store.reads == 1
    assert _all_released()


async def test_changed_connection_is_read_after_a_minute(
    vendor: Vendor, store: ConnectionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await acquire("c", store.read_connection)
    store.settings, vendor.key = NEW, NEW.api_key
    await release("c", await acquire("c", store.read_connection))
    assert store.reads == 1
    monkeypatch.setattr(shared_client, "SETTINGS_TTL_SECONDS", -1.0)
    await release("c", await acquire("c", store.read_connection))
    assert store.reads == 2
    await first.run(STATUS, 1)
    assert vendor.sent == [NEW.api_key]
    await release("c", first)
    assert vendor.open == 0


async def test_rotated_key_is_used_without_an_error(vendor: Vendor, store: ConnectionStore) -> None:
    shared = await acquire("c", store.read_connection)
    store.settings, vendor.key = NEW, NEW.api_key
    await asyncio.gather(*(shared.run(STATUS, 1) for _ in range(100)))
    assert store.reads == 2
    assert vendor.sent.count(NEW.api_key) == 100
    await release("c", shared)
    assert vendor.open == 0


async def test_refused_key_that_was_not_changed_is_an_error(vendor: Vendor, store: ConnectionStore) -> None:
    shared = await acquire("c", store.read_connection)
    vendor.key = "another"
    with pytest.raises(IdeogramAuthenticationError):
        await shared.run(STATUS, 1)
    assert (len(vendor.sent), store.reads) == (1, 2)
    await release("c", shared)


async def test_failed_later_read_keeps_the_last_settings(
    vendor: Vendor, store: ConnectionStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shared = await acquire("c", store.read_connection)
    store.broken = True
    monkeypatch.setattr(shared_client, "SETTINGS_TTL_SECONDS", -1.0)
    second = await acquire("c", store.read_connection)
    await second.run(STATUS, 1)
    assert "no database" in caplog.text
    assert OLD.api_key not in caplog.text
    for user in (shared, second):
        await release("c", user)


def test_each_loop_has_its_own_client(store: ConnectionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(make: Callable[[], Vendor]) -> int:
        vendor = make()
        monkeypatch.setattr(shared_client, "new_transport", vendor.connect)
        shared = await acquire("c", store.read_connection)
        await shared.run(STATUS, 1)
        await release("c", shared)
        return id(shared)

    for _ in range(2):
        asyncio.run(use(Vendor))
    assert store.reads == 2
