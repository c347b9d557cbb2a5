"""
The admission of a task's submits: its slot of the rate limit, and its amount of the budget.

Invariant: nothing is submitted without both where the connection names them; what can't be read is an error. An amount
is reserved in the object of the day, whose address is in the reservation, so that it is settled there.
"""

from __future__ import annotations

import logging
import math
import random
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_ideogram.account.budget import FRESH_SECONDS, Caps, DayBudget, Refusal, Spender, day_of
from airflow_provider_ideogram.account.limiter import PACE_SECONDS, AccountLimiter
from airflow_provider_ideogram.account.store import AccountStore
from airflow_provider_ideogram.account.turns import Ticket, flow_of
from airflow_provider_ideogram.exceptions import IdeogramBudgetReached, IdeogramRateLimited, IdeogramStorageError

if TYPE_CHECKING:
    from airflow_provider_ideogram.hooks.connection import ConnectionSettings
    from airflow_provider_ideogram.storage.objects import ObjectStore

#: Submits per minute that one object is changed for; a higher limit is divided.
_PER_OBJECT = 100
#: Holds of dead holders that a reservation checks at most.
_MAX_CHECKS = 10
_FOLDER = "_account/"

log = logging.getLogger(__name__)


class TurnAhead(Exception):
    """
    The task has to wait for its turn.

    :param bucket: The bucket of the object that has the turns.
    :param key: Its key.
    :param ticket: The place of the task.
    """

    def __init__(self, bucket: str, key: str, ticket: Ticket) -> None:
        super().__init__("The account's rate limit has no free slot")
        self.bucket = bucket
        self.key = key
        self.ticket = ticket


@dataclass(frozen=True, slots=True)
class Who:
    """The task that submits."""

    dag_id: str
    run_id: str
    task_id: str


def is_shared(settings: ConnectionSettings) -> bool:
    """Return whether the connection's tasks share a limit, a budget or a record of the spend."""
    return bool(settings.requests_per_minute or settings.account_url or caps_of(settings))


def caps_of(settings: ConnectionSettings) -> Caps:
    """Return the budgets of a connection."""
    return Caps(settings.max_cost_usd_per_day, settings.max_cost_usd_per_month, settings.max_cost_usd_per_dag_and_day)


@dataclass(slots=True)
class _Admitted:
    """The slot of the last admission, and until when its submit may be sent."""

    slot: float = 0.0
    fresh_until: float = math.inf


