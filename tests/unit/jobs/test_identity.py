"""Tests of a task instance's id in the ledger."""

from __future__ import annotations

from types import SimpleNamespace
from uuid import UUID

from airflow_provider_ideogram.jobs.identity import owner_id

KEY = {"dag_id": "night", "run_id": "run/1", "task_id": "generate", "map_index": 3}


def test_id_has_the_four_parts() -> None:
    assert owner_id(SimpleNamespace(**KEY)) == "night/run/1/generate/3"


def test_task_outside_of_a_loop_has_no_region() -> None:
    assert owner_id(SimpleNamespace(**KEY, region_id=UUID(int=0), region_index=3)) == "night/run/1/generate/3"


def test_iterations_of_a_loop_differ() -> None:
    region = UUID(int=7)
    first, second = (owner_id(SimpleNamespace(**KEY, region_id=region, region_index=index)) for index in (0, 1))
    assert first == f"night/run/1/generate/3@{region.hex}.0"
    assert first != second
