"""
What the images of a DAG, a task or a run cost, by the results that Airflow keeps.

Invariant: only what a task paid counts, so that a reused image costs nothing. At most :data:`MAX_RESULTS` results are
read; a sum without the older ones says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.models.xcom import XComModel
from sqlalchemy import select

from airflow_provider_ideogram.ui.rendering import is_number, money
from airflow_provider_ideogram.ui.runs import MARK, plain_value

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

MAX_RESULTS = 5000
_RESULT, _PROGRESS = "return_value", "progress"


@dataclass(slots=True)
class Cost:
    """
    A sum in US dollars.

    :param is_estimate: Whether a list price is in it.
    :param is_complete: Whether all results are in it.
    """

    usd: float = 0.0
    is_estimate: bool = False
    is_complete: bool = True

    def add(self, result: Any) -> None:
        """Add the cost of a task's result or of a dataset's progress."""
        if isinstance(result, Mapping) and is_number(result.get("cost_usd")) and result["cost_usd"] >= 0:
            self.usd += result["cost_usd"]
            self.is_estimate |= result.get("cost_is_estimate") is True

    def __str__(self) -> str:
        """Return it as it is shown."""
        about = "about " if self.is_estimate else ""
        return f"{'' if self.is_complete else 'more than '}{about}{money(self.usd)}"


@dataclass(slots=True)
class Costs:
    """
    The costs of a DAG or of one of its tasks.

    :param total: Of all runs.
    :param runs: Of each run, by its id.
    """

    total: Cost = field(default_factory=Cost)
    runs: dict[str, Cost] = field(default_factory=lambda: defaultdict(Cost))


def costs(session: Session, dag_id: str, task_id: str | None, run_id: str | None = None) -> Costs:
    """Return the costs of a DAG or a task, in all runs or in one; the newest results count first."""
    conditions = [XComModel.dag_id == dag_id]
    conditions += [XComModel.task_id == task_id] if task_id is not None else []
    conditions += [XComModel.run_id == run_id] if run_id is not None else []
    marked = select(XComModel.task_id).where(*conditions, XComModel.key == MARK).distinct()
    rows = session.execute(
        select(XComModel.run_id, XComModel.task_id, XComModel.map_index, XComModel.key, XComModel.value)
        .where(*conditions, XComModel.task_id.in_(marked), XComModel.key.in_((_RESULT, _PROGRESS)))
        .order_by(XComModel.timestamp.desc())
        .limit(MAX_RESULTS + 1)
    ).all()
    found: dict[tuple[str, str, int], dict[str, Any]] = defaultdict(dict)
    for run, task, map_index, key, value in rows[:MAX_RESULTS]:
        found[run, task, map_index][key] = value
    sums = Costs()
    sums.total.is_complete = len(rows) <= MAX_RESULTS
    for (run, _, _), values in found.items():
        result = plain_value(values.get(_RESULT, values.get(_PROGRESS)))
        sums.total.add(result)
        sums.runs[run].add(result)
    return sums