@dataclass(frozen=True)
class Admission:
    """
    Slots and amounts for the submits of one task, one after another.

    :param objects: The S3 layer.
    :param url: Where the account's objects are: ``s3://bucket/prefix/``.
    :param conn_id: The id of the connection, which names the account.
    :param settings: The settings of the connection.
    :param who: The task.
    :param turn: The key and the ticket of an earlier :class:`TurnAhead`.
    """

    objects: ObjectStore
    url: str
    conn_id: str
    settings: ConnectionSettings
    who: Who
    turn: tuple[str, Ticket] | None = None
    is_shared: bool = field(default=True, init=False)
    _admitted: _Admitted = field(default_factory=_Admitted)

    def admit(self, model: str, record: str | None) -> str | None:
        """
        Take a slot, reserve the amount of an image, and wait for the slot, which is a few seconds ahead at most.

        :param model: The model's slug.
        :param record: The address of the ledger's record that is written next, None without a ledger.
        :return: The reservation, which :meth:`cancel` or :func:`settle` ends.
        :raises TurnAhead: If no slot is free.
        :raises IdeogramBudgetReached: If a budget leaves no room.
        :raises IdeogramStorageError: If the account's objects can't be used.
        """
        self._admitted.slot = self.take_slot()
        self._admitted.fresh_until = time.time() + FRESH_SECONDS
        reservation = self._reserve(model, record)
        time.sleep(min(max(self._admitted.slot - time.time(), 0.0), PACE_SECONDS))
        return reservation

    def check(self) -> None:
        """Raise IdeogramRateLimited if the admission is too old to submit."""
        if time.time() > self._admitted.fresh_until:
            raise IdeogramRateLimited(
                "The task was held up after it got its slot of the rate limit",
                "Nothing was submitted. The task takes another slot.",
                retry_after=0.0,
            )

    def limited(self, delay: float) -> None:
        """Tell all tasks of the account that a submit was answered 429; ``delay`` is in seconds."""

        def change(state: dict[str, Any] | None) -> tuple[Mapping[str, Any], None]:
            limiter = self._limiter(state)
            limiter.limited(time.time(), delay)
            return limiter.to_json(), None

        for number in range(self._parts):
            self._store.update(self._limit_key(number), change)

    def cancel(self, reservation: str | None) -> None:
        """Release the amount of a request that certainly was not submitted; a failure to do so is only logged."""
        if reservation is None:
            return
        try:
            _change_day(self.objects, reservation, DayBudget.release)
        except IdeogramStorageError as error:
            log.warning("%s. The amount is released in a minute, since the ledger has no record of it", error.reason)

    def settle(self, reservation: str | None, usd: float | None, *, failed: bool = False) -> bool:
        """Replace a reservation by the true cost, see :func:`settle`."""
        return settle(self.objects, reservation, usd, failed=failed)

    def take_slot(self) -> float:
        """Return the time of a slot; raise TurnAhead if none is free."""
        keys = [self._limit_key(number) for number in range(self._parts)]
        key, ticket = self.turn or ("", None)
        if key not in keys:  # the first attempt, or the limit was changed
            key, ticket = random.choice(keys), None
        flow = flow_of(self.who.dag_id, self.who.run_id)

        def change(state: dict[str, Any] | None) -> tuple[Mapping[str, Any], list[float] | Ticket]:
            limiter = self._limiter(state)
            answer = limiter.ask(flow, time.time(), ticket=ticket)
            return limiter.to_json(), answer

        answer = self._store.update(key, change)
        if isinstance(answer, Ticket):
            raise TurnAhead(self._bucket, key, answer)
        return answer[0]

    def _reserve(self, model: str, record: str | None) -> str:
        """Return the reservation of an image's amount; raise IdeogramBudgetReached."""
        key, spender, now = uuid.uuid4().hex[:12], Spender(self.who.dag_id, self.who.task_id, model), time.time()
        first, proofs, refusals = random.randrange(self._parts), _Proofs(self.objects), []

        def change(state: dict[str, Any] | None) -> tuple[Mapping[str, Any] | None, Refusal | None]:
            budget = DayBudget.from_json(state) if state else self._new_day(now)
            proofs.apply(budget, now)
            refusal = budget.reserve(key, spender, budget.estimate(model), self._caps, now=now, record=record)
            return budget.to_json(), refusal

        for number in (*range(first, self._parts), *range(first)):
            day_key = self._day_key(day_of(now), number)
            refusal = self._store.update(day_key, change)
            if refusal is None:
                return f"s3://{self._bucket}/{day_key}#{key}"
            refusals.append(refusal)
        raise _budget_reached(refusals)

    def _limiter(self, state: dict[str, Any] | None) -> AccountLimiter:
        limiter = AccountLimiter.from_json(state) if state else AccountLimiter()
        limiter.configure(self.settings.requests_per_minute / self._parts, time.time())
        return limiter

    def _new_day(self, now: float) -> DayBudget:
        """Return a day without spend, with the part of what the month's other objects have."""
        month = self._prefix + day_of(now)[: len("2026-11")]
        today = {self._day_key(day_of(now), number) for number in range(self._parts)}
        others = [item.key for item in self.objects.list(self._bucket, month) if item.key not in today]
        used = sum(DayBudget.from_json(state).used_micros for key in others if (state := self._store.read(key)))
        return DayBudget(day_of(now), math.ceil(used / self._parts))

    @property
    def _caps(self) -> Caps:
        """The budgets of one of the parts."""
        caps, parts = caps_of(self.settings), self._parts
        amounts = (caps.per_day, caps.per_month, caps.per_dag_and_day)
        return Caps(*(None if amount is None else amount / parts for amount in amounts))

    @property
    def _parts(self) -> int:
        return max(1, math.ceil(self.settings.requests_per_minute / _PER_OBJECT))

    def _limit_key(self, number: int) -> str:
        return f"{self._prefix}limit-{number + 1}of{self._parts}.json"

    def _day_key(self, date: str, number: int) -> str:
        return f"{self._prefix}{date}-{number + 1}of{self._parts}.json"

    @property
    def _bucket(self) -> str:
        return self.url.removeprefix("s3://").partition("/")[0]

    @property
    def _prefix(self) -> str:
        return f"{self.url.removeprefix('s3://').partition('/')[2]}{_FOLDER}{quote(self.conn_id, safe='')}/"

    @cached_property
    def _store(self) -> AccountStore:
        return AccountStore(self.objects, self._bucket)


