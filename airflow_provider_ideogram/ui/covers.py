"""
The image that stands for a DAG or a task in a list.

Invariant: it is the first image of the newest task with a result that has one; at most :data:`_MAX_TASKS` tasks are
looked through, with the first rows of each.
"""

from __future__ import annotations

from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import func, select

from airflow_provider_ideogram.ui.costs import RESULTS, marked_tasks, within
from airflow_provider_ideogram.ui.objects import Reader
from airflow_provider_ideogram.ui.pages import read_page
from airflow_provider_ideogram.ui.records import Item
from airflow_provider_ideogram.ui.runs import Scope

_MAX_TASKS = 4
_ITEMS = 12


def cover_of(reader: Reader, dag_id: str, task_id: str | None) -> Item | None:
    """Return the image of a DAG, or of one of its tasks; None if there is none."""
    conditions = within(dag_id, task_id)
    latest = func.max(XComModel.timestamp)
    with create_session(scoped=False) as session:
        newest = session.execute(
            select(XComModel.run_id, XComModel.task_id, latest)
            .where(*conditions, XComModel.key.in_(RESULTS), XComModel.task_id.in_(marked_tasks(conditions)))
            .group_by(XComModel.run_id, XComModel.task_id)
            .order_by(latest.desc())
            .limit(_MAX_TASKS)
        ).all()
    for run_id, task, _ in newest:
        items = read_page(reader, Scope(dag_id, run_id, task), limit=_ITEMS).items
        found = next((item for item in items if item.is_accepted), None)
        if found is not None:
            return found
    return None
