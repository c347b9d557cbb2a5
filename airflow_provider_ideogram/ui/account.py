"""
The page of an account: credits, spend, budgets, rate and queue, and what waits for a person.

Invariant: reads only. The API key is in the call for the credits alone. Names of DAGs are shown only to users who may
read them, and what is from XComs only to users who may read those. A part that can't be read says so, and the others
are shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from airflow.models.connection import Connection
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
from sqlalchemy import Text, cast, or_, select

from airflow_provider_ideogram.account.account import place_of
from airflow_provider_ideogram.account.budget import DayBudget
from airflow_provider_ideogram.account.overview import BudgetUse, Rate, budget_use, read_rate
from airflow_provider_ideogram.account.spend import Spend, days_of, spend_of
from airflow_provider_ideogram.account.store import AccountStore
from airflow_provider_ideogram.api import calls
from airflow_provider_ideogram.exceptions import IdeogramError, IdeogramStorageError
from airflow_provider_ideogram.hooks.client import SegmindClient
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
from airflow_provider_ideogram.ui.chart import Chart, DayCost, chart_of
from airflow_provider_ideogram.ui.objects import why_not_read
from airflow_provider_ideogram.ui.places import Place, columns, of_same_instance, with_regions
from airflow_provider_ideogram.ui.runs import plain_value
from airflow_provider_ideogram.ui.work import LimitReached

if TYPE_CHECKING:
    from sqlalchemy.orm import Session
    from sqlalchemy.sql.elements import ColumnElement

    from airflow_provider_ideogram.storage.objects import ObjectStore
    from airflow_provider_ideogram.ui.objects import Reader

T = TypeVar("T")

DAYS = 30
#: Seconds for which the credits are kept, so that reloads of the page do not call the vendor each time.
_CREDITS_SECONDS = 60.0
#: Seconds to wait for the vendor, a part of a page's.
_VENDOR_SECONDS = 3.0
#: Days whose objects are kept as long as they are unchanged.
_MAX_KEPT = 500
#: Failures that are looked through for unknown submits, and tasks that are shown.
_MAX_IN_DOUBT, MAX_SHOWN = 1000, 50
#: The reasons of a failure that only a person resolves: the submit may have been accepted.
_UNKNOWN_SUBMITS = ("unknown_submit", "submit_failed")

_credits: dict[str, tuple[float, ConnectionSettings, float]] = {}
_days: dict[tuple[str, str, str], DayBudget] = {}


@dataclass(frozen=True, slots=True)
class WaitingTask:
    """A failed task whose submit may have been accepted."""

    dag_id: str
    run_id: str
    task_id: str
    place: Place


@dataclass(frozen=True, slots=True)
class Waiting:
    """
    The failed tasks whose submit may have been accepted, of all connections: a failure does not name its own.

    :param limit: How many failures were looked through, the newest ones; None for all.
    """

    tasks: Sequence[WaitingTask] = ()
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class LostImage:
    """A request that may have been charged and whose image can no longer be had; DAG and task if the user may read."""

    day: str
    request_id: str
    task: str


@dataclass(slots=True)
class AccountPage:
    """
    What the page shows; what can't be read, or is not set, is None.

    :param credits: The balance in USD.
    :param days: The spend of each of the last days, the oldest first.
    :param open_before: The requests of earlier days that have not ended.
    :param problems: What can't be read, and why.
    """

    conn_id: str
    credits: float | None = None
    rate: Rate | None = None
    days: Sequence[tuple[str, Spend]] = ()
    chart: Chart | None = None
    budgets: Sequence[BudgetUse] = ()
    open_before: Spend = field(default_factory=Spend)
    lost: Sequence[LostImage] = ()
    waiting: Waiting = Waiting()
    problems: list[str] = field(default_factory=list)

    @property
    def total(self) -> Spend:
        """The spend of all days."""
        return sum((spend for _, spend in self.days), Spend())


def connections(session: Session) -> list[str]:
    """Return the ids of the connections of type ideogram in Airflow's database."""
    return list(session.scalars(select(Connection.conn_id).where(Connection.conn_type == IdeogramHook.conn_type)))


def read_account(reader: Reader, conn_id: str, permitted: Collection[str], now: float) -> AccountPage | None:
    """
    Read what the page shows of a connection, None if there is none of type ideogram.

    :param permitted: The DAGs that the user may read.
    """
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        return None
    if connection.conn_type != IdeogramHook.conn_type:
        return None
    page = AccountPage(conn_id)
    settings = _or_problem(page, "The connection", lambda: ConnectionSettings.of(connection, connection.extra_dejson))
    if settings is not None:
        _add_settings(page, reader, settings, permitted, now)
    return page


def _add_settings(
    page: AccountPage, reader: Reader, settings: ConnectionSettings, permitted: Collection[str], now: float
) -> None:
    conn_id = page.conn_id
    page.credits = _or_problem(page, "The credits", lambda: _read_credits(conn_id, settings))
    url = settings.account_url
    if url is None:
        page.problems.append(
            "The connection names no account_url, so this page does not know where the account's objects are."
        )
        return
    page.rate = _or_problem(page, "The rate limit", lambda: read_rate(reader.objects, url, conn_id, settings, now))
    days = _or_problem(page, "The spend", lambda: list(_read_days(reader.objects, url, conn_id, now)))
    if days is not None:
        _add_days(page, days, settings, permitted, now)


