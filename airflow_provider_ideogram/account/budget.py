"""
The budget and the spend of a day.

Invariant: charged and reserved amounts together never exceed a cap, as long as no image costs more than its estimate. A
reservation ends once: by the true cost when its job ends, or by proof that nothing was submitted. It is proven by the
ledger: a holder submits only while its hold is fresh and after its record is written, so that a hold that is no longer
fresh and has no record was never submitted. Whatever else happens, the amount stays reserved.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_ideogram.account.values import count, real, text
from airflow_provider_ideogram.api.prices import LIST_PRICES, list_price

#: Seconds after which a hold without a record in the ledger is released.
HOLD_SECONDS = 60.0
#: Seconds in which its holder may submit. The rest is for clocks that differ.
FRESH_SECONDS = 30.0
#: Seconds over which tasks come back that waited for the end of a window.
_RETURN_SPREAD = 60.0
#: Open reservations of a day; beyond it the oldest count as spent.
MAX_OPEN = 2000
#: Lost requests that a day names; beyond it the oldest are only counted.
MAX_LOST = 100
_MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that may be spent, in USD; None for no cap. Days and months are UTC."""

    per_day: float | None = None
    per_month: float | None = None
    per_dag_and_day: float | None = None


@dataclass(frozen=True, slots=True)
class Spender:
    """What an amount is spent for."""

    dag_id: str
    task_id: str
    model: str


@dataclass(frozen=True, slots=True)
class Window:
    """
    A cap, and how far an object has used it.

    :param cap: The setting of the connection.
    :param limit: The object's part of its value, in USD.
    :param spent: What was charged in its window, in USD.
    :param reserved: What running requests may cost, in USD.
    :param ends_at: When its window ends, in seconds since the epoch.
    """

    cap: str
    limit: float
    spent: float
    reserved: float
    ends_at: float


@dataclass(slots=True)
class Total:
    """The spend of a DAG, task and model on a day: numbers of requests, and the amount in millionths of a USD."""

    images: int = 0
    micros: int = 0
    failed: int = 0
    unknown: int = 0


@dataclass(slots=True)
class Reservation:
    """
    An amount for a request that is submitted, or may be.

    :param held_until: When it is released if the ledger has no record of it; None once it has one.
    :param record: The address of that record.
    """

    spender: Spender
    micros: int
    held_until: float | None = None
    record: str | None = None


