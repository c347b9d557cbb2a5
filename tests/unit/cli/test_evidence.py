"""The requests of tasks in Airflow's database."""

from __future__ import annotations

from datetime import timedelta

from airflow_provider_ideogram.cli.evidence import requests_of_tasks
from tests.unit.ui.conftest import NOW, Database, database, engine

__all__ = ["database", "engine"]


def test_requests_of_tasks_since_a_time(database: Database) -> None:
    database.add_run("cats")
    database.add_task("cats", xcoms={"request_id": "request-1", "return_value": {"uri": "s3://bucket/cat.png"}})
    database.add_task("cats", "running", xcoms={"request_id": '"request-2"', "progress": {}})
    database.add_task("cats", "number", xcoms={"request_id": "12e4"})
    found = sorted(requests_of_tasks(NOW.timestamp()))
    assert found == [("12e4", None), ("request-1", {"uri": "s3://bucket/cat.png"}), ("request-2", None)]
    assert list(requests_of_tasks((NOW + timedelta(seconds=1)).timestamp())) == []
