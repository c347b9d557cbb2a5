"""
What users rely on, on any S3 store: `make s3-stores` runs this on real servers, and `make test` on moto.

The environment variable ``S3_STORE_ENDPOINT`` has the address of the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator
from tests.integration.datasets.results import PREFIX, ROWS
from tests.support.world import KEY, assert_error, assert_succeeded

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRunner
    from tests.support.world import ImageTask, World


def test_image_is_stored_once_and_recognized(image_task: ImageTask, world: World) -> None:
    first, again = image_task(), image_task(run_id="again")

    assert_succeeded(world.run(first))
    assert_succeeded(world.run(again))

    assert world.stored() == world.image_of(first)
    assert (first.xcom()["reused"], again.xcom()["reused"]) == (False, True)
    for field in ("sha256", "request_id", "seed", "width", "etag", "original_cost_usd"):
        assert again.xcom()[field] == first.xcom()[field]
    assert (world.accepted, world.object_keys("_ideogram/")) == (1, [])


def test_next_attempt_reattaches_to_the_request(image_task: ImageTask, world: World) -> None:
    run = image_task(retries=3)

    assert run.execute().state == "deferred"
    assert_succeeded(world.to_end(run, run.retry()))

    assert world.stored() == world.image_of(run)
    assert (world.accepted, world.object_keys("_ideogram/")) == (1, [])


def test_target_of_another_task_is_not_submitted_again(image_task: ImageTask, world: World) -> None:
    first, other = image_task(), image_task(run_id="other", prompt="a harbour")
    assert first.execute().state == "deferred"

    assert_error(other.execute(), "The target is in use")

    assert (world.accepted, world.object_keys()) == (1, [f"_ideogram/{KEY}.json"])


def test_image_without_checksum_headers_is_stored_unchanged(
    image_task: ImageTask, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    run = image_task()

    assert_succeeded(world.run(run))

    assert world.stored() == world.image_of(run)


def test_dataset_is_stored_once_and_reused(task_runner: TaskRunner, world: World, ideogram_connection: str) -> None:
    def make(run_id: str) -> Any:
        rows = [*ROWS, {"id": "same", "prompt": ROWS[0]["prompt"]}]
        operator = IdeogramGenerateDatasetOperator(
            task_id="make", s3_prefix=world.uri(PREFIX), prompts=rows, dedupe=True, retries=3
        )
        return task_runner(operator, run_id=run_id)

    first, again = make("first"), make("again")
    assert_succeeded(world.run(first))
    assert_succeeded(world.run(again))

    names = [*(row["id"] for row in ROWS), "manifest.jsonl", "same"]
    assert world.object_keys() == [f"{PREFIX}{name}" for name in names]
    assert world.stored(f"{PREFIX}same") == world.stored(f"{PREFIX}item-0")
    assert (world.accepted, again.xcom()["reused"]) == (len(ROWS), len(ROWS) + 1)
