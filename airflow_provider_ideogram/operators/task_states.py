"""
The states of other task instances, on every version of Airflow.

Invariant: a task instance that Airflow does not know is not at work.
"""

from __future__ import annotations

from typing import Any

#: One that waits for a retry is not at work: otherwise two that do would make each other fail.
_AT_WORK = ("scheduled", "queued", "running", "restarting", "deferred")


def is_at_work(ti: Any, owner: str) -> bool:
    """
    Return whether a task instance runs, waits in the triggerer, or is about to run.

    :param ti: The task instance that asks.
    :param owner: The other one, as :func:`.owner_id` names it; the iterations of a loop count as one.
    """
    dag_and_run, task_id, index = owner.rsplit("/", 2)
    dag_id, run_id = dag_and_run.split("/", 1)
    return str(_state(ti, dag_id, run_id, task_id, int(index.partition("@")[0]))) in _AT_WORK


def _state(ti: Any, dag_id: str, run_id: str, task_id: str, map_index: int) -> Any:
    if hasattr(ti, "get_task_states"):  # from Airflow 3.0 on, where a worker has no database
        states = ti.get_task_states(dag_id=dag_id, run_ids=[run_id], task_ids=[task_id]).get(run_id, {})
        return states.get(task_id if map_index < 0 else f"{task_id}_{map_index}")
    from airflow.models import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        query = session.query(TaskInstance.state).filter_by(
            dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index
        )
        return query.scalar()
