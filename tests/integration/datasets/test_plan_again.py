"""A run that is planned again, or cleared: nothing is paid again, and its cost stays what the vendor charged."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.integration.datasets.results import PREFIX, ROWS, Make, assert_results_agree, json_lines, manifest
from tests.integration.datasets.test_gates import agree, forgotten_gates, plant_blanks
from tests.support import gates
from tests.support.gates import SCRIPTED
from tests.support.world import assert_error, assert_succeeded

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRun, TaskRunner
    from tests.support.world import World

__all__ = ["forgotten_gates"]  # the fixture is used in each test
LATE = {"id": "late", "prompt": "a late one"}
BLOCKED = {"id": "bad", "prompt": "x [[fault:blocked]]"}
MENDED = {"id": "bad", "prompt": "mended"}
CLEAR = "clear the task to submit and pay for a new one"


def workspace_keys(world: World, name: str) -> list[str]:
    """Return the keys of the run's own objects whose names begin with a text."""
    return [key for key in world.object_keys("_ideogram/") if f"/{name}" in key]


def change_rows(world: World, _: TaskRun) -> None:
    """Add a row to the input."""
    world.put("rows.jsonl", json_lines([*ROWS, LATE]))


def remove_chunk(world: World, run: TaskRun) -> None:
    """Remove a part of the plan while the task waits."""
    event = run.fire()
    [chunk] = workspace_keys(world, "todo-")
    world.s3.delete_object(Bucket=world.bucket, Key=chunk)
    assert_error(run.resume(event), "is missing")


@pytest.mark.parametrize("disturb", [change_rows, remove_chunk])
def test_requests_in_flight_are_not_paid_again_without_a_ledger(
    disturb: Callable[[World, TaskRun], None], make: Make, task_runner: TaskRunner, world: World
) -> None:
    world.emulator.fault("job", "job_seconds", seconds=900.0, prompt="number 0")
    path = world.put("rows.jsonl", json_lines(ROWS))
    run = task_runner(make(prompts_path=path, durable=False, max_in_flight=2))
    assert run.execute().state == "deferred"
    disturb(world, run)

    result = run.retry()

    assert (result.state, world.accepted) == ("failed", 2)
    assert_error(result, "while its requests may be charged", CLEAR)
    assert_succeeded(world.to_end(run, run.clear()))
    assert world.accepted > len(ROWS)  # what was in flight is paid again


def test_timed_out_request_is_not_paid_again_without_a_ledger(
    make: Make, task_runner: TaskRunner, world: World
) -> None:
    world.emulator.fault("job", "job_seconds", seconds=900.0, prompt="number 0")
    path = world.put("rows.jsonl", json_lines(ROWS[:2]))
    run = task_runner(make(prompts_path=path, durable=False))
    result = run.execute()
    while result.state == "deferred":
        world.pass_time(601)
        result = run.resume(run.fire())
    assert result.state == "up_for_retry"
    change_rows(world, run)

    result = run.retry()

    assert (result.state, world.accepted) == ("failed", 2)
    assert_error(result, CLEAR)
    assert run.xcom("failure")["charged"] is True  # the other image


def test_state_that_is_removed_is_the_end_without_a_ledger(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(durable=False, max_in_flight=2))
    run.execute()
    event = run.fire()
    [state] = workspace_keys(world, "state.json")
    world.s3.delete_object(Bucket=world.bucket, Key=state)

    result = run.resume(event)

    assert result.state == "failed"
    assert_error(result, "was removed while the task waited", CLEAR)


@pytest.mark.parametrize("if_exists", ["reuse", "overwrite", "fail"])
@pytest.mark.parametrize("corrected", [{SCRIPTED: "fail"}, {"blank": "fail"}], ids=["same gates", "other gates"])
def test_cleared_run_does_not_pay_its_rejected_images_again(
    corrected: dict[str, str], if_exists: str, make: Make, task_runner: TaskRunner, world: World
) -> None:
    gates.verdicts[:] = [False] * 5
    run = task_runner(make(gates={SCRIPTED: "fail"}, if_exists=if_exists))
    assert world.to_end(run, run.execute()).state == "failed"
    run.operator.gates = corrected

    assert_succeeded(world.to_end(run, run.clear()))

    assert (world.accepted, run.xcom()["cost_usd"]) == (5, pytest.approx(0.25))
    assert [line["cost_usd"] for line in manifest(world)] == [0.05] * 5


@pytest.mark.parametrize("if_exists", ["reuse", "overwrite", "fail"])
def test_cleared_run_checks_its_images_by_new_gates(
    if_exists: str, make: Make, task_runner: TaskRunner, world: World
) -> None:
    path = world.put("rows.jsonl", json_lines([*ROWS, BLOCKED]))
    run = task_runner(make(prompts_path=path, if_exists=if_exists))
    assert world.to_end(run, run.execute()).state == "failed"
    world.put("rows.jsonl", json_lines([*ROWS, MENDED]))
    run.operator.gates = {"blank": "redo"}

    xcom = agree(world, run, world.to_end(run, run.clear()))

    assert (xcom["generated"], xcom["cost_usd"], world.accepted) == (6, pytest.approx(0.3), 7)


