"""
The spend that the account's objects of the days hold.

Invariant: reads only. An object that can't be read or understood is an error, so no sum leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from datetime import date
from typing import TYPE_CHECKING

from airflow_provider_ideogram.account.account import place_of
from airflow_provider_ideogram.account.budget import Spender, Total
from airflow_provider_ideogram.account.days import Days

if TYPE_CHECKING:
    from airflow_provider_ideogram.account.budget import DayBudget
    from airflow_provider_ideogram.storage.objects import ObjectStore

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
    for day in days_of(objects, url, conn_id).read(first, last):
        for spender, spend in spend_of(day):
            yield day.date, spender, spend


def days_of(objects: ObjectStore, url: str, conn_id: str) -> Days:
    """Return the days of a connection; the parameters are those of :func:`read_spend`."""
    return Days(objects, *place_of(url, conn_id))


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
