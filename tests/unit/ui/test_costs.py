from __future__ import annotations

from typing import Any

import httpx
import pytest

from airflow_provider_ideogram.ui import costs
from tests.unit.ui.conftest import RUN, Database, json_lines, record

DATASET = "IdeogramGenerateDatasetOperator"
PROGRESS = {"total": 9, "done": 5, "cost_usd": 0.2}


@pytest.fixture
def runs(database: Database) -> Database:
    """Two runs: of one with two mapped images, a dataset that ended and one that runs, and of one with an image."""
    database.add_run("cats")
    database.add_run("cats", "later")
    for index in range(2):
        database.add_task("cats", "single", map_index=index, xcoms={"return_value": record("bucket", index)})
    ended = {"return_value": {"cost_usd": 1.5, "total": 30}, "progress": {"cost_usd": 1.4}}
    database.add_task("cats", "ended", xcoms=ended, operator=DATASET)
    database.add_task("cats", "running", xcoms={"progress": PROGRESS}, operator=DATASET, state="running")
    as_text = json_lines(record("bucket", 3, cost_usd=0.03)).decode()
    database.add_task("cats", "single", run_id="later", xcoms={"return_value": as_text})
    database.add_task("cats", "other", operator="PythonOperator", linked=False, xcoms={"return_value": {"cost_usd": 9}})
    database.add_task("dogs", "single", xcoms={"return_value": record("bucket", 4)})
    return database


@pytest.mark.usefixtures("runs")
async def test_costs_of_dag_task_and_runs(gallery: httpx.AsyncClient) -> None:
    page = (await gallery.get("/dags/cats")).text
    assert "This DAG has cost 1.83 USD in the runs that Airflow keeps." in page
    assert " · 1.80 USD</p>" in page
    assert " · 0.03 USD</p>" in page
    assert "This task has cost 0.13 USD" in (await gallery.get("/dags/cats/tasks/single")).text
    assert " · 1.80 USD" in (await gallery.get(f"/dags/cats/runs/{RUN}")).text
    assert " · 0.10 USD" in (await gallery.get(f"/dags/cats/runs/{RUN}/tasks/single")).text


@pytest.mark.usefixtures("runs")
async def test_sum_of_the_newest_results_says_so(gallery: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "MAX_RESULTS", 1)
    assert "has cost at least " in (await gallery.get("/dags/cats")).text


@pytest.mark.parametrize("result", [None, 7, [], {}, {"cost_usd": "1"}, {"cost_usd": float("nan")}, {"cost_usd": -1}])
def test_result_without_a_cost_adds_nothing(result: Any) -> None:
    cost = costs.Cost()
    cost.add(result)
    assert str(cost) == "0.00 USD"


def test_estimate_is_called_one() -> None:
    cost = costs.Cost()
    cost.add({"cost_usd": 0.05, "cost_is_estimate": True})
    cost.add({"cost_usd": 0.05, "cost_is_estimate": False})
    assert str(cost) == "about 0.10 USD"


@pytest.mark.usefixtures("runs")
async def test_pages_link_to_airflows_own(gallery: httpx.AsyncClient) -> None:
    run = "/dags/cats/runs/manual__2026-01-02T00%3A00%3A00%2B00%3A00"
    page = (await gallery.get(f"/dags/cats/runs/{RUN}")).text
    assert f'href="{run}">Run in Airflow' in page
    assert f'href="{run}/tasks/ended">Task log' in page
    image = (await gallery.get(f"/dags/cats/runs/{RUN}/tasks/single/images/1/-")).text
    assert f'href="{run}/tasks/single/mapped/1/details">Task instance' in image
