"""Images that are stored already, and rows that share an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.compat.sdk import Asset

from tests.integration.datasets.world import PREFIX, ROWS, jsonl

if TYPE_CHECKING:
    from tests.integration.datasets.world import Make, World
    from tests.support.task_runner import TaskRunner


def test_second_run_reuses_images_and_generates_new_ones(make: Make, task_runner: TaskRunner, world: World) -> None:
    first = task_runner(make())
    world.run_to_end(first, first.execute())
    world.s3.delete_object(Bucket=world.bucket, Key=f"{PREFIX}item-1")
    world.s3.put_object(Bucket=world.bucket, Key=f"{PREFIX}item-2", Body=b"another image")
    changed = [*ROWS[:4], {"id": "item-4", "prompt": "another prompt"}, {"id": "new", "prompt": "a new one"}]

    second = task_runner(make(prompts=changed), run_id="second")
    result = world.run_to_end(second, second.execute())

    assert result.state == "success", second.log_text
    assert (second.xcom()["reused"], second.xcom()["generated"], second.xcom()["cost_usd"]) == (2, 4, 0.2)
    assert world.accepted() == 9
    assert [line["status"] for line in world.manifest()] == ["reused", *["generated"] * 2, "reused", *["generated"] * 2]


def test_images_of_a_run_without_a_manifest_are_reused(make: Make, task_runner: TaskRunner, world: World) -> None:
    first = task_runner(make())
    world.run_to_end(first, first.execute())
    world.s3.delete_object(Bucket=world.bucket, Key=f"{PREFIX}manifest.jsonl")

    second = task_runner(make(), run_id="second")
    xcom = world.assert_stats_agree(second, world.run_to_end(second, second.execute()))

    assert (xcom["reused"], xcom["cost_usd"]) == (5, 0.0)


def test_images_of_a_copied_prefix_have_their_new_addresses(
    make: Make, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = task_runner(make())
    world.run_to_end(first, first.execute())
    old, copy = world.bucket, f"{world.bucket}-copy"
    world.s3.create_bucket(Bucket=copy)
    for key in world.keys(PREFIX):
        world.s3.copy_object(CopySource={"Bucket": old, "Key": key}, Bucket=copy, Key=key)
    monkeypatch.setattr(world, "bucket", copy)

    second = task_runner(make(), run_id="second")
    xcom = world.assert_stats_agree(second, world.run_to_end(second, second.execute()))

    assert (xcom["reused"], xcom["cost_usd"], world.accepted()) == (5, 0.0, 5)
    assert [line["uri"] for line in world.manifest()] == [f"s3://{copy}/{PREFIX}{row['id']}" for row in ROWS]


def test_run_reuses_the_images_of_an_unfinished_run(make: Make, task_runner: TaskRunner, world: World) -> None:
    dead = task_runner(make(max_in_flight=2))
    dead.execute()
    dead.resume(dead.fire())

    other = task_runner(make(), run_id="other")
    result = world.run_to_end(other, other.execute())

    assert result.state == "success", other.log_text
    assert world.accepted() == 5
    assert other.xcom()["reused"] > 0
    assert len(world.manifest()) == 5


@pytest.mark.parametrize("if_exists", ["reuse", "overwrite", "fail"])
def test_if_exists_decides_about_stored_images(
    if_exists: str, make: Make, task_runner: TaskRunner, world: World
) -> None:
    first = task_runner(make())
    world.run_to_end(first, first.execute())

    second = task_runner(make(if_exists=if_exists), run_id="second")
    result = world.run_to_end(second, second.execute())

    assert result.state == ("failed" if if_exists == "fail" else "success")
    assert world.accepted() == (10 if if_exists == "overwrite" else 5)
    if if_exists == "overwrite":
        assert second.xcom()["generated"] == 5
        again = world.run_to_end(second, second.retry())
        assert (again.state, second.xcom()["generated"], world.accepted()) == ("success", 5, 10)
        world.run_to_end(second, second.clear())
        assert world.accepted() == 15


def test_identical_rows_share_an_image_only_with_dedupe(make: Make, task_runner: TaskRunner, world: World) -> None:
    rows = [{"id": "a", "prompt": "same"}, {"id": "b", "prompt": "same"}, "other", "other"]
    run = task_runner(make(prompts=rows))
    assert "have the same key" in str(run.execute().error)

    run = task_runner(make(prompts=rows, dedupe=True), run_id="deduped")
    result = world.run_to_end(run, run.execute())

    assert result.state == "success", run.log_text
    assert world.accepted() == 2
    assert (run.xcom()["generated"], run.xcom()["reused"], run.xcom()["cost_usd"]) == (2, 2, 0.1)
    a, b, other, same_other = world.manifest()
    assert (a["sha256"], a["request_id"]) == (b["sha256"], b["request_id"])
    assert a["key"] != b["key"]
    assert other["key"] == same_other["key"]
    assert len(world.keys(PREFIX)) == 4

    separate = task_runner(make(prompts=rows[:2], s3_prefix=f"s3://{world.bucket}/other/"), run_id="separate")
    world.run_to_end(separate, separate.execute())
    assert world.accepted() == 4


def test_asset_event_carries_the_manifest(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(outlets=[Asset("images")]))
    world.run_to_end(run, run.execute())

    [extra] = run.asset_events
    assert extra == run.xcom()
    assert extra["manifest_uri"].endswith("manifest.jsonl")


def test_changed_input_is_planned_again(make: Make, task_runner: TaskRunner, world: World) -> None:
    path = world.put("rows.jsonl", jsonl(ROWS))
    run = task_runner(make(prompts_path=path, max_in_flight=2))
    assert run.execute().state == "deferred"
    world.put("rows.jsonl", jsonl([*ROWS, {"id": "late", "prompt": "a late one"}]))

    world.assert_stats_agree(run, world.run_to_end(run, run.retry()), total=6)

    assert world.accepted() == 6
