"""
The account as it is now: its rate, its queue, and how far its budgets are used.

Invariant: reads only. An object that can't be read or understood is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_ideogram.account.account import limit_keys, place_of
from airflow_provider_ideogram.account.budget import window_ends
from airflow_provider_ideogram.account.limiter import AccountLimiter
from airflow_provider_ideogram.account.spend import days_of
from airflow_provider_ideogram.account.store import AccountStore

if TYPE_CHECKING:
    from airflow_provider_ideogram.account.budget import DayBudget
    from airflow_provider_ideogram.hooks.connection import ConnectionSettings
    from airflow_provider_ideogram.storage.objects import ObjectStore


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """
    How far a budget is used.

    :param cap: The setting of the connection.
    :param dag_id: The DAG, empty for a budget of the account.
    :param limit: Its value in USD.
    :param spent: What was charged in its window, in USD.
    :param reserved: What open requests may cost, in USD.
    :param ends_at: When its window ends, in seconds since the epoch.
    """

    cap: str
    dag_id: str
    limit: float
    spent: float
    reserved: float
    ends_at: float

    @property
    def name(self) -> str:
        """The cap, with its DAG."""
        return f"{self.cap} of {self.dag_id}" if self.dag_id else self.cap

    @property
    def left(self) -> float:
        """What can still be spent."""
        return max(0.0, self.limit - self.spent - self.reserved)


@dataclass(frozen=True, slots=True)
class Rate:
    """
    The rate limit of an account at a moment.

    :param per_minute: The submits a minute in force, None if no limit is known.
    :param waiting: The submits of the tasks that wait for a slot.
    :param blocked_until: Until when nothing is submitted after a 429, in seconds since the epoch; 0 if never.
    """

    per_minute: float | None
    waiting: int
    blocked_until: float

    def seconds_for(self, submits: int) -> float | None:
        """Return how long submits take at the present rate, after those that wait; None if no limit is known."""
        return None if not self.per_minute else (submits + self.waiting) * 60 / self.per_minute


def read_rate(objects: ObjectStore, url: str, conn_id: str, settings: ConnectionSettings, now: float) -> Rate:
    """
    Read the rate limit of a connection.

    :param url: Where the account's objects are, ``s3://bucket/prefix/``.
    :param now: Seconds since the epoch.
    :raises IdeogramStorageError: If an object can't be read or understood.
    """
    bucket, prefix = place_of(url, conn_id)
    store = AccountStore(objects, bucket)
    keys = limit_keys(prefix, settings)
    # A part that no task has used yet has its share of the limit, too.
    limiters = [store.read(key, AccountLimiter.from_json) or AccountLimiter() for key in keys]
    for limiter in limiters:
        limiter.configure(settings.requests_per_minute / len(keys), now)
        limiter.advance(now)
    return Rate(
        sum(limiter.rate.rate or 0.0 for limiter in limiters) or None,
        sum(limiter.turns.waiting for limiter in limiters),
        max(limiter.rate.blocked_until for limiter in limiters),
    )


def read_budgets(
    objects: ObjectStore, url: str, conn_id: str, settings: ConnectionSettings, now: float
) -> list[BudgetUse]:
    """Read how far the budgets of a connection are used; parameters and errors are those of :func:`read_rate`."""
    if not settings.has_budget:
        return []
    today = datetime.fromtimestamp(now, UTC).date()
    return list(budget_use(days_of(objects, url, conn_id).read(today.replace(day=1), today), settings, now))


def budget_use(days_read: Iterable[DayBudget], settings: ConnectionSettings, now: float) -> Iterator[BudgetUse]:
    """
    Yield how far each budget of a connection is used.

    :param days_read: The days of the month, and perhaps earlier ones.
    """
    today = datetime.fromtimestamp(now, UTC).date()
    month = [day for day in days_read if day.date >= today.replace(day=1).isoformat()]
    days = [day for day in month if day.date == today.isoformat()]
    day_end, month_end = window_ends(today.isoformat())
    if settings.max_cost_usd_per_day is not None:
        yield _use("max_cost_usd_per_day", settings.max_cost_usd_per_day, days, day_end)
    if settings.max_cost_usd_per_month is not None:
        yield _use("max_cost_usd_per_month", settings.max_cost_usd_per_month, month, month_end)
    if settings.max_cost_usd_per_dag_and_day is not None:
        for dag_id in sorted({spender.dag_id for day in days for spender in day.spenders}):
            yield _use("max_cost_usd_per_dag_and_day", settings.max_cost_usd_per_dag_and_day, days, day_end, dag_id)


def _use(cap: str, limit: float, days: Sequence[DayBudget], ends_at: float, dag_id: str = "") -> BudgetUse:
    used = [day.used_usd(dag_id or None) for day in days]
    return BudgetUse(cap, dag_id, limit, sum(spent for spent, _ in used), sum(open_ for _, open_ in used), ends_at)
