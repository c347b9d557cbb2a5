"""
The spend that the account's objects of the days hold.

Invariant: reads only. An object that can't be read or understood is an error, so no sum leaves it out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from datetime import date
from typing import TYPE_CHECKING

from airflow_provider_ideogram.account.account import place_of
from airflow_provider_ideogram.account.budget import DayBudget, Spender, Total
from airflow_provider_ideogram.account.store import AccountStore

if TYPE_CHECKING:
    from airflow_provider_ideogram.storage.objects import ListedObject, ObjectStore

_DAY_OBJECT = re.compile(r"(\d{4}-\d{2}-\d{2})-\d+of\d+\.json")
_USD = 1_000_000

#: What spend is summed by, and the names of the columns that this makes.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "day": ("day",),
    "dag": ("dag_id",),
    "task": ("dag_id", "task_id"),
    "model": ("model",),
}


@dataclass(frozen=True, slots=True)
class Spend:
    """
    Sums of requests and amounts.

    :param images: Images that were charged.
    :param failed: Requests that made no image and were not charged.
    :param unknown: Requests that count as charged with their estimate, since their cost or their end is unknown.
    :param micros: The spend in millionths of a USD.
    :param open_requests: Requests that may still be charged.
    :param open_micros: What is reserved for them, in millionths of a USD.
    """

    images: int = 0
    failed: int = 0
    unknown: int = 0
    micros: int = 0
    open_requests: int = 0
    open_micros: int = 0

    def __add__(self, other: Spend) -> Spend:
        return Spend(*(own + added for own, added in zip(astuple(self), astuple(other), strict=True)))

    def to_row(self) -> dict[str, int | float]:
        """Return the sums with amounts in USD."""
        return {
            "images": self.images,
            "failed": self.failed,
            "unknown": self.unknown,
            "spent_usd": self.micros / _USD,
            "open_requests": self.open_requests,
            "reserved_usd": self.open_micros / _USD,
        }


def read_spend(
    objects: ObjectStore, url: str, conn_id: str, first: date, last: date
) -> Iterator[tuple[str, Spender, Spend]]:
    """
    Yield the spend of each day, DAG, task and model, by the day of the submit in UTC.

    :param url: Where the account's objects are, ``s3://bucket/prefix/``.
    :param conn_id: The id of the connection, which names the account.
    :raises IdeogramStorageError: If an object can't be read or understood.
    """
    for day in read_days(objects, url, conn_id, first, last):
        for spender, spend in spend_of(day):
            yield day.date, spender, spend


def read_days(objects: ObjectStore, url: str, conn_id: str, first: date, last: date) -> Iterator[DayBudget]:
    """Yield the days, each of its parts; the parameters are those of :func:`read_spend`."""
    store = AccountStore(objects, place_of(url, conn_id)[0])
    for item in list_days(objects, url, conn_id, first, last):
        day = store.read(item.key, DayBudget.from_json)
        if day is not None:
            yield day


def list_days(objects: ObjectStore, url: str, conn_id: str, first: date, last: date) -> Iterator[ListedObject]:
    """Yield the objects of the days, each of its parts; the parameters are those of :func:`read_spend`."""
    bucket, prefix = place_of(url, conn_id)
    for item in objects.list(bucket, prefix):
        match = _DAY_OBJECT.fullmatch(item.key.removeprefix(prefix))
        if match is not None and first.isoformat() <= match[1] <= last.isoformat():
            yield item


def sum_spend(spend: Iterable[tuple[str, Spender, Spend]], by: str) -> list[dict[str, str | int | float]]:
    """
    Return a row for each day, DAG, task or model, in the order of their names.

    :param by: A key of :data:`COLUMNS`.
    """
    sums: dict[tuple[str, ...], Spend] = {}
    for day, spender, amounts in spend:
        values = {"day": day, "dag_id": spender.dag_id, "task_id": spender.task_id, "model": spender.model}
        names = tuple(values[name] for name in COLUMNS[by])
        sums[names] = sums.get(names, Spend()) + amounts
    return [dict(zip(COLUMNS[by], names, strict=True)) | sums[names].to_row() for names in sorted(sums)]


def spend_of(day: DayBudget) -> Iterator[tuple[Spender, Spend]]:
    """Yield the spend of each DAG, task and model of a day, and its open requests."""
    for spender, total in day.totals.items():
        yield spender, _of_total(total)
    for reservation in day.reservations.values():
        yield reservation.spender, Spend(open_requests=1, open_micros=reservation.micros)


def _of_total(total: Total) -> Spend:
    return Spend(total.images, total.failed, total.unknown, total.micros)
