"""
The gallery's queries of Airflow's database.

Invariant: every query is restricted to the DAG that the caller is authorised for, and reads at most the given number of
task instances with single images, and all those of datasets; only :func:`dags_with_images`, which returns DAG ids
alone, reads all of them.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow.models.dagrun import DagRun
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import and_, false, func, or_, select

from airflow_provider_ideogram.links.ideogram import IdeogramImageLink
from airflow_provider_ideogram.ui.places import Place, columns, identity, is_at, order, with_regions
from airflow_provider_ideogram.ui.records import NO_STATE, Instance
from airflow_provider_ideogram.ui.reviews import REVIEW_XCOM

if TYPE_CHECKING:
    from sqlalchemy.orm import Session
    from sqlalchemy.sql.elements import ColumnElement

_Table: TypeAlias = type[TaskInstance | XComModel | RenderedTaskInstanceFields]
#: What :func:`identity` returns of a row.
_Identity: TypeAlias = tuple[Any, ...]
_XCOMS = ("return_value", "request_id", "failure", "progress", REVIEW_XCOM)
#: The operator's link is stored as an XCom of each task instance, also of a subclass with another name.
MARK = IdeogramImageLink().xcom_key
_PROGRESS = "progress"
_LIVE_STATES = ("queued", "running")
#: The table with the task instance of rendered fields. From Airflow 3.4 on they have its id only; those that an older
#: version stored are in a table that is not read.
_RENDERED_KEY: Any = (
    TaskInstance if hasattr(RenderedTaskInstanceFields, "task_instance_id") else RenderedTaskInstanceFields
)


@dataclass(frozen=True, slots=True)
class Scope:
    """
    The scope of a page: a run, a task of it, or a single task instance.

    :param task_id: None for all tasks.
    :param place: None for all instances of the task.
    """

    dag_id: str
    run_id: str
    task_id: str | None = None
    place: Place | None = None

    def where(self) -> ColumnElement[bool]:
        """Return the condition for its task instances."""
        conditions = [_in_run(TaskInstance, self)]
        if self.task_id is not None:
            conditions.append(TaskInstance.task_id == self.task_id)
        if self.place is not None:
            conditions.append(is_at(self.place))
        return and_(*conditions)


@dataclass(frozen=True, slots=True)
class Task:
    """
    A task of this provider.

    :param states: The number of its instances within the scope, by state.
    :param is_dataset: Whether it has rows.
    :param is_review: Whether it reviews other tasks' images, which are its rows.
    """

    task_id: str
    states: Mapping[str, int]
    is_dataset: bool
    is_review: bool


@dataclass(frozen=True, slots=True)
class Run:
    """A DAG run, as it is listed."""

    run_id: str
    state: str | None
    run_after: datetime

    @property
    def is_live(self) -> bool:
        """Whether the page may change soon."""
        return self.state in _LIVE_STATES


def image_tasks(session: Session, scope: Scope) -> list[Task]:
    """Return the tasks of this provider, in the order of their names."""
    operators: dict[str, str] = {}
    states: dict[str, Counter[str]] = defaultdict(Counter)
    for task_id, operator, state, count in session.execute(
        select(TaskInstance.task_id, TaskInstance.operator, TaskInstance.state, func.count())
        .where(scope.where())
        .group_by(TaskInstance.task_id, TaskInstance.operator, TaskInstance.state)
        .order_by(TaskInstance.task_id)
    ):
        operators[task_id] = operator or ""
        states[task_id][state or NO_STATE] += count
    pushed: dict[str, set[str]] = defaultdict(set)
    for task_id, key in session.execute(
        select(XComModel.task_id, XComModel.key)
        .where(
            XComModel.dag_id == scope.dag_id,
            XComModel.run_id == scope.run_id,
            XComModel.task_id.in_(operators),
            XComModel.key.in_((MARK, _PROGRESS, REVIEW_XCOM)),
        )
        .distinct()
    ):
        pushed[task_id].add(key)
    tasks = []
    for task_id, operator in operators.items():
        if "Ideogram" in operator or MARK in pushed[task_id]:
            is_review = "IdeogramReview" in operator or REVIEW_XCOM in pushed[task_id]
            is_dataset = is_review or "Dataset" in operator or _PROGRESS in pushed[task_id]
            tasks.append(Task(task_id, states[task_id], is_dataset, is_review))
    return tasks


def review_instances(session: Session, dag_id: str, run_id: str) -> list[Instance]:
    """Return the task instances of a run that have opened a review."""
    run = Scope(dag_id, run_id)
    tasks = select(XComModel.task_id).where(_in_run(XComModel, run), XComModel.key == REVIEW_XCOM).distinct()
    found = session.scalars(tasks).all()
    return instances(session, run, found) if found else []


def instances(
    session: Session, scope: Scope, task_ids: Sequence[str], offset: int = 0, limit: int | None = None
) -> list[Instance]:
    """Return task instances with their XComs, in the order of task, iteration and map index."""
    own = identity(TaskInstance)
    found = session.execute(
        with_regions(select(TaskInstance.state, TaskInstance.try_number, *own, *columns()))
        .where(scope.where(), TaskInstance.task_id.in_(task_ids))
        .order_by(*order())
        .offset(offset)
        .limit(limit)
    ).all()
    rows = [(row[0], row[1], tuple(row[2 : 2 + len(own)]), tuple(row[2 + len(own) :])) for row in found]
    keys = [row[:2] for *_, row in rows]
    xcoms, rendered = _xcoms(session, scope, keys), _rendered_fields(session, scope, keys)
    instances = []
    for state, tries, key, row in rows:
        place, told = Place.of_row(*row), (xcoms.get(key, {}), rendered.get(key, {}), tries)
        within = scope.dag_id, scope.run_id, row[0], place.map_index, state or NO_STATE
        instances.append(Instance(*within, *told, place.region_id, place.region_index, place.iteration))
    return instances


def _xcoms(session: Session, scope: Scope, keys: Sequence[tuple[str, int]]) -> dict[_Identity, dict[str, Any]]:
    found: dict[_Identity, dict[str, Any]] = defaultdict(dict)
    query = select(XComModel.key, XComModel.value, *identity(XComModel))
    for name, value, *key in session.execute(
        query.where(_in_run(XComModel, scope), _among(XComModel, keys), XComModel.key.in_(_XCOMS))
    ):
        found[tuple(key)][name] = plain_value(value)
    return found


def _rendered_fields(
    session: Session, scope: Scope, keys: Sequence[tuple[str, int]]
) -> dict[_Identity, Mapping[str, Any]]:
    """Return the operators' rendered arguments, which Airflow keeps for the last runs of a task."""
    fields: Any = RenderedTaskInstanceFields
    table = _RENDERED_KEY
    query = select(fields.rendered_fields, *identity(fields))
    if table is TaskInstance:
        query = query.join(TaskInstance, fields.task_instance_id == TaskInstance.id)
    rows = session.execute(query.where(_in_run(table, scope), _among(table, keys)))
    return {tuple(key): found for found, *key in rows if isinstance(found, Mapping)}