def test_new_gates_do_not_change_what_rejected_attempts_cost(make: Make, task_runner: TaskRunner, world: World) -> None:
    plant_blanks(world, 1)
    path = world.put("rows.jsonl", json_lines([*ROWS, BLOCKED]))
    run = task_runner(make(prompts_path=path, gates={"blank": "redo"}))
    assert world.to_end(run, run.execute()).state == "failed"
    world.put("rows.jsonl", json_lines([*ROWS, MENDED]))
    run.operator.gates = {"blank": "redo", SCRIPTED: "redo"}

    xcom = agree(world, run, world.to_end(run, run.clear()))

    assert xcom["cost_usd"] == pytest.approx(0.35)


def test_rejected_attempt_of_an_undecided_item_keeps_its_cost(
    make: Make, task_runner: TaskRunner, world: World
) -> None:
    plant_blanks(world, 0)
    path = world.put("rows.jsonl", json_lines(ROWS))
    run = task_runner(make(prompts_path=path, gates={"blank": "redo"}, max_in_flight=1))
    run.execute()
    assert run.resume(run.fire()).state == "deferred"  # the second attempt is in flight
    change_rows(world, run)

    xcom = agree(world, run, world.to_end(run, run.retry()))

    assert (xcom["cost_usd"], world.accepted) == (pytest.approx(0.35), 7)


def test_slice_that_died_after_a_second_attempt_is_counted_once(
    make: Make, task_runner: TaskRunner, world: World
) -> None:
    plant_blanks(world, 0)
    path = world.put("rows.jsonl", json_lines(ROWS))
    run = task_runner(make(prompts_path=path, gates={"blank": "redo"}, max_in_flight=2))
    run.execute()
    assert run.resume(run.fire()).state == "deferred"
    event = run.fire()
    kept = {key: world.stored(key) for key in world.object_keys("_ideogram/") if key.endswith(".json")}
    run.resume(event)
    for key, body in kept.items():  # the slice has stored its images, and died before it wrote its state
        world.put(key, body)
    change_rows(world, run)

    agree(world, run, world.to_end(run, run.retry()))


def test_image_fetched_after_a_part_was_lost_is_counted(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("image", "not_image", prompt="number 0", times=None)
    run = task_runner(make(prompts=ROWS[:3], max_in_flight=2))
    result = run.execute()
    while not workspace_keys(world, "part-"):
        result = run.resume(run.fire())
    for part in workspace_keys(world, "part-"):
        world.s3.delete_object(Bucket=world.bucket, Key=part)
    assert "has no line of row" in str(world.to_end(run, result).error)
    world.emulator.clear_faults()

    xcom = assert_results_agree(world, run, world.to_end(run, run.retry()), total=3)

    assert (xcom["cost_usd"], world.accepted) == (pytest.approx(0.15), 3)


def test_charged_image_that_is_waited_for_again_is_counted_once(
    make: Make, task_runner: TaskRunner, world: World
) -> None:
    world.emulator.fault("image", "not_image", times=None)
    path = world.put("rows.jsonl", json_lines(ROWS[:1]))
    run = task_runner(make(prompts_path=path))
    assert world.to_end(run, run.execute()).state == "up_for_retry"
    assert run.xcom("progress")["cost_usd"] == 0.05
    world.emulator.clear_faults()
    assert run.retry().state == "deferred"
    world.put("rows.jsonl", json_lines([ROWS[0], LATE]))

    xcom = assert_results_agree(world, run, world.to_end(run, run.retry()), total=2)

    assert (xcom["cost_usd"], world.accepted) == (pytest.approx(0.1), 2)


def test_copies_are_not_paid_when_gates_are_added(make: Make, task_runner: TaskRunner, world: World) -> None:
    rows = [{"id": "a", "prompt": "same"}, {"id": "b", "prompt": "same"}, "other", "other"]
    world.emulator.fault("job", "blank", times=2)
    first = task_runner(make(prompts=rows, dedupe=True))
    assert_succeeded(world.to_end(first, first.execute()))

    second = task_runner(make(prompts=rows, dedupe=True, gates={"blank": "redo"}), run_id="second")
    assert_succeeded(world.to_end(second, second.execute()))

    a, b, other, same_other = manifest(world)
    assert (world.accepted, second.xcom()["cost_usd"]) == (4, pytest.approx(0.1))
    assert (a["request_id"], other["request_id"]) == (b["request_id"], same_other["request_id"])
    assert world.stored(f"{PREFIX}a") == world.stored(f"{PREFIX}b")


def test_rejected_image_of_a_manifest_that_is_the_input_is_kept(
    make: Make, task_runner: TaskRunner, world: World
) -> None:
    plant_blanks(world, 0)
    first = task_runner(make(prompts=ROWS[:1], gates={"blank": "redo"}))
    assert_succeeded(world.to_end(first, first.execute()))
    path = world.put("again.jsonl", world.stored(f"{PREFIX}manifest.jsonl"))
    accepted = manifest(world)[0]["request_id"]
    gates.verdicts[:] = [False]

    second = task_runner(make(prompts_path=path, gates={SCRIPTED: "redo"}), run_id="second")
    assert_succeeded(world.to_end(second, second.execute()))

    [line] = manifest(world)
    [attempt] = line["rejected_attempts"]
    assert (attempt["request_id"], world.accepted) == (accepted, 3)
    assert world.stored(attempt["uri"].removeprefix(world.uri(""))) == world.emulator.image_bytes(accepted)