@dataclass(frozen=True, slots=True)
class _Proofs:
    """Whether records of holds exist; each is read once."""

    objects: ObjectStore
    found: dict[str, bool] = field(default_factory=dict)

    def apply(self, budget: DayBudget, now: float) -> None:
        """Keep or release the holds of dead holders, some at a time."""
        for key, record in list(budget.unproven(now))[:_MAX_CHECKS]:
            if record not in self.found:
                self.found[record] = self._exists(record)
            (budget.keep if self.found[record] else budget.release)(key)

    def _exists(self, record: str) -> bool:
        bucket, _, key = record.removeprefix("s3://").partition("/")
        try:
            return self.objects.get(bucket, key, max_bytes=1) is not None
        except IdeogramStorageError:
            return True  # what can't be read may have been submitted


def settle(objects: ObjectStore, reservation: str | None, usd: float | None, *, failed: bool = False) -> bool:
    """
    Replace a reservation by the true cost, once, in the day that it was made on.

    :param reservation: What :meth:`Admission.admit` returned; None for a request without one.
    :param usd: What was charged, None if it is unknown.
    :param failed: Whether the request made no image.
    :return: Whether that was possible. If not, the amount stays reserved, and the ledger's record must stay, by which a
        later attempt settles it.
    """
    if reservation is None:
        return True
    try:
        _change_day(objects, reservation, lambda budget, key: budget.settle(key, usd, failed=failed))
    except IdeogramStorageError as error:
        log.warning("%s. The cost of a request stays reserved in the budget", error.reason)
        return False
    return True


def _change_day(objects: ObjectStore, reservation: str, apply: Any) -> None:
    url, _, reservation_key = reservation.partition("#")
    bucket, _, key = url.removeprefix("s3://").partition("/")

    def change(state: dict[str, Any] | None) -> tuple[Mapping[str, Any] | None, None]:
        budget = DayBudget.from_json(state) if state else None
        if budget is None or reservation_key not in budget.reservations:
            return None, None
        apply(budget, reservation_key)
        return budget.to_json(), None

    AccountStore(objects, bucket).update(key, change)


def _budget_reached(refusals: list[Refusal]) -> IdeogramBudgetReached:
    """Return the error of a budget that no part has room in."""
    last = refusals[-1]
    limit, spent, reserved = (
        sum(getattr(refusal, name) for refusal in refusals) for name in ("limit", "spent", "reserved")
    )
    ends = datetime.fromtimestamp(last.ends_at, UTC)
    return IdeogramBudgetReached(
        f"{last.cap} of the connection is reached: of {limit:.2f} USD, {spent:.2f} USD are spent and {reserved:.2f} "
        "USD are reserved for running requests",
        f"Nothing was charged by this attempt. The budget's window ends at {ends:%Y-%m-%d %H:%M} UTC; raise it in the "
        "connection, or set on_budget='wait'.",
        ends_at=last.ends_at,
    )
