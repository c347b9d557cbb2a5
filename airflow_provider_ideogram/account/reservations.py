"""
The reservations in the objects of the days.

Invariant: a reservation's address names the object of the day that it was made on, and it is settled there. A hold is
released only if the ledger's record is missing, or names another reservation: a reservation is settled before another
one takes its place in the record.
"""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.account.budget import DayBudget
from airflow_provider_ideogram.account.store import AccountStore
from airflow_provider_ideogram.exceptions import IdeogramStorageError

if TYPE_CHECKING:
    from airflow_provider_ideogram.storage.objects import ObjectStore

#: Holds of dead holders that a reservation checks at most.
_MAX_CHECKS = 10
#: More than a record of the ledger has.
_MAX_RECORD_BYTES = 2 << 20

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settlement:
    """
    The end of a request.

    :param reservation: The address of its reservation, None if it has none.
    :param usd: What was charged, None if it is unknown.
    :param failed: Whether the request made no image.
    :param lost_request_id: The vendor's id of the request, if its image can no longer be had.
    """

    reservation: str | None
    usd: float | None
    failed: bool = False
    lost_request_id: str | None = None


def settle(objects: ObjectStore, settlements: Iterable[Settlement]) -> bool:
    """
    Replace reservations by true costs, each once, in the days that they were made on.

    :return: Whether that was possible. If not, the amounts stay reserved, and the ledger's records must stay, by which
        a later attempt settles them.
    """
    by_day: dict[str, dict[str, Settlement]] = defaultdict(dict)
    for settlement in settlements:
        if settlement.reservation is not None:
            day, _, key = settlement.reservation.partition("#")
            by_day[day][key] = settlement

    def change(ended: Mapping[str, Settlement], budget: DayBudget) -> None:
        for key, settlement in ended.items():
            lost = settlement.lost_request_id
            budget.settle(key, settlement.usd, failed=settlement.failed, lost_request_id=lost)

    try:
        for day, ended in by_day.items():
            _change_day(objects, day, ended, lambda budget, ended=ended: change(ended, budget))  # type: ignore[misc]
    except IdeogramStorageError as error:
        log.warning("%s. The cost of ended requests stays reserved in the budget", error.reason)
        return False
    return True


def cancel(objects: ObjectStore, reservation: str | None) -> None:
    """Release the amount of a request that certainly was not submitted; a failure to do so is only logged."""
    if reservation is None:
        return
    day, _, key = reservation.partition("#")
    try:
        _change_day(objects, day, [key], lambda budget: budget.release(key))
    except IdeogramStorageError as error:
        log.warning("%s. The amount stays reserved until it is certain that nothing was submitted", error.reason)


def _change_day(objects: ObjectStore, day: str, keys: Iterable[str], apply: Callable[[DayBudget], None]) -> None:
    """Change the object at an address if it has one of the reservations."""
    bucket, _, object_key = day.removeprefix("s3://").partition("/")

    def change(budget: DayBudget | None) -> tuple[Mapping[str, Any] | None, None]:
        if budget is None or budget.reservations.keys().isdisjoint(keys):
            return None, None
        Proofs(objects, day).apply(budget, time.time())
        apply(budget)
        return budget.to_json(), None

    AccountStore(objects, bucket).update(object_key, DayBudget.from_json, change)


@dataclass(frozen=True, slots=True)
class Proofs:
    """
    Whether the ledger's records prove the holds of an object; each record is read once.

    :param objects: The S3 layer.
    :param day: The address of the object.
    """

    objects: ObjectStore
    day: str
    found: dict[str, bool] = field(default_factory=dict)

    def apply(self, budget: DayBudget, now: float) -> None:
        """Keep or release the holds of dead holders, some at a time."""
        for key, record in list(budget.unproven(now))[:_MAX_CHECKS]:
            if key not in self.found:
                self.found[key] = self._may_be_submitted(record, f"{self.day}#{key}")
            (budget.keep if self.found[key] else budget.release)(key)

    def _may_be_submitted(self, record: str, reservation: str) -> bool:
        """Return whether a record is of a reservation; what can't be read may be."""
        bucket, _, key = record.removeprefix("s3://").partition("/")
        try:
            stored = self.objects.get(bucket, key, max_bytes=_MAX_RECORD_BYTES)
            if stored is None:
                return False
            intent = json.loads(stored.body)
            return intent.get("reservation") == reservation and intent.get("not_submitted") is not True
        except (IdeogramStorageError, ValueError, AttributeError, RecursionError):
            return True
