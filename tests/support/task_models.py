"""Run the slices of a task with Airflow 2's models, on a database in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache, partial
from importlib import import_module
from typing import Any
from unittest import mock

from airflow import settings
from airflow.models import DAG, import_all_models
from airflow.models.base import Base
from airflow.models.dagrun import DagRun
from airflow.models.dataset import DatasetEvent, DatasetModel
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.xcom import XCom
from airflow.serialization.serialized_objects import SerializedDAG
from airflow.triggers.base import TriggerEvent
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunType
from sqlalchemy import create_engine, event, func, select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlalchemy.pool import StaticPool

from tests.support.task_runner import DAG_ID, LOGICAL_DATE, RUN_ID, TaskRun, TaskRunner


@contextmanager
def task_runner() -> Iterator[TaskRunner]:
    """Yield the function that makes the task instances of a test; Airflow uses an empty database for this time."""
    engine, written = _engine(), list[str]()

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
        if not statement.startswith("SELECT"):
            rows = values if many else [values]
            plain = [bytes(value) if isinstance(value, memoryview) else value for row in rows for value in row]
            written.append(f"{statement} {plain}")

    event.listen(engine, "before_cursor_execute", note)
    factory = sessionmaker(engine, autoflush=False, expire_on_commit=False)
    with mock.patch.multiple(settings, engine=engine, Session=scoped_session(factory)):
        try:
            yield partial(ModelTaskRun, written)
        finally:
            event.remove(engine, "before_cursor_execute", note)
            settings.Session.remove()
            with engine.begin() as connection:
                for table in reversed(Base.metadata.sorted_tables):
                    connection.execute(table.delete())


@cache
def _engine() -> Engine:
    import_module("airflow.providers.fab.auth_manager.models")  # other tables refer to its tables
    import_all_models()
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    return engine


class ModelTaskRun(TaskRun):
    """
    One task instance.

    :param written: Takes what is written into the database, by all tasks of the test.
    """

    def __init__(
        self,
        written: list[str],
        operator: Any,
        *,
        run_id: str = RUN_ID,
        map_index: int = -1,
        conf: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(operator)
        if not operator.has_dag():
            DAG(DAG_ID, schedule=None).add_task(operator)
        self._written = written
        self._key = {"dag_id": operator.dag_id, "run_id": run_id, "task_id": operator.task_id, "map_index": map_index}
        self._deferral: dict[str, Any] | None = None
        self._instance = TaskInstance(operator, run_id=run_id, map_index=map_index)
        self._begin(try_number=1)
        with create_session() as session:
            operator.dag.sync_to_db(session=session)
            if not session.scalar(select(DagRun).filter_by(dag_id=operator.dag_id, run_id=run_id)):
                session.add(self._dag_run(session, run_id, conf))

    def _dag_run(self, session: Any, run_id: str, conf: dict[str, Any] | None) -> DagRun:
        # A DAG has one run for each date.
        date = LOGICAL_DATE + timedelta(seconds=session.scalar(select(func.count(DagRun.id))))
        return DagRun(
            self.operator.dag_id,
            run_id,
            execution_date=date,
            start_date=date,
            data_interval=(date, date),
            run_type=DagRunType.MANUAL,
            state=DagRunState.RUNNING,
            conf=conf,
        )

    @property
    def state(self) -> str:
        """The task's state."""
        return str(self._instance.state)

    @property
    def xcoms(self) -> dict[str, Any]:
        """All XComs of the task as they are stored."""
        return {row.key: row.value for row in _rows(XCom, self._key)}

    @property
    def deferral(self) -> dict[str, Any] | None:
        """The stored data of the last deferral, with the trigger's arguments as the triggerer reads them."""
        return self._deferral

    @property
    def rendered_fields(self) -> dict[str, Any]:
        """The template fields as rendered for the last slice."""
        [row] = _rows(RenderedTaskInstanceFields, self._key)
        fields: dict[str, Any] = row.rendered_fields
        return fields

    @property
    def asset_events(self) -> list[dict[str, Any]]:
        """The extras of the asset events that came with the task's success."""
        return [row.extra for row in self._asset_events()]

    @property
    def asset_uris(self) -> list[str]:
        """The assets of those events."""
        datasets = {row.id: row.uri for row in _rows(DatasetModel, {})}
        return [datasets[row.dataset_id] for row in self._asset_events()]

    def _asset_events(self) -> list[DatasetEvent]:
        return _rows(DatasetEvent, {f"source_{name}": value for name, value in self._key.items()})

    def link(self, name: str) -> str:
        """Return the address of a link, which the webserver computes when it is shown, with the stored operator."""
        stored = SerializedDAG.from_dict(SerializedDAG.to_dict(self.operator.dag)).get_task(self.operator.task_id)
        address: str = stored.get_extra_links(self._instance, name)
        return address

    def _run(self) -> BaseException | None:
        assert self.state == TaskInstanceState.QUEUED
        self._instance.state = TaskInstanceState.RUNNING
        with create_session() as session:
            session.merge(self._instance)
        try:
            self._read()._run_raw_task()
        except BaseException as error:  # Airflow has handled it
            return error
        finally:
            self._instance = self._read()
            if self.state == TaskInstanceState.DEFERRED:
                self._note_deferral()
        return None

    def _read(self) -> TaskInstance:
        [instance] = _rows(TaskInstance, self._key)
        instance.task = self.operator
        return instance

    def _note_deferral(self) -> None:
        [trigger] = _rows(Trigger, {"id": self._instance.trigger_id})
        arguments = {"trigger_kwargs": trigger.kwargs, "next_method": self._instance.next_method}
        self._deferral = {"classpath": trigger.classpath, **arguments}
        self._written.append(repr(self._deferral))  # in the database it is encrypted

    def _take_event(self, event: Any) -> None:
        TriggerEvent(event).handle_submit(task_instance=self._instance)
        self._instance.state = TaskInstanceState.QUEUED

    def _take_timeout(self) -> None:
        self._instance.next_method = "__fail__"
        self._instance.next_kwargs = {"error": "Trigger/execution timeout"}
        self._instance.state, self._instance.trigger_id = TaskInstanceState.QUEUED, None

    def _next_try(self, *, cleared: bool) -> None:
        if cleared:
            self._instance.max_tries = self._instance.try_number + self.operator.retries
        self._begin(self._instance.try_number + 1)

    def _begin(self, try_number: int) -> None:
        self._instance.state, self._instance.try_number = TaskInstanceState.QUEUED, try_number
        self._instance.next_method = self._instance.next_kwargs = self._instance.trigger_id = self._deferral = None

    def _stored(self) -> list[str]:
        return self._written


def _rows(model: Any, where: dict[str, Any]) -> list[Any]:
    with create_session() as session:
        return list(session.scalars(select(model).filter_by(**where)))
