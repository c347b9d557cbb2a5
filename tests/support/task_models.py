"""Run the slices of a task by Airflow 2's own models, on a database in memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache, partial
from typing import Any
from unittest import mock

from airflow import settings
from airflow.models import DAG, import_all_models
from airflow.models.base import Base
from airflow.models.dagrun import DagRun
from airflow.models.dataset import DatasetEvent
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.xcom import XCom
from airflow.triggers.base import TriggerEvent
from airflow.utils import timezone
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunType
from sqlalchemy import create_engine, event, func, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlalchemy.pool import StaticPool

from tests.support.task_runner import DAG_ID, LOGICAL_DATE, RUN_ID, TaskRun, TaskRunner


@contextmanager
def task_runner() -> Iterator[TaskRunner]:
    """Give what makes the task instances of a test, and let Airflow take an empty database for its own meanwhile."""
    engine, written = _engine(), list[str]()

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if not statement.startswith("SELECT"):
            written.append(f"{statement} {values}")

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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Flask's own
        import airflow.providers.fab.auth_manager.models  # noqa: F401 - other tables refer to its own
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
        self._deferral: dict[str, Any] | None = None
        self._key = {"dag_id": operator.dag_id, "run_id": run_id, "task_id": operator.task_id, "map_index": map_index}
        with create_session() as session:
            operator.dag.sync_to_db(session=session)
            if not session.scalar(select(DagRun).filter_by(dag_id=operator.dag_id, run_id=run_id)):
                session.add(self._dag_run(session, run_id, conf))
                session.flush()
            instance = TaskInstance(operator, run_id=run_id, map_index=map_index, state=TaskInstanceState.QUEUED)
            instance.try_number = 1
            session.merge(instance)

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
        return str(self._read().state)

    @property
    def xcoms(self) -> dict[str, Any]:
        """All XComs of the task as they are stored."""
        return {row.key: row.value for row in self._rows(XCom)}

    @property
    def deferral(self) -> dict[str, Any] | None:
        """What is stored of the last deferral, the trigger's arguments as the triggerer reads them."""
        return self._deferral

    @property
    def rendered_fields(self) -> dict[str, Any]:
        """The template fields as rendered for the last slice."""
        [row] = self._rows(RenderedTaskInstanceFields)
        fields: dict[str, Any] = row.rendered_fields
        return fields

    @property
    def asset_events(self) -> list[dict[str, Any]]:
        """The extras of the asset events that came with the task's success."""
        source = {f"source_{name}": value for name, value in self._key.items()}
        return [row.extra for row in _rows(DatasetEvent, source)]

    def link(self, name: str) -> str:
        """Return the address of a link, which the webserver computes when it is shown."""
        address: str = self.operator.get_extra_links(self._read(), name)
        return address

    def _run(self) -> BaseException | None:
        instance = self._read()
        assert instance.state == TaskInstanceState.QUEUED
        self._write(state=TaskInstanceState.RUNNING, start_date=timezone.utcnow())
        try:
            instance._run_raw_task()
        except Exception as error:
            return error
        finally:
            self._note_deferral()
        return None

    def _note_deferral(self) -> None:
        instance = self._read()
        if instance.state == TaskInstanceState.DEFERRED:
            [trigger] = _rows(Trigger, {"id": instance.trigger_id})
            arguments = {"trigger_kwargs": trigger.kwargs, "next_method": instance.next_method}
            self._deferral = {"classpath": trigger.classpath, **arguments}
            self._written.append(repr(self._deferral))  # in the database it is encrypted

    def _take_event(self, event: Any) -> None:
        instance = self._read()
        TriggerEvent(event).handle_submit(task_instance=instance)
        self._write(state=TaskInstanceState.QUEUED, next_kwargs=instance.next_kwargs, trigger_id=None)

    def _take_timeout(self) -> None:
        error = {"error": "Trigger/execution timeout"}
        self._write(state=TaskInstanceState.QUEUED, next_method="__fail__", next_kwargs=error, trigger_id=None)

    def _next_try(self, *, cleared: bool) -> None:
        self._deferral = None
        instance = self._read()
        if cleared:
            self._write(max_tries=instance.try_number + self.operator.retries)
        nothing = dict.fromkeys(("next_method", "next_kwargs", "trigger_id"))
        self._write(state=TaskInstanceState.QUEUED, try_number=instance.try_number + 1, **nothing)

    def _stored(self) -> list[str]:
        return self._written

    def _rows(self, model: Any) -> list[Any]:
        return _rows(model, self._key)

    def _read(self) -> TaskInstance:
        [instance] = self._rows(TaskInstance)
        instance.task = self.operator
        return instance

    def _write(self, **values: Any) -> None:
        with create_session() as session:
            session.execute(update(TaskInstance).filter_by(**self._key).values(**values))


def _rows(model: Any, where: dict[str, Any]) -> list[Any]:
    with create_session() as session:
        return list(session.scalars(select(model).filter_by(**where)))
