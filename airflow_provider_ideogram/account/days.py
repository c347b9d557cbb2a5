"""
The objects of the days, in which an account's amounts are reserved.

Invariant: the reservations of all objects together never exceed a cap. The first object of a day says how many the day
has, whatever the connection says later. Before it is made, the day before is closed if a late task may still reserve on
it: its objects take no further reservation, so that what the month has used until then only falls.
"""

from __future__ import annotations

import math
import random
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.account.budget import Caps, DayBudget, Spender, Window, day_of, window_ends
from airflow_provider_ideogram.account.reservations import Proofs
from airflow_provider_ideogram.account.store import ADMISSION_PATIENCE, AccountStore
from airflow_provider_ideogram.exceptions import IdeogramBudgetReached

if TYPE_CHECKING:
    from airflow_provider_ideogram.storage.objects import ListedObject, ObjectStore

#: The least part of a cap that an object has, in USD: the dearest image is about one percent of it.
_LEAST_PART_USD = 10.0
#: Seconds after the end of a day in which a task may still reserve on it, since its clock is behind.
_LATE_SECONDS = 3600.0
_DAY_OBJECT = re.compile(r"(\d{4}-\d{2}-\d{2})-\d+\.json")


class _DayIsMissing(Exception):
    """An object of the day is missing."""


class _DayIsClosed(Exception):
    """The next day has begun, by the clock of another task."""


