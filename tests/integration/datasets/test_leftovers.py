"""What an ended run could not delete from S3 changes nothing about the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.storage.objects import ObjectStore
from tests.integration.datasets.results import Make, assert_results_agree
from tests.support.world import assert_succeeded

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRunner
    from tests.support.world import World


def _fail(objects: ObjectStore, bucket: str, keys: object, **_: object) -> None:
    if keys:
        raise IdeogramStorageError("S3 does not respond", "Nothing was charged.")


def test_parts_of_an_ended_run_are_none_of_the_next(
    make: Make, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = task_runner(make(max_in_flight=2))
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "delete_many", _fail)
        assert_succeeded(world.run(run))
    assert any("/part-" in key for key in world.object_keys("_ideogram/"))

    xcom = assert_results_agree(world, run, world.to_end(run, run.clear()))

    assert (xcom["reused"], xcom["cost_usd"], world.accepted) == (5, 0.0, 5)


def test_record_of_a_stored_image_is_deleted_by_the_next_run(
    make: Make, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "delete", _fail)
        assert_succeeded(world.run(task_runner(make())))
    assert "_ideogram/sets/day/item-4.json" in world.object_keys("_ideogram/")

    run = task_runner(make(), run_id="next")
    result = world.to_end(run, run.execute())

    assert_succeeded(result)
    assert [key for key in world.object_keys("_ideogram/") if key.endswith("item-4.json")] == []
    assert world.accepted == 5
