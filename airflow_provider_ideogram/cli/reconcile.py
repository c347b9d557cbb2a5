"""
``ideogram reconcile``: the vendor's history against the images, the ledger and the spend of a deployment.

Invariant: each request of the history is in exactly one state, and the states' costs sum up to the history's. The
history is read a page at a time.
"""

from __future__ import annotations

import time as clock
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_ideogram.account.spend import days_of, read_spend
from airflow_provider_ideogram.api.history import CLOCK_SKEW
from airflow_provider_ideogram.api.parsing import COMPLETED, FAILED
from airflow_provider_ideogram.api.polling import FILE_LIFETIME
from airflow_provider_ideogram.cli.evidence import Claim, Evidence, requests_of_tasks
from airflow_provider_ideogram.jobs.submission import STORING_SECONDS
from airflow_provider_ideogram.storage.image_record import iso_utc
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.history import HistoryRow
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.storage.objects import ObjectStore

_USD = 1_000_000
#: Requests that are remembered, so that none counts twice.
_REMEMBERED = 1000


class State(StrEnum):
    """The state of a request; ``FOREIGN`` ones were not made by this deployment, as far as it knows."""

    STORED = "stored"
    RUNNING = "running"
    RECOVERABLE = "recoverable"
    LOST = "lost"
    FAILED = "failed"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    A request of the history.

    :param place: The address of its image, or the one where it goes.
    """

    row: HistoryRow
    state: State
    claim: Claim | None = None
    place: str | None = None

    def to_row(self) -> dict[str, Any]:
        """Return it as the command prints it."""
        return {
            "request_id": self.row.request_id,
            "created_at": iso_utc(self.row.created_at),
            "model": self.row.model,
            "state": self.state.value,
            "cost_usd": self.row.cost_usd,
            "place": self.place or "",
        }


@dataclass(frozen=True, slots=True)
class Scope:
    """
    What is compared.

    :param first: The first day in UTC.
    :param last: The last one, which is included.
    :param places: The prefixes of the images.
    :param ledger_prefix: The prefix of the ledger in their buckets.
    :param account_url: Where the account's objects are.
    :param conn_id: The connection of the API.
    """

    first: date
    last: date
    places: Collection[Target]
    ledger_prefix: str
    account_url: str
    conn_id: str

    @property
    def seconds(self) -> tuple[float, float]:
        """The begin and the end in seconds since the epoch."""
        begin, end = (datetime.combine(day, time.min, UTC) for day in (self.first, self.last + timedelta(days=1)))
        return begin.timestamp(), end.timestamp()


@dataclass(slots=True)
class Sums:
    """
    Requests and costs by state.

    :param unreadable: Rows of the history that can't be read.
    :param problems: What else can't be read, so that requests may be in a wrong state.
    """

    requests: Counter[State] = field(default_factory=Counter)
    micros: Counter[State] = field(default_factory=Counter)
    unreadable: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Count a request."""
        self.requests[finding.state] += 1
        self.micros[finding.state] += round((finding.row.cost_usd or 0.0) * _USD)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a row for each state, and their sum."""
        rows = [_row(state.value, self.requests[state], self.micros[state]) for state in State]
        unreadable = [_row("unreadable", self.unreadable, 0)] if self.unreadable else []
        return [*rows, *unreadable, _row("total", self.requests.total(), self.micros.total())]


def reconcile(hook: IdeogramHook, objects: ObjectStore, scope: Scope, sums: Sums) -> Iterator[Finding]:
    """
    Yield each request of the history with its state, the oldest first, and add it to the sums.

    :raises IdeogramError: If the history, or anything of the deployment, can't be read.
    """
    begin, end = scope.seconds
    began = clock.time()  # what was submitted or stored since, the evidence need not have
    with closing(Evidence(objects, scope.ledger_prefix, begin - CLOCK_SKEW)) as evidence:
        for place in scope.places:
            evidence.add_place(place)
        for day in days_of(objects, scope.account_url, scope.conn_id).read(scope.first, scope.last):
            evidence.add_requests(day.lost)
        _add_tasks(evidence, begin, sums)
        for row in _requests(hook, scope, sums):
            if begin <= row.created_at < end:
                finding = _find(row, evidence, began)
                sums.add(finding)
                yield finding


def spend_row(objects: ObjectStore, scope: Scope) -> dict[str, Any]:
    """Return what the account has recorded as spent, in the form of :meth:`Sums.to_rows`."""
    spend = [each for _, _, each in read_spend(objects, scope.account_url, scope.conn_id, scope.first, scope.last)]
    return _row("recorded", sum(each.images + each.unknown for each in spend), sum(each.micros for each in spend))


def _row(state: str, requests: int, micros: int) -> dict[str, Any]:
    return {"state": state, "requests": requests, "cost_usd": micros / _USD}


def _requests(hook: IdeogramHook, scope: Scope, sums: Sums) -> Iterator[HistoryRow]:
    """Yield each request once: one with several outputs has a row for each, with the cost of the whole."""
    seen: dict[str, None] = {}
    for page in hook.read_history(scope.first, scope.last):
        sums.unreadable += page.size - len(page.rows)
        for row in page.rows:
            if row.request_id not in seen:
                yield row
            seen[row.request_id] = None
        # The rows of a request are created at the same time, and beside each other.
        seen = dict.fromkeys(list(seen)[-_REMEMBERED:])


def _add_tasks(evidence: Evidence, since: float, sums: Sums) -> None:
    try:
        evidence.add_tasks(requests_of_tasks(since))
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error  # without the query
        reason = " ".join(str(cause).split())
        sums.problems.append(f"Airflow's database can't be read here, so the results of tasks are left out: {reason}")


def _find(row: HistoryRow, evidence: Evidence, began: float) -> Finding:
    """Return the state of a request by the evidence whose reading began at a time."""
    if (image := evidence.image_of(row.request_id)) is not None:
        return Finding(row, State.STORED, place=image)
    if row.state == FAILED:
        return Finding(row, State.FAILED)
    claim, age = evidence.claim_of(row), began - row.created_at
    if claim is None:
        # Of what was submitted since, the ledger need not have had a record yet.
        return Finding(row, State.FOREIGN if age > CLOCK_SKEW else State.RUNNING)
    place = claim.target.uri if claim.target else None
    if row.state != COMPLETED or claim.is_ended or age < STORING_SECONDS:
        return Finding(row, State.RUNNING, claim, place)
    is_there = row.image_url is not None and clock.time() - row.created_at < FILE_LIFETIME
    return Finding(row, State.RECOVERABLE if is_there else State.LOST, claim, place)
