"""States that were read: their own form is restored, and any other form is an error of the store."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_ideogram.account.budget import Caps, DayBudget, Spender
from airflow_provider_ideogram.account.limiter import AccountLimiter
from airflow_provider_ideogram.account.store import AccountStore
from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.storage.objects import StoredObject

START = 1_795_650_000.0
WHO = Spender("dag", "task", "model")


def limiter_state() -> dict[str, Any]:
    """Return the state of a limit with called and waiting tasks."""
    limiter = AccountLimiter()
    limiter.configure(60, START)
    for second in range(30):
        limiter.ask(f"run-{second % 3}", START, submits=1 + second % 2)
    limiter.advance(START + 10)
    return limiter.to_json()


def day_state() -> dict[str, Any]:
    """Return the state of a day with spend and reservations."""
    day = DayBudget("2026-11-26", before_micros=50_000)
    for number in range(4):
        day.reserve(f"r{number}", WHO, 0.05, Caps(), now=START, record="s3://b/record")
    day.keep("r0")
    day.settle("r1", 0.05)
    day.settle("r2", None, failed=True)
    return day.to_json()


class OneObject:
    """The S3 layer of one object."""

    def __init__(self, state: Any) -> None:
        self.body = json.dumps({"version": 1, **state}).encode()

    def get(self, *_: Any, **__: Any) -> StoredObject:
        """Return the object."""
        return StoredObject(self.body, '"etag"')

    def put(self, _bucket: str, _key: str, body: bytes, **_: Any) -> None:
        """Write the object."""
        self.body = body


def places(value: Any) -> list[tuple[Any, ...]]:
    """Return the paths of all values inside of a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for name, each in inside for path in [(name,), *((name, *rest) for rest in places(each))]]


def replaced(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """Replace the value at a path."""
    copy = json.loads(json.dumps(value))
    at = copy
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = junk
    return copy


def use_limiter(state: AccountLimiter | None) -> tuple[dict[str, Any], None]:
    """Do what tasks do with a limit."""
    limiter = state or AccountLimiter()
    limiter.configure(60, START + 20)
    limiter.ask("run-1", START + 20, submits=3)
    limiter.queue("run-2", START + 20, submits=2)
    limiter.limited(START + 21, 5.0)
    limiter.correct([(START, None), (START + 1, START + 3)])
    return limiter.to_json(), None


def use_day(state: DayBudget | None) -> tuple[dict[str, Any], None]:
    """Do what tasks do with a day."""
    day = state or DayBudget("2026-11-26")
    day.reserve("new", WHO, day.estimate("model"), Caps(1.0, 2.0, 3.0), now=START, record=None)
    for key, _ in list(day.unproven(START + 90)):
        day.release(key)
    day.settle("r0", 0.05)
    return day.to_json(), None


JUNK = st.sampled_from(
    [None, True, "text", "", -1, 0, 3, 0.5, -1e300, 1e300, 10**400, float("nan"), float("inf"), [], [1], {}, {"a": 1}]
)
KINDS: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "limit": (limiter_state(), AccountLimiter.from_json, use_limiter),
    "day": (day_state(), DayBudget.from_json, use_day),
}


@pytest.mark.parametrize("kind", KINDS)
def test_own_form_is_restored(kind: str) -> None:
    state, parse, _ = KINDS[kind]
    assert parse(json.loads(json.dumps(state))).to_json() == state


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_changed_state_works_or_is_an_error(kind: str, data: st.DataObject) -> None:
    state, parse, use = KINDS[kind]
    path = data.draw(st.sampled_from(places(state)))
    objects: Any = OneObject(replaced(state, path, data.draw(JUNK)))
    with suppress(IdeogramStorageError):  # any other error fails the test
        AccountStore(objects, "bucket").update("key", parse, use)


@pytest.mark.parametrize("junk", [None, "1", True, float("nan"), -50_000])
@pytest.mark.parametrize("path", [("before_micros",), ("totals", 0, 2), ("reservations", "r0", 1)])
def test_amount_that_is_no_amount_is_an_error(path: tuple[Any, ...], junk: Any) -> None:
    with pytest.raises(ValueError, match="is not a whole number"):
        DayBudget.from_json(replaced(day_state(), path, junk))