def dags_in_doubt(session: Session, permitted: Collection[str], now: float) -> set[str]:
    """Return those DAGs that may have tasks for :func:`waiting_tasks`."""
    query = select(XComModel.dag_id).where(*_may_be_in_doubt(now), XComModel.dag_id.in_(permitted))
    return set(session.scalars(query.distinct()))


def waiting_tasks(session: Session, dag_ids: Collection[str], now: float) -> Waiting:
    """
    Return the failed tasks of the last days whose submit may have been accepted, the newest first.

    :param dag_ids: The DAGs whose XComs the user may read.
    """
    found = select(XComModel.value, XComModel.dag_id, XComModel.run_id, *columns())
    rows = session.execute(
        with_regions(found.join(TaskInstance, of_same_instance()))
        .where(*_may_be_in_doubt(now), TaskInstance.state == "failed", XComModel.dag_id.in_(dag_ids))
        .order_by(XComModel.timestamp.desc())
        .limit(_MAX_IN_DOUBT + 1)
    ).all()
    tasks = [
        WaitingTask(dag_id, run_id, row[0], Place.of_row(*row))
        for value, dag_id, run_id, *row in rows[:_MAX_IN_DOUBT]
        if _is_unknown(plain_value(value))
    ]
    return Waiting(tasks, _MAX_IN_DOUBT if len(rows) > _MAX_IN_DOUBT else None)


def _may_be_in_doubt(now: float) -> tuple[ColumnElement[bool], ...]:
    """
    Return the conditions for the XComs of failures that may have one of the reasons.

    The values are JSON, or JSON within a JSON string, so that the database only looks for the reasons' words in them.
    """
    since = datetime.fromtimestamp(now, UTC) - timedelta(days=DAYS)
    text = cast(XComModel.value, Text)
    has_reason = or_(*(text.contains(reason, autoescape=True) for reason in _UNKNOWN_SUBMITS))
    return XComModel.key == "failure", XComModel.timestamp >= since, has_reason


def _is_unknown(failure: object) -> bool:
    return isinstance(failure, dict) and failure.get("reason") in _UNKNOWN_SUBMITS


def _or_problem(page: AccountPage, what: str, read: Callable[[], T]) -> T | None:
    """Return what is read; None if that fails, and say so on the page."""
    try:
        return read()
    except (IdeogramStorageError, LimitReached) as error:
        page.problems.append(f"{what} can't be read: {why_not_read(error)}.")
    except IdeogramError as error:  # of the vendor, whose texts are free of the key
        page.problems.append(f"{what} can't be read: {error.reason}.")
    return None


def _read_credits(conn_id: str, settings: ConnectionSettings) -> float:
    until, of_settings, usd = _credits.get(conn_id, (0.0, None, 0.0))
    if until < time.monotonic() or of_settings != settings:
        with closing(SegmindClient(replace(settings, timeout=_VENDOR_SECONDS))) as client:
            usd = client.run(calls.get_credits(), 1).total
        _credits[conn_id] = time.monotonic() + _CREDITS_SECONDS, settings, usd
    return usd


def _read_days(objects: ObjectStore, url: str, conn_id: str, now: float) -> Iterator[DayBudget]:
    """Yield the days of the page and of the month; unchanged objects are read once."""
    today = datetime.fromtimestamp(now, UTC).date()
    first = min(_first_day(today), today.replace(day=1))
    store = AccountStore(objects, place_of(url, conn_id)[0])
    for item in days_of(objects, url, conn_id).listed(first, today):
        key = url, item.key, item.etag
        day = _days.get(key) or store.read(item.key, DayBudget.from_json)
        if day is not None:
            _days[key] = day
            yield day
    for old in list(_days)[:-_MAX_KEPT]:
        _days.pop(old, None)


def _add_days(
    page: AccountPage, days: Sequence[DayBudget], settings: ConnectionSettings, permitted: Collection[str], now: float
) -> None:
    today = datetime.fromtimestamp(now, UTC).date()
    sums = {(_first_day(today) + timedelta(days=number)).isoformat(): Spend() for number in range(DAYS)}
    lost = []
    for day in days:
        for _, spend in spend_of(day):
            if day.date in sums:
                sums[day.date] += spend
            if day.date < (today - timedelta(days=1)).isoformat():
                page.open_before += Spend(open_requests=spend.open_requests, open_micros=spend.open_micros)
        for request_id, spender in day.lost.items():
            task = f"{spender.dag_id}.{spender.task_id}" if spender.dag_id in permitted else "another DAG"
            lost.append(LostImage(day.date, request_id, task))
    page.days, page.lost = list(sums.items()), sorted(lost, key=lambda image: image.day, reverse=True)
    page.chart = chart_of([_cost(day, spend) for day, spend in page.days])
    uses = budget_use(days, settings, now)
    page.budgets = [use for use in uses if not use.dag_id or use.dag_id in permitted]


def _cost(day: str, spend: Spend) -> DayCost:
    row = spend.to_row()
    return DayCost(day, row["spent_usd"], row["reserved_usd"])


def _first_day(today: date) -> date:
    return today - timedelta(days=DAYS - 1)
