from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_ideogram.api import back_off, calls
from airflow_provider_ideogram.api.calls import Call
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.exceptions import IdeogramAuthenticationError, IdeogramInvalidInput
from airflow_provider_ideogram.hooks import shared_client as module
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from airflow_provider_ideogram.hooks.shared_client import _connections, acquire, release

OLD = ConnectionSettings("SG_the_old_key_of_the_account")
NEW = replace(OLD, api_key="SG_the_new_key_of_the_account")
STATUS = calls.get_status("r-1")
QUEUED = ApiResponse(200, {}, b'{"status": "QUEUED"}')
pytestmark = pytest.mark.usefixtures("vendor")


class Vendor:
    """The API without a network: knows one key, and counts."""

    def __init__(self) -> None:
        self.key = OLD.api_key
        self.sent: list[str] = []
        self.answers: list[ApiResponse] = []
        self.open = 0
        self.arrived = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def connect(self, settings: ConnectionSettings) -> Transport:
        self.open += 1
        return Transport(self, settings.api_key)


class Transport:
    def __init__(self, vendor: Vendor, key: str) -> None:
        self._vendor, self._key, self._open = vendor, key, True

    async def send(self, call: Call[Any]) -> ApiResponse:
        self._vendor.sent.append(self._key)
        self._vendor.arrived.set()
        await self._vendor.may_answer.wait()
        assert self._open, "closed under a request"
        if self._vendor.answers:
            return self._vendor.answers.pop(0)
        return QUEUED if self._key == self._vendor.key else ApiResponse(401)

    async def aclose(self) -> None:
        self._open = False
        self._vendor.open -= 1


class Store:
    """Where Airflow keeps the connection."""

    def __init__(self) -> None:
        self.settings = OLD
        self.looks = 0
        self.broken = False
        self.errors: list[Exception] = []

    async def read_connection(self) -> ConnectionSettings:
        self.looks += 1
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        if self.broken:
            raise OSError("no database")
        return self.settings


@pytest.fixture
async def vendor(monkeypatch: pytest.MonkeyPatch) -> Vendor:
    vendor = Vendor()
    monkeypatch.setattr(module, "new_transport", vendor.connect)
    return vendor


@pytest.fixture
def store() -> Store:
    return Store()


def _nothing_left() -> bool:
    return not _connections.get(asyncio.get_running_loop())


async def test_users_that_come_together_share_one_look_up_and_one_transport(vendor: Vendor, store: Store) -> None:
    users = await asyncio.gather(*(acquire("c", store.read_connection) for _ in range(100)))
    assert len({id(user) for user in users}) == 1
    assert (store.looks, vendor.open) == (1, 1)
    for user in users:
        assert vendor.open == 1
        await release("c", user)
    assert vendor.open == 0
    assert _nothing_left()


async def test_connections_are_kept_apart(vendor: Vendor, store: Store) -> None:
    one, other = await acquire("one", store.read_connection), await acquire("other", store.read_connection)
    assert one is not other
    await release("one", one)
    assert vendor.open == 1
    await release("other", other)
    assert _nothing_left()


async def test_first_user_that_is_cancelled_leaves_the_others_alone(vendor: Vendor, store: Store) -> None:
    first, second = (asyncio.create_task(acquire("c", store.read_connection)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    shared = await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert shared.users == 1
    await release("c", shared)
    assert _nothing_left()


@pytest.fixture
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(back_off, "_BACK_OFF_BASE", 0.0)


@pytest.mark.usefixtures("no_back_off")
async def test_connection_that_cannot_be_looked_up_leaves_nothing(store: Store) -> None:
    store.broken = True
    with pytest.raises(OSError, match="no database"):
        await acquire("c", store.read_connection)
    assert store.looks == module.READ_ATTEMPTS
    assert _nothing_left()


@pytest.mark.usefixtures("no_back_off")
async def test_first_look_up_that_fails_ends_no_wait(
    vendor: Vendor, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.errors = [OSError("no database"), RuntimeError("no API server")]
    users = await asyncio.gather(*(acquire("c", store.read_connection) for _ in range(100)))
    assert (store.looks, vendor.open) == (3, 1)
    assert [text in caplog.text for text in ("no database", "no API server")] == [True, True]
    for user in users:
        await release("c", user)
    assert _nothing_left()


@pytest.mark.parametrize("error", [IdeogramInvalidInput("no key"), AirflowNotFoundException("isn't defined")])
async def test_connection_that_only_a_person_can_mend_is_an_error_at_once(store: Store, error: Exception) -> None:
    store.errors = [error]
    with pytest.raises(type(error)):
        await acquire("c", store.read_connection)
    assert store.looks == 1
    assert _nothing_left()


async def test_change_is_seen_by_who_comes_a_minute_later(
    vendor: Vendor, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = await acquire("c", store.read_connection)
    store.settings, vendor.key = NEW, NEW.api_key
    await release("c", await acquire("c", store.read_connection))
    assert store.looks == 1
    monkeypatch.setattr(module, "SETTINGS_TTL_SECONDS", -1.0)
    await release("c", await acquire("c", store.read_connection))
    assert store.looks == 2
    await early.run(STATUS, 1)
    assert vendor.sent == [NEW.api_key]
    await release("c", early)
    assert vendor.open == 0


async def test_rotated_key_is_picked_up_by_all_without_an_error(vendor: Vendor, store: Store) -> None:
    shared = await acquire("c", store.read_connection)
    store.settings, vendor.key = NEW, NEW.api_key
    await asyncio.gather(*(shared.run(STATUS, 1) for _ in range(100)))
    assert store.looks == 2
    assert vendor.sent.count(NEW.api_key) == 100
    await release("c", shared)
    assert vendor.open == 0


async def test_key_that_is_refused_and_was_not_changed_is_an_error(vendor: Vendor, store: Store) -> None:
    shared = await acquire("c", store.read_connection)
    vendor.key = "another"
    with pytest.raises(IdeogramAuthenticationError):
        await shared.run(STATUS, 1)
    assert (len(vendor.sent), store.looks) == (1, 2)
    await release("c", shared)


async def test_look_up_that_fails_later_harms_no_one(
    vendor: Vendor, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shared = await acquire("c", store.read_connection)
    store.broken = True
    monkeypatch.setattr(module, "SETTINGS_TTL_SECONDS", -1.0)
    again = await acquire("c", store.read_connection)
    await again.run(STATUS, 1)
    assert "no database" in caplog.text
    assert OLD.api_key not in caplog.text
    for _ in range(2):
        await release("c", shared)


def test_each_loop_has_a_connection_of_its_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(make: Callable[[], Vendor]) -> int:
        vendor = make()
        monkeypatch.setattr(module, "new_transport", vendor.connect)
        shared = await acquire("c", store.read_connection)
        await shared.run(STATUS, 1)
        await release("c", shared)
        return id(shared)

    for _ in range(2):
        asyncio.run(use(Vendor))
    assert store.looks == 2
