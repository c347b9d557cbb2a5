"""
Where an address leads on whose run, task or image is not there: to the images that still are.

Invariant: only the DAG that the address names is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow.models.xcom import XComModel
from sqlalchemy import select

from airflow_provider_ideogram.ui.costs import within
from airflow_provider_ideogram.ui.runs import MARK, find_run

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Leftovers:
    """
    What there is.

    :param run: Whether the run exists.
    :param task: Whether another run has images of the task.
    :param dag: Whether another run has images of the DAG.
    """

    run: bool
    task: bool
    dag: bool


def leftovers(session: Session, dag_id: str, run_id: str, task_id: str | None) -> Leftovers:
    """Return what is left of an address at which nothing was found."""

    def has_images(task: str | None) -> bool:
        marked = select(XComModel.key).where(*within(dag_id, task), XComModel.key == MARK, XComModel.run_id != run_id)
        return session.execute(marked.limit(1)).first() is not None

    run = find_run(session, dag_id, run_id) is not None
    return Leftovers(run, task_id is not None and has_images(task_id), has_images(None))
