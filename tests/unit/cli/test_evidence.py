"""The requests of tasks in Airflow's database."""

from __future__ import annotations

from datetime import timedelta

from airflow_provider_ideogram.cli.evidence import request_ids_of_tasks
from tests.unit.ui.conftest import NOW, Database, database, engine

__all__ = ["database", "engine"]


def test_requests_of_tasks_since_a_time(database: Database) -> None:
    database.add_run("cats")
    database.add_task("cats", xcoms={"request_id": "request-1", "return_value": {"request_id": "other"}})
    assert list(request_ids_of_tasks(NOW.timestamp())) == ["request-1"]
    assert list(request_ids_of_tasks((NOW + timedelta(seconds=1)).timestamp())) == []