def _in_run(table: _Table, scope: Scope) -> ColumnElement[bool]:
    return and_(table.dag_id == scope.dag_id, table.run_id == scope.run_id)


def _among(table: _Table, keys: Sequence[tuple[str, int]]) -> ColumnElement[bool]:
    """Return a condition that holds for these tasks and map indexes, and for few others."""
    of_task: dict[str, list[int]] = defaultdict(list)
    for task_id, map_index in keys:
        of_task[task_id].append(map_index)
    ranges = (
        and_(table.task_id == task_id, table.map_index.between(min(indexes), max(indexes)))
        for task_id, indexes in of_task.items()
    )
    return or_(false(), *ranges)


def recent_runs(session: Session, dag_id: str, offset: int, limit: int) -> list[Run]:
    """Return a DAG's runs, newest first."""
    rows = session.execute(
        select(DagRun.run_id, DagRun.state, DagRun.run_after)
        .where(DagRun.dag_id == dag_id)
        .order_by(DagRun.run_after.desc(), DagRun.id.desc())
        .offset(offset)
        .limit(limit)
    )
    return [Run(run_id, state, run_after) for run_id, state, run_after in rows]


def find_run(session: Session, dag_id: str, run_id: str) -> Run | None:
    """Return a run, None if it does not exist."""
    row = session.execute(
        select(DagRun.run_id, DagRun.state, DagRun.run_after).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
    ).first()
    return None if row is None else Run(*row)


def dags_with_images(session: Session) -> list[tuple[str, datetime]]:
    """Return the ids of DAGs with images and the time of the latest one, newest first."""
    latest = func.max(XComModel.timestamp)
    rows = session.execute(
        select(XComModel.dag_id, latest).where(XComModel.key == MARK).group_by(XComModel.dag_id).order_by(latest.desc())
    )
    return [(dag_id, moment) for dag_id, moment in rows]


def plain_value(value: Any) -> Any:
    """Return an XCom's value as plain JSON; nothing is deserialised into objects."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
