"""
What the images of a DAG, a task or a run cost, and how many they are, by the results that Airflow keeps.

Invariant: only what a task paid counts, so that a reused image costs nothing. At most :data:`MAX_RESULTS` results are
read; a sum without the older ones says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.models.xcom import XComModel
from sqlalchemy import select

from airflow_provider_ideogram.ui.places import identity
from airflow_provider_ideogram.ui.rendering import is_number, money
from airflow_provider_ideogram.ui.runs import MARK, plain_value

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.orm import Session
    from sqlalchemy.sql.elements import ColumnElement

MAX_RESULTS = 5000
#: The XComs with a cost: the result of a task, and until then the progress of a dataset.
RESULTS = _RESULT, _PROGRESS = "return_value", "progress"


@dataclass(slots=True)
class Cost:
    """
    A sum in US dollars.

    :param images: How many images the results have, reused ones included.
    :param is_estimate: Whether a list price is in it.
    :param is_complete: Whether all results are in it.
    """

    usd: float = 0.0
    images: int = 0
    is_estimate: bool = False
    is_complete: bool = True

    def add(self, result: Any) -> None:
        """Add a task's result or a dataset's progress."""
        if not isinstance(result, Mapping):
            return
        if isinstance(result.get("key"), str) and isinstance(result.get("bucket"), str):
            self.images += 1
        else:
            self.images += sum(_count(result.get(name)) for name in ("generated", "reused"))
        if is_number(result.get("cost_usd")) and result["cost_usd"] >= 0:
            self.usd += result["cost_usd"]
            self.is_estimate |= result.get("cost_is_estimate") is True

    def __str__(self) -> str:
        """Return it as it is shown."""
        about = "about " if self.is_estimate else ""
        return f"{'' if self.is_complete else 'at least '}{about}{money(self.usd)}"


def _count(value: Any) -> int:
    return int(value) if is_number(value) and value > 0 else 0


@dataclass(slots=True)
class Costs:
    """
    The costs of a DAG or of one of its tasks.

    :param total: Of all runs.
    :param runs: Of each run, by its id.
    :param tasks: Of each task, by its id.
    """

    total: Cost = field(default_factory=Cost)
    runs: dict[str, Cost] = field(default_factory=lambda: defaultdict(Cost))
    tasks: dict[str, Cost] = field(default_factory=lambda: defaultdict(Cost))


def costs(
    session: Session, dag_id: str, task_id: str | None, run_id: str | None = None, limit: int | None = None
) -> Costs:
    """
    Return the costs of a DAG or a task, in all runs or in one.

    :param limit: How many results are read, the newest first; :data:`MAX_RESULTS` without one.
    """
    most = MAX_RESULTS if limit is None else limit
    conditions = within(dag_id, task_id, run_id)
    rows = session.execute(
        select(XComModel.key, XComModel.value, XComModel.run_id, XComModel.task_id, *identity(XComModel))
        .where(*conditions, XComModel.task_id.in_(marked_tasks(conditions)), XComModel.key.in_(RESULTS))
        .order_by(XComModel.timestamp.desc())
        .limit(most + 1)
    ).all()
    found: dict[tuple[Any, ...], dict[str, Any]] = defaultdict(dict)
    for key, value, *instance in rows[:most]:
        found[tuple(instance)][key] = value
    sums = Costs()
    for (run, task, *_), values in found.items():
        result = plain_value(values.get(_RESULT, values.get(_PROGRESS)))
        for cost in (sums.total, sums.runs[run], sums.tasks[task]):
            cost.add(result)
    for cost in (sums.total, *sums.runs.values(), *sums.tasks.values()):
        cost.is_complete = len(rows) <= most
    return sums


def within(dag_id: str, task_id: str | None, run_id: str | None = None) -> list[ColumnElement[bool]]:
    """Return the conditions for the XComs of a DAG, of one of its tasks, or of one of its runs."""
    places = ((XComModel.dag_id, dag_id), (XComModel.task_id, task_id), (XComModel.run_id, run_id))
    return [column == value for column, value in places if value is not None]


def marked_tasks(conditions: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """Return the query of this provider's tasks."""
    return select(XComModel.task_id).where(*conditions, XComModel.key == MARK).distinct()
