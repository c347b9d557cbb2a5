"""Images that earlier runs stored below the prefix: which are reused, and what is charged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.integration.datasets.results import PREFIX, ROWS, Make, assert_results_agree, manifest

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRunner
    from tests.support.world import World


def test_a_second_run_reuses_what_is_there_and_makes_what_is_new(
    make: Make, task_runner: TaskRunner, world: World
) -> None:
    first = task_runner(make())
    world.to_end(first, first.execute())
    world.s3.delete_object(Bucket=world.bucket, Key=f"{PREFIX}item-1")
    world.s3.put_object(Bucket=world.bucket, Key=f"{PREFIX}item-2", Body=b"somebody else's")
    changed = [*ROWS[:4], {"id": "item-4", "prompt": "another prompt"}, {"id": "new", "prompt": "a new one"}]

    second = task_runner(make(prompts=changed), run_id="second")
    result = world.to_end(second, second.execute())

    assert result.state == "success", second.log_text
    assert (second.xcom()["reused"], second.xcom()["generated"], second.xcom()["cost_usd"]) == (2, 4, 0.2)
    assert world.accepted == 9
    assert [line["status"] for line in manifest(world)] == ["reused", *["generated"] * 2, "reused", *["generated"] * 2]


def test_images_of_a_run_without_a_manifest_are_reused(make: Make, task_runner: TaskRunner, world: World) -> None:
    first = task_runner(make())
    world.to_end(first, first.execute())
    world.s3.delete_object(Bucket=world.bucket, Key=f"{PREFIX}manifest.jsonl")

    second = task_runner(make(), run_id="second")
    xcom = assert_results_agree(world, second, world.to_end(second, second.execute()))

    assert (xcom["reused"], xcom["cost_usd"]) == (5, 0.0)


def test_images_copied_with_their_manifest_have_their_new_keys(
    make: Make, task_runner: TaskRunner, world: World
) -> None:
    first = task_runner(make())
    world.to_end(first, first.execute())
    old, copy = world.bucket, f"{world.bucket}-copy"
    world.s3.create_bucket(Bucket=copy)
    for key in world.object_keys(PREFIX):
        world.s3.copy_object(CopySource={"Bucket": old, "Key": key}, Bucket=copy, Key=key)
    copied = replace(world, bucket=copy)

    second = task_runner(make(s3_prefix=copied.uri(PREFIX)), run_id="second")
    xcom = assert_results_agree(copied, second, copied.to_end(second, second.execute()))

    assert (xcom["reused"], xcom["cost_usd"], copied.accepted) == (5, 0.0, 5)
    assert [line["uri"] for line in manifest(copied)] == [f"s3://{copy}/{PREFIX}{row['id']}" for row in ROWS]


def test_another_run_takes_over_what_an_unfinished_one_left(make: Make, task_runner: TaskRunner, world: World) -> None:
    dead = task_runner(make(max_in_flight=2))
    dead.execute()
    dead.resume(dead.fire())
    assert dead.time_out().state == "up_for_retry"

    other = task_runner(make(), run_id="other")
    result = world.to_end(other, other.execute())

    assert result.state == "success", other.log_text
    assert world.accepted == 5
    assert other.xcom()["reused"] > 0
    assert len(manifest(world)) == 5


@pytest.mark.parametrize("if_exists", ["reuse", "overwrite", "fail"])
def test_what_is_there_already(if_exists: str, make: Make, task_runner: TaskRunner, world: World) -> None:
    first = task_runner(make())
    world.to_end(first, first.execute())

    second = task_runner(make(if_exists=if_exists), run_id="second")
    result = world.to_end(second, second.execute())

    assert result.state == ("failed" if if_exists == "fail" else "success")
    assert world.accepted == (10 if if_exists == "overwrite" else 5)
    if if_exists == "overwrite":
        assert second.xcom()["generated"] == 5
        again = world.to_end(second, second.retry())
        assert (again.state, second.xcom()["generated"], world.accepted) == ("success", 5, 10)
        world.to_end(second, second.clear())
        assert world.accepted == 15


def test_object_that_appears_while_it_runs_is_not_replaced(make: Make, task_runner: TaskRunner, world: World) -> None:
    rows = [*ROWS, {**ROWS[0], "id": "copy"}]
    run = task_runner(make(prompts=rows, dedupe=True, if_exists="fail", max_in_flight=2, max_failures=2, retries=0))
    result = run.execute()
    for name in ("item-4", "copy"):
        world.put(PREFIX + name, b"another program's")

    assert world.to_end(run, result).state == "success", run.log_text

    failed = [line for line in manifest(world) if line["status"] == "failed"]
    assert [(line["id"], line["cost_usd"]) for line in failed] == [("item-4", 0.0), ("copy", 0.0)]
    for line in failed:
        assert "exists and if_exists is 'fail'. Nothing was charged." in line["error"]
        assert world.stored(PREFIX + line["id"]) == b"another program's"
    assert (world.accepted, run.xcom()["generated"]) == (4, 4)
    assert f"_ideogram/{PREFIX}item-4.json" not in world.object_keys("_ideogram/")
