"""A run that continues with another input, without its state or without a part of its lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.datasets.results import ROWS, Make, assert_results_agree, json_lines
from tests.support.world import HOUR

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRunner
    from tests.support.world import World


def test_changed_input_is_planned_anew(make: Make, task_runner: TaskRunner, world: World) -> None:
    path = world.put("rows.jsonl", json_lines(ROWS))
    run = task_runner(make(prompts_path=path, max_in_flight=2))
    assert run.execute().state == "deferred"
    world.put("rows.jsonl", json_lines([*ROWS, {"id": "late", "prompt": "a late one"}]))

    assert_results_agree(world, run, world.to_end(run, run.retry()), total=6)

    assert world.accepted == 6


def test_state_that_is_gone_or_broken(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(max_in_flight=2))
    run.execute()
    event = run.fire()
    [state] = [key for key in world.object_keys("_ideogram/") if key.endswith("state.json")]
    kept = world.s3.get_object(Bucket=world.bucket, Key=state)["Body"].read()
    world.s3.delete_object(Bucket=world.bucket, Key=state)
    assert "was removed while the task waited" in str(run.resume(event).error)

    for broken in (b"not json", b"[]", b'{"version": 99}', kept.replace(b'"todo_chunks"', b'"chunks"')):
        world.s3.put_object(Bucket=world.bucket, Key=state, Body=broken)
        assert "can't be understood" in str(run.retry().error)
    world.s3.delete_object(Bucket=world.bucket, Key=state)

    assert_results_agree(world, run, world.to_end(run, run.clear()))
    assert world.accepted == 5


def test_removed_part_is_written_again(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(max_in_flight=2))
    result = run.resume((run.execute(), run.fire())[1])
    [part] = [key for key in world.object_keys("_ideogram/") if "/part-" in key]
    world.s3.delete_object(Bucket=world.bucket, Key=part)
    result = world.to_end(run, result)
    assert "has no line of row" in str(result.error)

    assert_results_agree(world, run, world.to_end(run, run.retry()))
    assert world.accepted == 5


@pytest.mark.parametrize("if_exists", ["reuse", "overwrite", "fail"])
def test_cleared_task_with_a_mended_row_keeps_its_images(
    if_exists: str, make: Make, task_runner: TaskRunner, world: World
) -> None:
    bad = {"id": "bad", "prompt": "x [[fault:blocked]]"}
    path = world.put("rows.jsonl", json_lines([*ROWS, bad]))
    run = task_runner(make(prompts_path=path, if_exists=if_exists, max_cost_usd=0.3))
    assert world.to_end(run, run.execute()).state == "failed"
    world.put("rows.jsonl", json_lines([*ROWS, bad | {"prompt": "mended"}]))

    assert world.to_end(run, run.clear()).state == "success"

    xcom = run.xcom()
    assert (world.accepted, xcom["generated"], xcom["cost_usd"]) == (7, 6, pytest.approx(0.3))


@pytest.mark.parametrize("if_exists", ["overwrite", "fail"])
def test_changed_row_replaces_the_runs_own_image(
    if_exists: str, make: Make, task_runner: TaskRunner, world: World
) -> None:
    bad = {"id": "bad", "prompt": "x [[fault:blocked]]"}
    path = world.put("rows.jsonl", json_lines([*ROWS, bad]))
    run = task_runner(make(prompts_path=path, if_exists=if_exists))
    assert world.to_end(run, run.execute()).state == "failed"
    world.put("rows.jsonl", json_lines([*ROWS[:4], ROWS[4] | {"prompt": "another"}]))

    assert world.to_end(run, run.clear()).state == "success"

    assert (run.xcom()["generated"], run.xcom()["cost_usd"], world.accepted) == (5, pytest.approx(0.3), 7)


def test_interrupted_retry_plans_no_item_twice(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("job", "failed", times=2)
    rows = [{"id": "bad", "prompt": "x [[fault:blocked]]"}, *ROWS[:3]]
    run = task_runner(make(prompts=rows, max_in_flight=1, max_failures=1))
    assert world.to_end(run, run.execute()).state == "up_for_retry"
    assert run.retry().state == "deferred"  # one of the two is in flight, the other waits

    assert world.to_end(run, run.retry()).state == "success"

    xcom = run.xcom()
    assert (xcom["generated"], xcom["failed"], xcom["content_blocked"]) == (3, 0, 1)
    assert [xcom["cost_usd"], world.charged_usd] == pytest.approx([0.15, 0.15])
    assert world.accepted == 6


def test_time_between_attempts_is_not_counted(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("job", "failed", times=1)
    run = task_runner(make())
    assert world.to_end(run, run.execute()).state == "up_for_retry"
    world.pass_time(HOUR)

    assert world.to_end(run, run.retry()).state == "success"

    assert run.xcom()["seconds"] < 60
    assert run.xcom("progress")["images_per_minute"] > 10


def test_missing_file_of_prompts_fails_without_a_retry(make: Make, task_runner: TaskRunner, world: World) -> None:
    result = task_runner(make(prompts_path=world.uri("rows.jsonl"))).execute()

    assert result.state == "failed"
    assert f"prompts_path: '{world.uri('rows.jsonl')}' does not exist" in str(result.error)


def test_missing_chunk_is_planned_again(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(max_in_flight=2))
    run.execute()
    event = run.fire()
    [chunk] = [key for key in world.object_keys("_ideogram/") if "/todo-" in key]
    world.s3.delete_object(Bucket=world.bucket, Key=chunk)
    result = world.to_end(run, run.resume(event))
    assert (result.state, "is missing" in str(result.error)) == ("up_for_retry", True)

    assert_results_agree(world, run, world.to_end(run, run.retry()))
    assert world.accepted == 5


def test_state_of_a_slice_before_the_end_ends_no_later_attempt(
    make: Make, task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(make(max_in_flight=2))
    result = run.execute()
    [state] = [key for key in world.object_keys("_ideogram/") if key.endswith("state.json")]
    stale = world.stored(state)
    assert world.to_end(run, result).state == "success"
    world.put(state, stale)  # as by a store without conditional writes

    assert world.to_end(run, run.clear()).state == "up_for_retry"
    assert world.to_end(run, run.retry()).state == "success"
    assert (world.accepted, world.object_keys("_ideogram/")) == (5, [])


def test_retry_after_an_unseen_success_reports_the_same(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make())
    assert world.to_end(run, run.execute()).state == "success"

    xcom = assert_results_agree(world, run, world.to_end(run, run.retry()))

    assert (xcom["generated"], xcom["cost_usd"], world.accepted) == (5, 0.25, 5)


def test_changed_input_after_a_dead_slice_counts_its_images(make: Make, task_runner: TaskRunner, world: World) -> None:
    path = world.put("rows.jsonl", json_lines(ROWS))
    run = task_runner(make(prompts_path=path, max_in_flight=2))
    run.execute()
    event = run.fire()
    kept = {key: world.stored(key) for key in world.object_keys("_ideogram/") if key.endswith(".json")}
    assert len(kept) == 3
    run.resume(event)
    for key, body in kept.items():  # the slice has stored two images, and died before it wrote its state
        world.put(key, body)
    world.put("rows.jsonl", json_lines([*ROWS, {"id": "late", "prompt": "a late one"}]))

    xcom = assert_results_agree(world, run, world.to_end(run, run.retry()), total=6)

    assert (xcom["cost_usd"], world.accepted) == (pytest.approx(world.charged_usd), 6)
    assert not [key for key in world.object_keys("_ideogram/") if key.endswith(".json")]
