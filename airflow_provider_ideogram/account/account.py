"""
What the tasks of a connection share: slots of the rate limit, and amounts of the budgets.

Invariant: nothing is submitted without both where the connection names them; what can't be read is an error. A budget
that the store can't keep is an error, too.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_ideogram.account.budget import Caps, Spender
from airflow_provider_ideogram.account.days import Days
from airflow_provider_ideogram.account.limiter import AccountLimiter
from airflow_provider_ideogram.account.store import ADMISSION_PATIENCE, AccountStore, no_conditions
from airflow_provider_ideogram.account.turns import Ticket, Turn, flow_of
from airflow_provider_ideogram.exceptions import IdeogramBudgetReached, IdeogramStorageError
from airflow_provider_ideogram.storage.probe import StoreProbe

if TYPE_CHECKING:
    from airflow_provider_ideogram.hooks.connection import ConnectionSettings
    from airflow_provider_ideogram.storage.objects import ObjectStore

#: Submits per minute that one object is changed for; a higher limit is divided.
_PER_OBJECT = 100
#: The folder of the accounts, below ``account_url`` or the ledger's prefix.
FOLDER = "_account/"

log = logging.getLogger(__name__)


class TurnAhead(Exception):
    """The task has to wait for its turn of the rate limit; ``turn`` is its place."""

    def __init__(self, turn: Turn) -> None:
        super().__init__("The account's rate limit has no free slot")
        self.turn = turn


@dataclass(frozen=True, slots=True)
class SubmittingTask:
    """The task that submits."""

    dag_id: str
    run_id: str
    task_id: str


@dataclass(frozen=True, slots=True)
class Slot:
    """
    A slot of the rate limit.

    :param key: The key of the object that it is from.
    :param at: When to submit, in seconds since the epoch.
    """

    key: str
    at: float


def is_shared(settings: ConnectionSettings) -> bool:
    """Return whether the connection's tasks share a limit, a budget or a record of the spend."""
    return bool(settings.requests_per_minute or settings.account_url or settings.has_budget)


def caps_of(settings: ConnectionSettings) -> Caps:
    """Return the budgets of a connection."""
    return Caps(settings.max_cost_usd_per_day, settings.max_cost_usd_per_month, settings.max_cost_usd_per_dag_and_day)


def place_of(url: str, conn_id: str) -> tuple[str, str]:
    """
    Return the bucket of an account's objects and the beginning of their keys.

    :param url: ``s3://bucket/prefix/``.
    """
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return bucket, f"{prefix}{FOLDER}{quote(conn_id, safe='')}/"


def limit_keys(prefix: str, settings: ConnectionSettings) -> list[str]:
    """Return the keys of the objects that the rate limit is divided among."""
    parts = max(1, math.ceil(settings.requests_per_minute / _PER_OBJECT))
    return [f"{prefix}limit-{number + 1}of{parts}.json" for number in range(parts)]


def open_account(
    objects: ObjectStore, ledger_url: str, conn_id: str, settings: ConnectionSettings, task: SubmittingTask
) -> Account | None:
    """
    Return the account of a connection; None if its tasks share nothing, or the store can't keep what they share.

    :param ledger_url: The address below which the account's objects are unless the connection names another one.
    :raises IdeogramInvalidInput: If the connection has a budget and the store no conditional writes.
    :raises IdeogramStorageError: If the store can't be used.
    """
    if not is_shared(settings):
        return None
    account = Account(objects, settings.account_url or ledger_url, conn_id, settings, task)
    if StoreProbe(objects, account.bucket, account.prefix).has_conditional_writes():
        return account
    if settings.has_budget:
        raise no_conditions(account.bucket)
    _warn_of_missing_conditions(account.bucket)
    return None


@cache
def _warn_of_missing_conditions(bucket: str) -> None:
    log.warning("The store of s3://%s has no conditional writes: each task keeps the rate limit by itself", bucket)


