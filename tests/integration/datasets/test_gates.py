"""Images that gates reject: what is redone, what is paid, and what is kept."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.datasets.results import PREFIX, ROWS, Make, assert_results_agree, manifest
from tests.integration.datasets.test_kill_points import kill
from tests.support import gates
from tests.support.gates import SCRIPTED, forgotten_gates

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.task_runner import Slice, TaskRun, TaskRunner
    from tests.support.world import World

__all__ = ["forgotten_gates"]  # the fixture is used in each test


def plant_blanks(world: World, number: int, times: int | None = 1) -> None:
    """Let the next images of a row be blank."""
    world.emulator.fault("job", "blank", prompt=f"number {number}", times=times)


def agree(world: World, run: TaskRun, result: Slice) -> dict[str, Any]:
    """Check that what is paid is accepted or rejected, each kept as it was received; return the XCom."""
    assert result.state == "success", f"{result.error}\n{run.log_text[-3000:]}"
    lines, xcom = manifest(world), run.xcom()
    attempts = [attempt for line in lines for attempt in line["rejected_attempts"]]
    paid = [line["request_id"] for line in lines if line["uri"]] + [attempt["request_id"] for attempt in attempts]
    assert sorted(paid) == sorted(charge.request_id for charge in world.emulator.charges())
    assert (
        xcom["cost_usd"] == pytest.approx(sum(line["cost_usd"] for line in lines)) == pytest.approx(world.charged_usd)
    )
    for kept in [line for line in lines if line["uri"]] + attempts:
        bucket, _, key = kept["uri"].removeprefix("s3://").partition("/")
        body = world.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        assert body == world.emulator.image_bytes(kept["request_id"])
    return xcom  # type: ignore[no-any-return]


def test_rejected_images_are_redone_and_a_further_run_pays_none(
    make: Make, task_runner: TaskRunner, world: World
) -> None:
    plant_blanks(world, 1)
    plant_blanks(world, 3, times=2)
    run = task_runner(make(gates={"blank": "redo"}))
    xcom = agree(world, run, world.to_end(run, run.execute()))

    assert (xcom["generated"], xcom["rejected"], world.accepted) == (5, 0, 8)
    lines = manifest(world)
    assert [len(line["rejected_attempts"]) for line in lines] == [0, 1, 0, 2, 0]
    assert {line["gates"][0] for line in lines} == {"blank"}
    first, second = lines[3]["rejected_attempts"]
    assert (first["attempt"], first["gate"], first["reason"], first["cost_usd"]) == (
        1,
        "blank",
        "it is near-uniform",
        0.05,
    )
    assert len({first["seed"], second["seed"], lines[3]["seed"]}) == 3
    assert lines[3]["cost_usd"] == pytest.approx(0.15)

    again = task_runner(make(gates={"blank": "redo"}), run_id="again")
    assert world.to_end(again, again.execute()).state == "success"
    assert (again.xcom()["reused"], again.xcom()["cost_usd"], world.accepted) == (5, 0.0, 8)
    assert [attempt["cost_usd"] for line in manifest(world) for attempt in line["rejected_attempts"]] == [0.0] * 3


def test_item_without_an_accepted_image_fails_for_good(make: Make, task_runner: TaskRunner, world: World) -> None:
    plant_blanks(world, 2, times=None)
    run = task_runner(make(gates={"blank": "redo"}, max_attempts=2))
    result = world.to_end(run, run.execute())

    assert (result.state, world.accepted) == ("failed", 6)
    assert "1 of 5 items have no image" in str(result.error)
    assert "Gate 'blank' rejected the image of request" in str(result.error)
    [line] = [line for line in manifest(world) if line["status"] == "rejected"]
    assert (line["uri"], len(line["rejected_attempts"]), line["cost_usd"]) == (None, 2, 0.1)
    assert len(world.object_keys(PREFIX)) == 5  # four images and the manifest

    # After a clear, and in another run, the images are checked again; only a further attempt is paid.
    for cleared, attempts in ((run, 2), (task_runner(make(gates={"blank": "redo"}, max_attempts=3), run_id="more"), 3)):
        result = world.to_end(cleared, cleared.clear() if cleared is run else cleared.execute())
        assert (result.state, world.accepted) == ("failed", 4 + attempts)
    assert [len(line["rejected_attempts"]) for line in manifest(world)] == [0, 0, 3, 0, 0]


def test_images_that_a_changed_gate_accepts_are_not_paid_again(
    make: Make, task_runner: TaskRunner, world: World
) -> None:
    gates.verdicts[:] = [False] * 5
    run = task_runner(make(gates={SCRIPTED: "fail"}, max_failures=5))
    xcom = agree(world, run, world.to_end(run, run.execute()))
    assert (xcom["rejected"], xcom["generated"], world.object_keys(PREFIX)) == (5, 0, [f"{PREFIX}manifest.jsonl"])
    assert {line["error"].partition(": ")[2].partition(".")[0] for line in manifest(world)} == {"it returned False"}

    again = task_runner(make(gates={SCRIPTED: "fail"}), run_id="again")
    assert world.to_end(again, again.execute()).state == "success"
    assert (again.xcom()["reused"], again.xcom()["cost_usd"], world.accepted) == (5, 0.0, 5)
    assert [line["rejected_attempts"] for line in manifest(world)] == [[]] * 5
    assert len(world.object_keys(PREFIX)) == 6


def test_gate_gets_the_image_and_its_item_one_at_a_time(make: Make, task_runner: TaskRunner, world: World) -> None:
    gates.verdicts[:] = ["it has six fingers"]
    run = task_runner(make(gates={"blank": "fail", SCRIPTED: "redo"}, resolution="512x1536"))
    agree(world, run, world.to_end(run, run.execute()))

    assert len(gates.calls) == 6
    assert {(size, mode) for size, mode, *_ in gates.calls} == {((512, 1536), "RGB")}
    told = {(item["id"], item["attempt"]): item for _, _, item, _ in gates.calls}
    [line] = [line for line in manifest(world) if line["rejected_attempts"]]
    again = told[line["id"], 2]
    assert (again["prompt"], again["seed"], again["key"]) == (line["prompt"], line["seed"], line["key"])
    assert line["rejected_attempts"][0]["reason"] == "it has six fingers"


def test_gate_that_raises_costs_no_image(make: Make, task_runner: TaskRunner, world: World) -> None:
    gates.verdicts[:] = [ZeroDivisionError("no sharpness"), None]
    run = task_runner(make(gates={SCRIPTED: "redo"}))
    result = world.to_end(run, run.execute())
    assert result.state == "up_for_retry"
    assert f"Gate '{SCRIPTED}' raised ZeroDivisionError: no sharpness on the image of request" in str(result.error)
    assert "a gate returns True, False or the reason of a rejection, not None" in str(result.error)
    assert [line["status"] for line in manifest(world)].count("failed") == 2

    agree(world, run, world.to_end(run, run.retry()))
    assert world.accepted == 5


def test_gate_that_can_not_be_imported_costs_nothing(make: Make, task_runner: TaskRunner, world: World) -> None:
    names = {"tests.support.gates.missing": "fail", "tests.support.gates.not_a_function": "fail"}
    error = str(task_runner(make(gates=names)).execute().error)
    assert "gates: 'tests.support.gates.missing' can't be imported on this worker: ImportError" in error
    assert "TypeError: it is not a function" in error
    assert world.accepted == 0


def test_gates_check_what_earlier_runs_stored(make: Make, task_runner: TaskRunner, world: World) -> None:
    plant_blanks(world, 1)
    first = task_runner(make())
    assert_results_agree(world, first, world.to_end(first, first.execute()))
    run = task_runner(make(gates={"blank": "redo"}), run_id="checked")
    assert world.to_end(run, run.execute()).state == "success"

    assert (run.xcom()["reused"], run.xcom()["generated"], run.xcom()["cost_usd"], world.accepted) == (4, 1, 0.05, 6)
    line = manifest(world)[1]
    assert (line["status"], line["cost_usd"], line["rejected_attempts"][0]["cost_usd"]) == ("generated", 0.05, 0.0)


def test_redone_images_count_in_the_budget(make: Make, task_runner: TaskRunner, world: World) -> None:
    plant_blanks(world, 0, times=None)
    run = task_runner(make(gates={"blank": "redo"}, max_attempts=20, max_cost_usd=0.35, max_in_flight=2))
    result = world.to_end(run, run.execute())
    assert result.state == "failed"
    assert "max_cost_usd=0.35 is reached" in str(result.error)
    assert world.charged_usd == pytest.approx(0.35)


def test_gates_that_reject_everything_stop_the_run(
    make: Make, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_ideogram.datasets.state.MAX_SAME_FAILURES", 3)
    world.emulator.fault("job", "blank", times=None)
    run = task_runner(make(gates={"blank": "redo"}, max_attempts=20, max_in_flight=1))
    result = world.to_end(run, run.execute())
    assert (result.state, world.accepted) == ("failed", 3)
    assert "The last 3 items failed for the same reason" in str(result.error)


@pytest.mark.parametrize(("slice_", "number"), [(1, 6), (1, 11), (1, 17), (2, 5), (2, 11)])
def test_worker_that_is_killed_pays_no_attempt_twice(
    slice_: int, number: int, make: Make, task_runner: TaskRunner, world: World
) -> None:
    plant_blanks(world, 0)
    plant_blanks(world, 1, times=2)
    run = task_runner(make(prompts=ROWS[:2], gates={"blank": "redo"}, on_unknown_submit="resubmit"))
    act: Callable[[], Slice] = run.execute
    for _ in range(slice_):
        assert act().state == "deferred"
        act = partial(run.resume, run.fire())

    assert kill(act, number, ("before", "after")[number % 2])
    world.pass_time(1)
    agree(world, run, world.to_end(run, run.retry()))

    assert world.accepted == 5
    assert [len(line["rejected_attempts"]) for line in manifest(world)] == [1, 2]
