"""
The runs of a DAG that are planned, and its operators as those runs would render them.

Invariant: nothing is written to Airflow's database, and no function of the user is called. What only a run knows, such
as the output of another task, is not made up: the value is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from math import prod
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import MappedOperator, Variable, timezone  # type: ignore[attr-defined]
from jinja2 import Undefined, UndefinedError

from airflow_provider_ideogram.exceptions import IdeogramError, IdeogramInvalidInput
from airflow_provider_ideogram.jobs.identity import owner_id
from airflow_provider_ideogram.jobs.preview import PlannedImages, Verdict, refused
from airflow_provider_ideogram.operators.base import IdeogramBaseOperator

if TYPE_CHECKING:
    from airflow_provider_ideogram.operators.planning import PlannedTask

#: Template fields that only the function of a decorated task takes.
_OF_FUNCTIONS = ("op_args", "op_kwargs", "templates_dict")


class OnlyInARun(Exception):
    """A template asks for what only a run knows."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """
    A run of a DAG that need not exist.

    :param run_id: The id that Airflow would give it.
    :param run_type: Its type.
    :param logical_date: Its date, a pendulum ``DateTime`` in UTC as in templates.
    :param interval: Its data interval.
    """

    run_id: str
    run_type: str
    logical_date: datetime
    interval: tuple[datetime, datetime]
    conf: Mapping[str, Any]


def runs_of(dag: Any, first: date, last: date, conf: Mapping[str, Any]) -> Iterator[PlannedRun]:
    """
    Yield the scheduled runs of a DAG between two days in UTC; of a DAG without a schedule, one on the first day.

    :param last: The last day, which is included.
    :param conf: The configuration of the runs.
    """
    begins, ends = (
        timezone.convert_to_utc(datetime.combine(day, time.min, UTC)) for day in (first, last + timedelta(days=1))
    )
    if not getattr(dag.timetable, "can_be_scheduled", True):
        yield PlannedRun(f"manual__{begins.isoformat()}", "manual", begins, (begins, begins), conf)
        return
    scheduled = _scheduled(dag)
    for info in scheduled.iter_dagrun_infos_between(begins, ends - timedelta(microseconds=1)):
        moment = timezone.convert_to_utc(info.logical_date or info.run_after)
        start, end = info.data_interval or (moment, moment)
        interval = timezone.convert_to_utc(start), timezone.convert_to_utc(end)
        yield PlannedRun(_run_id(scheduled.timetable, info, moment), "scheduled", moment, interval, conf)


def _run_id(timetable: Any, info: Any, moment: datetime) -> str:
    """
    Return the id that the scheduler would give a run.

    :param info: Airflow's description of the run.
    :param moment: The logical date, or the time of a run without one.
    """
    from airflow.utils.types import DagRunType

    named: dict[str, Any]
    if hasattr(info, "partition_key"):  # since Airflow 3.2
        named = {"run_after": timezone.convert_to_utc(info.run_after), "partition_key": info.partition_key}
    elif hasattr(DagRunType, "ASSET_TRIGGERED"):  # Airflow 3.0 and 3.1, whose scheduler passes the logical date
        named = {"run_after": moment}
    else:
        named = {"logical_date": moment}
    run_id: str = timetable.generate_run_id(run_type=DagRunType.SCHEDULED, data_interval=info.data_interval, **named)
    return run_id


def _scheduled(dag: Any) -> Any:
    """Return the DAG as the scheduler has it, which calculates its runs."""
    if hasattr(dag, "iter_dagrun_infos_between"):  # up to Airflow 3.0
        return dag
    from airflow.serialization import serialized_objects

    names = ("DagSerialization", "SerializedDAG")  # the second one before Airflow 3.2
    serialization: Any = next(filter(None, (getattr(serialized_objects, name, None) for name in names)))
    return serialization.from_dict(serialization.to_dict(dag))


def planned_tasks(task: Any, run: PlannedRun) -> Iterator[PlannedTask]:
    """
    Yield the instances of a task of this provider in a run.

    :param task: An operator, or a mapped one.
    """
    if any(True for _ in task.iter_mapped_task_groups()):
        yield PlannedImages(
            Verdict.UNKNOWN, "the task is in a mapped group: its instances show only in a run", usd=None
        )
        return
    if not isinstance(task, MappedOperator):
        yield _planned(task, run, -1)
        return
    instances = _instances(task)
    if instances is None:
        yield PlannedImages(Verdict.UNKNOWN, "the task is mapped over what only a run knows", usd=None)
        return
    for index in range(instances):
        yield _planned(task, run, index)


def _instances(task: Any) -> int | None:
    """Return the number of a mapped task's instances; None if it is mapped over another task's output."""
    mapped = task._get_specified_expand_input().value
    try:
        return prod(map(len, mapped.values())) if isinstance(mapped, Mapping) else len(mapped)
    except TypeError:  # another task's output has no length
        return None


def _planned(task: Any, run: PlannedRun, map_index: int) -> PlannedTask:
    instance = _Instance(task, run, map_index)
    try:
        operator = _rendered(task, _context(task, run, instance))
    except OnlyInARun as unknown:
        return PlannedImages(Verdict.UNKNOWN, f"a template has {unknown}, which shows only in a run", usd=None)
    except UndefinedError as unknown:
        return PlannedImages(Verdict.UNKNOWN, f"a template names what is not known before a run: {unknown}", usd=None)
    except IdeogramError as error:
        return refused(error)
    except Exception as error:  # of a template: of any class
        problem = IdeogramInvalidInput.of([f"a template can't be rendered ({error})"], f"Task {task.task_id!r}")
        return refused(problem)
    return operator, owner_id(instance)


def _rendered(task: Any, context: Any) -> IdeogramBaseOperator:
    environment = task.get_template_env()
    if isinstance(task, MappedOperator):
        with _session_of_the_task():
            task.render_template_fields(context, environment)
        operator: IdeogramBaseOperator = context["task"]
        return operator
    operator = task.prepare_for_execution()
    for name in operator.template_fields:
        if name not in _OF_FUNCTIONS:
            value = operator.render_template(getattr(operator, name), context, environment, set())
            if isinstance(value, Undefined):  # of a DAG with render_template_as_native_obj
                raise OnlyInARun(f"a value in {name}")
            setattr(operator, name, value)
    return operator


@contextmanager
def _session_of_the_task() -> Iterator[None]:
    """Set the session that a mapped task is rendered with before Airflow 3.0, which otherwise keeps a new one open."""
    try:
        from airflow.utils.task_instance_session import (  # type: ignore[import-not-found]
            set_current_task_instance_session,
        )
    except ImportError:
        yield
        return
    from airflow.utils.session import create_session

    with create_session() as session, set_current_task_instance_session(session):
        yield


class _Instance:
    """The task instance as templates see it."""

    def __init__(self, task: Any, run: PlannedRun, map_index: int) -> None:
        self.task = task
        self.dag_id, self.task_id = task.dag_id, task.task_id
        self.run_id, self.map_index = run.run_id, map_index
        self.try_number, self.max_tries = 1, task.retries or 0

    region_id = None  # of an iteration of a task loop

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise OnlyInARun(f"ti.{name}")


class _Variables:
    """``var.value`` and ``var.json`` of a template."""

    def __init__(self, *, deserialize_json: bool) -> None:
        self._options = {"deserialize_json": deserialize_json}

    def __getattr__(self, name: str) -> Any:
        return Variable.get(name, **self._options)

    def get(self, name: str, default: Any = None) -> Any:
        return Variable.get(name, default, **self._options)


def _context(task: Any, run: PlannedRun, instance: _Instance) -> dict[str, Any]:
    """Return what templates see of a run; of the rest Jinja says that it is undefined."""
    moment, (start, end) = run.logical_date, run.interval
    day, stamp = moment.strftime("%Y-%m-%d"), moment.isoformat()
    params = task.params.dump() if hasattr(task.params, "dump") else dict(task.params)
    return {
        "dag": task.dag,
        "dag_run": SimpleNamespace(
            dag_id=task.dag_id, run_id=run.run_id, conf=dict(run.conf), logical_date=moment, run_type=run.run_type
        ),
        "data_interval_start": start,
        "data_interval_end": end,
        "ds": day,
        "ds_nodash": day.replace("-", ""),
        "logical_date": moment,
        "macros": _macros(),
        "params": {**params, **run.conf},
        "run_id": run.run_id,
        "task": task,
        "task_instance": instance,
        "task_instance_key_str": f"{task.dag_id}__{task.task_id}__{day.replace('-', '')}",
        "ti": instance,
        "ts": stamp,
        "ts_nodash": moment.strftime("%Y%m%dT%H%M%S"),
        "ts_nodash_with_tz": stamp.replace("-", "").replace(":", ""),
        "var": {"value": _Variables(deserialize_json=False), "json": _Variables(deserialize_json=True)},
    }


def _macros() -> Any:
    try:
        from airflow.sdk.execution_time.context import MacrosAccessor
    except ImportError:  # before Airflow 3.0
        import airflow.macros

        return airflow.macros
    return MacrosAccessor()