@dataclass(frozen=True)
class Account:
    """
    The rate limit and the budgets of a connection, for one task.

    :param objects: The S3 layer.
    :param url: Where the account's objects are: ``s3://bucket/prefix/``.
    :param conn_id: The id of the connection, which names the account.
    :param settings: The settings of the connection.
    :param task: The task that submits.
    """

    objects: ObjectStore
    url: str
    conn_id: str
    settings: ConnectionSettings
    task: SubmittingTask
    _refusals: list[IdeogramBudgetReached] = field(default_factory=list, init=False)

    def take_slots(self, submits: int, turn: Turn | None = None) -> tuple[list[Slot], Turn | None]:
        """
        Take slots, and a place among the waiting tasks if fewer are free than wanted.

        :param submits: The slots that are wanted.
        :param turn: The place that the task waited at.
        :return: The slots, a few seconds ahead at most, and the place; None if all were free.
        """
        keys = random.sample(self._limit_keys, self._parts)
        if turn is not None and turn.key in keys:  # else the limit was changed meanwhile
            keys = [turn.key, *(key for key in keys if key != turn.key)]
        if submits == 1:  # a second one keeps the objects evenly used where few tasks wait
            keys = keys[: 1 if turn is not None and turn.key == keys[0] else 2]
        slots: list[Slot] = []
        place: Turn | None = None
        for key in keys:
            ticket = turn.ticket if turn and turn.key == key else None
            queues = key == keys[-1] and place is None
            times, waits = self._ask(key, submits - len(slots), ticket, queues=queues)
            slots += [Slot(key, at) for at in times]
            if len(slots) == submits:
                return slots, None
            place = Turn(self.bucket, key, waits) if waits else place
        return slots, place

    def correct_slots(self, used: Iterable[tuple[Slot, float | None]]) -> None:
        """
        Record when the submits of slots were sent; a failure to do so is only logged.

        :param used: The slots, each with the time of its submit; None releases a slot without a submit.
        """
        by_key: dict[str, list[tuple[float, float | None]]] = {}
        for slot, sent_at in used:
            by_key.setdefault(slot.key, []).append((slot.at, sent_at))
        for key, times in by_key.items():
            self._change_limit(key, lambda limiter, times=times: limiter.correct(times))

    def limited(self, delay: float) -> None:
        """Record that a submit was answered 429; ``delay`` is in seconds, and a failure is only logged."""
        for key in self._limit_keys:
            self._change_limit(key, lambda limiter: limiter.limited(time.time(), delay))

    def reserve(self, model: str, record: str | None) -> str:
        """
        Reserve the amount of an image, and return the reservation's address.

        :param record: The address of the ledger's record that is written next, None without a ledger.
        :raises IdeogramBudgetReached: If a budget leaves no room; the same again for the rest of the task's slice.
        :raises IdeogramStorageError: If the account's objects can't be used.
        """
        if self._refusals:
            raise self._refusals[0]
        days = Days(self.objects, self.bucket, self.prefix, caps_of(self.settings), self._parts)
        try:
            return days.reserve(Spender(self.task.dag_id, self.task.task_id, model), record)
        except IdeogramBudgetReached as reached:
            self._refusals.append(reached)
            raise

    @property
    def bucket(self) -> str:
        """The bucket of the account's objects."""
        return place_of(self.url, self.conn_id)[0]

    @property
    def prefix(self) -> str:
        """The beginning of their keys."""
        return place_of(self.url, self.conn_id)[1]

    def _ask(self, key: str, submits: int, ticket: Ticket | None, *, queues: bool) -> tuple[list[float], Ticket | None]:
        """
        Take slots of one object.

        :param queues: Whether to wait for those that are not free.
        """
        flow = flow_of(self.task.dag_id, self.task.run_id)

        def change(
            state: AccountLimiter | None,
        ) -> tuple[Mapping[str, Any] | None, tuple[list[float], Ticket | None]]:
            limiter, now = self._configured(state), time.time()
            answer = limiter.ask(flow, now, submits=submits, ticket=ticket)
            if isinstance(answer, Ticket):
                is_new = answer != ticket
                if is_new and not queues:
                    return None, ([], None)
                return limiter.to_json() if is_new else None, ([], answer)
            left = submits - len(answer)
            waits = limiter.queue(flow, now, submits=left) if left and queues else None
            return limiter.to_json(), (answer, waits)

        return self._store.update(key, AccountLimiter.from_json, change, ADMISSION_PATIENCE)

    def _change_limit(self, key: str, apply: Any) -> None:
        def change(state: AccountLimiter | None) -> tuple[Mapping[str, Any], None]:
            limiter = self._configured(state)
            apply(limiter)
            return limiter.to_json(), None

        try:
            self._store.update(key, AccountLimiter.from_json, change, ADMISSION_PATIENCE)
        except IdeogramStorageError as error:
            log.warning("%s. Other tasks do not learn of this", error.reason)

    def _configured(self, state: AccountLimiter | None) -> AccountLimiter:
        limiter = state or AccountLimiter()
        limiter.configure(self.settings.requests_per_minute / self._parts, time.time())
        return limiter

    @property
    def _parts(self) -> int:
        return len(self._limit_keys)

    @property
    def _limit_keys(self) -> list[str]:
        return limit_keys(self.prefix, self.settings)

    @cached_property
    def _store(self) -> AccountStore:
        return AccountStore(self.objects, self.bucket)
