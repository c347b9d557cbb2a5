"""
Put a run's task instances directly into the triggerer, as if each had deferred.

A thousand starts of workers would take a small machine half an hour, and would not measure the triggerer.
`python -m benchmarks.concurrent_triggers COMMAND ...` runs in that Airflow's environment. `pool` makes the pool without
slots. `defer RUN_ID TRIGGERS` reads a JSON list of class paths and arguments, and defers the tasks. `count RUN_ID`
prints the number of tasks with an event.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path

from airflow.models.pool import Pool
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import func, select

DAG_ID = "many_triggers"
POOL = "without_slots"


def make_pool() -> None:
    with create_session() as session:
        session.add(Pool(pool=POOL, slots=0, description="", include_deferred=False))


def defer(run_id: str, triggers: list[tuple[str, dict[str, object]]]) -> None:
    with create_session() as session:
        waiting = session.scalars(
            select(TaskInstance).where(TaskInstance.dag_id == DAG_ID, TaskInstance.run_id == run_id)
        ).all()
        rows = [
            Trigger(path, {name: _value(name, value) for name, value in kwargs.items()}) for path, kwargs in triggers
        ]
        session.add_all(rows)
        session.flush()
        for instance, row in zip(waiting, rows, strict=True):
            instance.state = TaskInstanceState.DEFERRED
            instance.trigger_id = row.id
            instance.next_method = "resume"
            instance.next_kwargs = {}


def _value(name: str, value: object) -> object:
    """Return an argument with the type that the trigger expects: JSON has no times."""
    return datetime.fromisoformat(str(value)) if name == "moment" else value


def count(run_id: str) -> int:
    with create_session() as session:
        with_event = select(func.count()).where(
            TaskInstance.dag_id == DAG_ID,
            TaskInstance.run_id == run_id,
            TaskInstance.next_method == "resume",
            TaskInstance.trigger_id.is_(None),
        )
        return session.scalar(with_event) or 0


if __name__ == "__main__":
    if sys.argv[1] == "pool":
        make_pool()
    elif sys.argv[1] == "defer":
        defer(sys.argv[2], json.loads(Path(sys.argv[3]).read_text()))
    else:
        print(count(sys.argv[2]))