class _DayHasParts(Exception):
    """The day has another number of objects, ``parts``."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts = parts


_NO_CAPS = Caps()


@dataclass(frozen=True, slots=True)
class _Hold:
    """A reservation to make; the parameters are those of :meth:`DayBudget.reserve`."""

    key: str
    spender: Spender
    record: str | None


@dataclass(frozen=True)
class Days:
    """
    The budgets and the spend of a connection.

    :param objects: The S3 layer.
    :param bucket: The bucket of the account's objects.
    :param prefix: The beginning of their keys.
    :param caps: The budgets.
    :param parts: The objects that a new day is divided into at most.
    """

    objects: ObjectStore
    bucket: str
    prefix: str
    caps: Caps = _NO_CAPS
    parts: int = 1

    def reserve(self, spender: Spender, record: str | None) -> str:
        """
        Reserve the amount of an image, and return the reservation's address.

        :param record: The address of the ledger's record that is written next, None without a ledger.
        :raises IdeogramBudgetReached: If a budget leaves no room.
        :raises IdeogramStorageError: If the account's objects can't be used.
        """
        hold = _Hold(uuid.uuid4().hex[:12], spender, record)
        day, parts = day_of(time.time()), self._parts_of_new_day
        while True:
            try:
                return self._reserve_on(day, parts, hold)
            except _DayIsMissing:
                parts = self._make(day)
            except _DayHasParts as other:
                parts = other.parts
            except _DayIsClosed:
                day = _shifted(day, 1)

    def listed(self, first: date, last: date) -> Iterator[ListedObject]:
        """Yield the objects of the days from the first to the last."""
        for item in self.objects.list(self.bucket, self.prefix):
            match = _DAY_OBJECT.fullmatch(item.key.removeprefix(self.prefix))
            if match is not None and first.isoformat() <= match[1] <= last.isoformat():
                yield item

    def read(self, first: date, last: date) -> Iterator[DayBudget]:
        """Yield the days, each of its objects; raise IdeogramStorageError if one can't be read or understood."""
        for item in self.listed(first, last):
            day = self._store.read(item.key, DayBudget.from_json)
            if day is not None:
                yield day

    def _reserve_on(self, day: str, parts: int, hold: _Hold) -> str:
        """Reserve in one of the day's objects, beginning with a random one."""
        first, cap, windows = random.randrange(parts), "", list[Window]()
        for number in (*range(first, parts), *range(first)):
            refusal, used = self._reserve_in(day, number, parts, hold)
            if refusal is None:
                return f"{self._address(day, number)}#{hold.key}"
            cap, windows = refusal.cap, windows + used
        raise _budget_reached([each for each in windows if each.cap == cap])

    def _reserve_in(self, day: str, number: int, parts: int, hold: _Hold) -> tuple[Window | None, list[Window]]:
        """Return the cap that is reached, None if the amount is reserved, and the use of all caps in this object."""
        proofs = Proofs(self.objects, self._address(day, number))

        def change(state: DayBudget | None) -> tuple[Mapping[str, Any], tuple[Window | None, list[Window]]]:
            budget, now = _open_day(state, parts), time.time()
            proofs.apply(budget, now)
            amount = budget.estimate(hold.spender.model)
            refusal = budget.reserve(hold.key, hold.spender, amount, self.caps, now=now, record=hold.record)
            return budget.to_json(), (refusal, list(budget.windows(hold.spender.dag_id, self.caps)))

        return self._store.update(self._key(day, number), DayBudget.from_json, change, ADMISSION_PATIENCE)

    def _make(self, day: str) -> int:
        """Close the day before, make the missing objects of a day, and return their number."""
        month = date.fromisoformat(day).replace(day=1)
        before = date.fromisoformat(_shifted(day, -1))
        if before >= month and time.time() < window_ends(before.isoformat())[0] + _LATE_SECONDS:
            self._close(before.isoformat())
        used = sum(each.used_micros for each in self.read(month, before))
        parts = self._parts_of_new_day
        first = self._make_object(day, 0, DayBudget(day, math.ceil(used / parts), parts))
        for number in range(1, first.parts):
            self._make_object(day, number, DayBudget(day, first.before_micros, first.parts))
        return first.parts

    def _close(self, day: str) -> None:
        """Let a day take no further reservations."""
        first = self._close_object(day, 0, DayBudget(day))
        for number in range(1, first.parts):
            self._close_object(day, number, DayBudget(day, first.before_micros, first.parts))

    def _make_object(self, day: str, number: int, new: DayBudget) -> DayBudget:
        def change(state: DayBudget | None) -> tuple[Mapping[str, Any] | None, DayBudget]:
            return (None, state) if state else (new.to_json(), new)

        return self._store.update(self._key(day, number), DayBudget.from_json, change, ADMISSION_PATIENCE)

    def _close_object(self, day: str, number: int, new: DayBudget) -> DayBudget:
        def change(state: DayBudget | None) -> tuple[Mapping[str, Any] | None, DayBudget]:
            budget = state or new
            if budget.is_closed:
                return None, budget
            Proofs(self.objects, self._address(day, number)).apply(budget, time.time())
            budget.is_closed = True
            return budget.to_json(), budget

        return self._store.update(self._key(day, number), DayBudget.from_json, change, ADMISSION_PATIENCE)

    def _key(self, day: str, number: int) -> str:
        return f"{self.prefix}{day}-{number + 1}.json"

    def _address(self, day: str, number: int) -> str:
        return f"s3://{self.bucket}/{self._key(day, number)}"

    @property
    def _parts_of_new_day(self) -> int:
        """The number of objects, few enough that an image is a small part of each one's caps."""
        caps = [cap for cap in (self.caps.per_day, self.caps.per_month, self.caps.per_dag_and_day) if cap is not None]
        return max(1, min([self.parts, *(int(cap / _LEAST_PART_USD) for cap in caps)]))

    @cached_property
    def _store(self) -> AccountStore:
        return AccountStore(self.objects, self.bucket)


def _open_day(state: DayBudget | None, parts: int) -> DayBudget:
    """Return a day that takes reservations and has this number of objects."""
    if state is None:
        raise _DayIsMissing
    if state.is_closed:
        raise _DayIsClosed
    if state.parts != parts:
        raise _DayHasParts(state.parts)
    return state


def _shifted(day: str, days: int) -> str:
    """Return the date some days later."""
    return (date.fromisoformat(day) + timedelta(days=days)).isoformat()


def _budget_reached(windows: Sequence[Window]) -> IdeogramBudgetReached:
    """Return the error of a cap; ``windows`` is its use in each of the day's objects."""
    limit, spent, reserved = (sum(getattr(each, name) for each in windows) for name in ("limit", "spent", "reserved"))
    ends = datetime.fromtimestamp(windows[0].ends_at, UTC)
    return IdeogramBudgetReached(
        f"{windows[0].cap} of the connection is reached: of {limit:.2f} USD, {spent:.2f} USD are spent and "
        f"{reserved:.2f} USD are reserved for running requests",
        f"Nothing was charged by this attempt. The budget's window ends at {ends:%Y-%m-%d %H:%M} UTC; raise it in the "
        "connection, or set on_budget='wait'.",
        ends_at=windows[0].ends_at,
    )
