"""
``ideogram plan``: what a DAG's runs would generate, and what that costs at most.

Invariant: 0 submits: the images of a task are read, and its connection, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from airflow.providers.common.compat.sdk import MappedOperator

from airflow_provider_ideogram.cli.rendering import planned_tasks, runs_of
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.jobs.preview import PlannedImages, Verdict
from airflow_provider_ideogram.operators.base import IdeogramBaseOperator
from airflow_provider_ideogram.operators.planning import PlannableTask, Planner, forecast

_TOTAL = "total"


def load_dag(dag_id: str) -> Any:
    """
    Return a DAG, read from its file.

    :raises IdeogramInvalidInput: If there is none.
    """
    from airflow.utils import cli

    names = ("get_bagged_dag", "get_dag")  # the second one before Airflow 3.1
    load: Any = next(filter(None, (getattr(cli, name, None) for name in names)))
    try:
        return load(None, dag_id)
    except Exception as error:  # the class depends on the version of Airflow
        raise IdeogramInvalidInput.of([f"DAG {dag_id!r} can't be read: {error}"]) from error


def plan(dag: Any, first: date, last: date, conf: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    Return a row for the images of each run and task with the same plan, and a row for the sum of each connection.

    :param last: The last day, which is included.
    :param conf: The configuration of the runs.
    :raises IdeogramError: If a connection or the account's objects can't be read.
    """
    planner, rows, sums = Planner(), list[dict[str, Any]](), dict[str, _OfConnection]()
    unassigned: list[PlannedImages] = []
    tasks = [task for task in dag.tasks if _is_own(task)]
    for run in runs_of(dag, first, last, conf):
        for task in tasks:
            images, operator = planner.plan(planned_tasks(task, run))
            rows += [_row(run.logical_date.isoformat(), task.task_id, each) for each in images]
            if operator is None:
                unassigned += images
            else:
                sums.setdefault(operator.ideogram_conn_id, _OfConnection(operator)).images.extend(images)
    for conn_id, sum_ in sums.items():
        total = forecast(sum_.operator, [*sum_.images, *unassigned])
        of_all = PlannedImages(Verdict.GENERATE, str(total), total.submits, total.usd)
        rows.append({**_row(_TOTAL, conn_id, of_all), "plan": _TOTAL})
    return rows


@dataclass(frozen=True, slots=True)
class _OfConnection:
    """The images of a connection, and a rendered operator that has it."""

    operator: PlannableTask
    images: list[PlannedImages] = field(default_factory=list)


def is_refused(row: Mapping[str, Any]) -> bool:
    """Return whether a row is of images that the run would refuse."""
    return bool(row["plan"] == Verdict.REFUSE)


def _row(run: str, task_id: str, images: PlannedImages) -> dict[str, Any]:
    usd = "unknown" if images.usd is None else f"{images.usd:.2f}"
    return {
        "run": run,
        "task_id": task_id,
        "plan": images.verdict.value,
        "images": images.images,
        "usd_at_most": usd,
        "detail": images.reason,
    }


def _is_own(task: Any) -> bool:
    kind = task.operator_class if isinstance(task, MappedOperator) else type(task)
    return isinstance(kind, type) and issubclass(kind, IdeogramBaseOperator)