@dataclass(slots=True)
class DayBudget:
    """
    The reservations and the spend of the requests that were made on a day.

    The caps are divided evenly among the objects of a day, of which this is one.

    :param date: The day, as ``2026-11-25`` in UTC.
    :param before_micros: The object's part of the spend and the reservations of the month's earlier days.
    :param parts: The number of the day's objects.
    :param is_closed: Whether it takes no further reservations, since the next day has begun.
    :param totals: The spend by DAG, task and model.
    :param reservations: The open reservations by id, the oldest first.
    :param lost: Requests that may have been charged and whose images can no longer be had, by id.
    """

    date: str
    before_micros: int = 0
    parts: int = 1
    is_closed: bool = False
    totals: dict[Spender, Total] = field(default_factory=dict)
    reservations: dict[str, Reservation] = field(default_factory=dict)
    lost: dict[str, Spender] = field(default_factory=dict)

    def estimate(self, model: str) -> float:
        """Return the amount to reserve for an image in USD: the list price, or more if the day's images cost more."""
        price = list_price(model)
        known = max(LIST_PRICES.values()) if price is None else price
        seen = [
            total.micros / requests
            for spender, total in self.totals.items()
            if spender.model == model and (requests := total.images + total.unknown)
        ]
        return max([known, *(micros / _MICROS for micros in seen)])

    def reserve(
        self, key: str, spender: Spender, usd: float, caps: Caps, *, now: float, record: str | None
    ) -> Window | None:
        """
        Reserve an amount; a second call with the same key changes nothing.

        :param key: The id of the reservation.
        :param record: The address of the ledger's record that will be written before the submit; None if there is no
            ledger: then the reservation is never released without a result.
        :return: The cap that is reached, None if the amount is reserved.
        """
        if key in self.reservations:
            return None
        micros = _micros(usd)
        for window in self.windows(spender.dag_id, caps):
            if sum(map(_micros, (window.spent, window.reserved))) + micros > _micros(window.limit):
                return window
        self._make_room()
        self.reservations[key] = Reservation(spender, micros, now + HOLD_SECONDS if record else None, record)
        return None

    def unproven(self, now: float) -> Iterator[tuple[str, str]]:
        """Yield the holds of dead holders, each with the address of its record, which says whether to keep it."""
        for key, reservation in self.reservations.items():
            if reservation.record and reservation.held_until is not None and reservation.held_until <= now:
                yield key, reservation.record

    def keep(self, key: str) -> None:
        """Keep a reservation until its job ends: the ledger has a record of it."""
        if reservation := self.reservations.get(key):
            reservation.held_until = reservation.record = None

    def release(self, key: str) -> None:
        """Remove the reservation of a request that certainly was not submitted."""
        self.reservations.pop(key, None)

    def settle(self, key: str, usd: float | None, *, failed: bool = False, lost_request_id: str | None = None) -> None:
        """
        Replace a reservation by the true cost; without a reservation nothing changes, so that it counts once.

        :param usd: The cost; None if it is unknown, which counts as what was reserved.
        :param failed: Whether the request made no image.
        :param lost_request_id: The vendor's id of the request, if its image can no longer be had.
        """
        reservation = self.reservations.pop(key, None)
        if reservation is None:
            return
        total = self.totals.setdefault(reservation.spender, Total())
        if failed:
            total.failed += 1
        elif usd is None:
            total.unknown += 1
        else:
            total.images += 1
        if lost_request_id is not None:
            self.lost = dict([*self.lost.items(), (lost_request_id, reservation.spender)][-MAX_LOST:])
        total.micros += reservation.micros if usd is None and not failed else _micros(usd or 0.0)

    def windows(self, dag_id: str, caps: Caps) -> Iterator[Window]:
        """Yield the use of each cap that bounds a DAG, in USD."""
        day_end, month_end = window_ends(self.date)
        spent, reserved = self._used()
        for name, limit, charged, open_amount, ends_at in (
            ("max_cost_usd_per_dag_and_day", caps.per_dag_and_day, *self._used(dag_id), day_end),
            ("max_cost_usd_per_day", caps.per_day, spent, reserved, day_end),
            ("max_cost_usd_per_month", caps.per_month, self.before_micros + spent, reserved, month_end),
        ):
            if limit is not None:
                part = _micros(limit) // self.parts
                yield Window(name, part / _MICROS, charged / _MICROS, open_amount / _MICROS, ends_at)

    def used_usd(self, dag_id: str | None = None) -> tuple[float, float]:
        """Return what was charged and what is reserved in USD, of one DAG or of all."""
        spent, reserved = self._used(dag_id)
        return spent / _MICROS, reserved / _MICROS

    @property
    def used_micros(self) -> int:
        """What was charged and what is reserved."""
        return sum(self._used())

    @property
    def spenders(self) -> set[Spender]:
        """All DAGs, tasks and models of the day."""
        return {*self.totals, *(each.spender for each in self.reservations.values())}

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain JSON; each DAG, task and model is in it once."""
        held = (each.spender for each in self.reservations.values())
        spenders = dict.fromkeys([*self.totals, *held, *self.lost.values()])
        number = {spender: index for index, spender in enumerate(spenders)}
        return {
            "date": self.date,
            "before_micros": self.before_micros,
            "parts": self.parts,
            "closed": self.is_closed,
            "spenders": [[spender.dag_id, spender.task_id, spender.model] for spender in spenders],
            "totals": [
                [number[spender], total.images, total.micros, total.failed, total.unknown]
                for spender, total in self.totals.items()
            ],
            "reservations": {
                key: [
                    number[each.spender],
                    each.micros,
                    *([round(each.held_until), each.record] if each.held_until else []),
                ]
                for key, each in self.reservations.items()
            },
            **({"lost": {key: number[spender] for key, spender in self.lost.items()}} if self.lost else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DayBudget:
        """Restore the state from :meth:`to_json`."""
        window_ends(value["date"])
        spenders = [Spender(*map(text, spender)) for spender in value["spenders"]]
        totals = {spenders[count(number)]: Total(*map(count, counts)) for number, *counts in value["totals"]}
        reservations = {
            key: Reservation(spenders[count(number)], count(micros), *_hold_from_json(*hold))
            for key, (number, micros, *hold) in value["reservations"].items()
        }
        lost = {text(key): spenders[count(number)] for key, number in value.get("lost", {}).items()}
        before, parts = count(value["before_micros"]), count(value["parts"])
        if not parts:
            raise ValueError("the day has no objects")
        return cls(value["date"], before, parts, value["closed"] is not False, totals, reservations, lost)

    def _used(self, dag_id: str | None = None) -> tuple[int, int]:
        """Return what was charged and what is reserved, of one DAG or of all."""
        spent = sum(total.micros for spender, total in self.totals.items() if dag_id in (None, spender.dag_id))
        held = (each.micros for each in self.reservations.values() if dag_id in (None, each.spender.dag_id))
        return spent, sum(held)

    def _make_room(self) -> None:
        """Count the oldest reservation as spent where there are too many: its job has not ended for a long time."""
        if len(self.reservations) >= MAX_OPEN:
            self.settle(next(iter(self.reservations)), None)


def _micros(usd: float) -> int:
    return round(usd * _MICROS)


def return_time(ends_at: float) -> float:
    """Return when a task comes back that waits for the end of a window, in seconds since the epoch."""
    return ends_at + random.uniform(0.0, _RETURN_SPREAD)


def _hold_from_json(held_until: Any = None, record: Any = None) -> tuple[float | None, str | None]:
    return (None, None) if held_until is None else (real(held_until), text(record))


def day_of(at: float) -> str:
    """Return the UTC date of a time in seconds since the epoch."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def window_ends(date: str) -> tuple[float, float]:
    """Return when the day and its month end, in seconds since the epoch."""
    day = datetime.fromisoformat(date).replace(tzinfo=UTC)
    month_end = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    return (day + timedelta(days=1)).timestamp(), month_end.timestamp()
