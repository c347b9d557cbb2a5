"""Items that fail: what that means for the other items, for the task, and for a retry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.jobs.reconciliation import HISTORY_LAG
from tests.integration.datasets.world import PREFIX, ROWS

if TYPE_CHECKING:
    from tests.integration.datasets.world import Make, World
    from tests.support.task_runner import TaskRunner


MIXED = (*ROWS[:3], {"id": "bad", "prompt": "x [[fault:blocked]]"}, {"id": "down", "prompt": "y [[fault:failed]]"})


@pytest.mark.parametrize("retries", [3, 0], ids=["cleared", "cleared with fewer retries"])
def test_failed_items_stop_no_others_and_fail_the_task(
    retries: int, make: Make, task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(make(prompts=list(MIXED)))

    result = world.run_to_end(run, run.execute())

    assert result.state == "up_for_retry"
    assert "2 of 5 items have no image" in str(result.error)
    assert run.xcom("progress")["manifest_uri"] == f"s3://{world.bucket}/{PREFIX}manifest.jsonl"
    assert [line["status"] for line in world.manifest()] == [*["generated"] * 3, "content_blocked", "failed"]
    assert "violates the content policy" in world.manifest()[3]["error"]
    assert world.accepted() == 5

    result = world.run_to_end(run, run.retry())  # failed items are submitted again, blocked ones are not

    assert world.accepted() == 6
    run.operator.retries = retries
    world.run_to_end(run, run.clear())
    assert world.accepted() == 8


@pytest.mark.parametrize(
    ("allowed", "state"), [(1, "up_for_retry"), (2, "success"), (0.4, "success"), (0.39, "up_for_retry")]
)
def test_max_failures_permits_failed_items(
    allowed: float, state: str, make: Make, task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(make(prompts=list(MIXED), max_failures=allowed))
    assert world.run_to_end(run, run.execute()).state == state
    if state == "success":
        assert (run.xcom()["content_blocked"], run.xcom()["failed"], run.xcom()["generated"]) == (1, 1, 3)
        assert run.xcom()["cost_usd"] == 0.15
        assert world.keys("_ideogram/") == []


def test_only_blocked_items_fail_the_task_without_a_retry(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(prompts=list(MIXED[:4])))
    result = world.run_to_end(run, run.execute())
    assert result.state == "failed"
    assert "A retry would be blocked again" in str(result.error)


@pytest.mark.parametrize("if_exists", ["reuse", "overwrite", "fail"])
def test_retry_attempts_only_failed_items(if_exists: str, make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("job", "failed", prompt="number 3")
    run = task_runner(make(if_exists=if_exists, max_in_flight=2))
    assert world.run_to_end(run, run.execute()).state == "up_for_retry"

    result = world.run_to_end(run, run.retry())

    assert result.state == "success", run.log_text
    assert world.accepted() == 6
    assert (run.xcom()["generated"], run.xcom()["cost_usd"]) == (5, 0.25)
    assert [line["status"] for line in world.manifest()] == ["generated"] * 5


def test_retry_fetches_an_invalid_image_again_without_paying(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("image", "not_image", times=8)
    run = task_runner(make(prompts=ROWS[:1]))
    assert world.run_to_end(run, run.execute()).state == "up_for_retry"
    assert "is not a complete image" in world.manifest()[0]["error"]
    world.emulator.clear_faults()

    xcom = world.assert_stats_agree(run, world.run_to_end(run, run.retry()), total=1)

    assert (world.accepted(), xcom["cost_usd"]) == (1, 0.05)


def test_retry_reattaches_to_a_request_that_timed_out(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("job", "job_seconds", seconds=900.0, prompt="number 0")
    run = task_runner(make(prompts=ROWS[:2]))
    result = run.execute()
    while result.state == "deferred":
        world.advance(601)
        result = run.resume(run.fire())
    assert result.state == "up_for_retry"
    assert "was not done in time" in world.manifest()[0]["error"]
    world.advance(600)

    xcom = world.assert_stats_agree(run, world.run_to_end(run, run.retry()), total=2)

    assert (world.accepted(), xcom["cost_usd"]) == (2, 0.1)


@pytest.mark.parametrize("kind", ["credits_402", "credits_406", "spend_limit", "model_forbidden", "model_retired"])
def test_error_of_all_items_stops_the_submits(kind: str, make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(prompts=[f"p {n}" for n in range(30)], max_in_flight=10))
    assert run.execute().state == "deferred"
    world.emulator.fault("submit", kind, times=None)

    result = world.run_to_end(run, run.resume(run.fire()))

    assert result.state == "failed"
    paid = world.accepted()
    world.emulator.clear_faults()
    xcom = world.assert_stats_agree(run, world.run_to_end(run, run.clear()), total=30)
    assert paid < 30
    assert xcom["cost_usd"] == 1.5
    assert world.accepted() == 30


def test_refused_parameter_fails_its_item_only(make: Make, task_runner: TaskRunner, world: World) -> None:
    rows = [f"p {number}" for number in range(99)]
    run = task_runner(make(prompts=[*rows, "bad [[fault:parameter-refused]]"], max_failures=1))

    assert world.run_to_end(run, run.execute()).state == "success"

    assert (run.xcom()["generated"], run.xcom()["failed"]) == (99, 1)
    assert run.xcom()["cost_usd"] == pytest.approx(world.emulator.stats().charged_usd)


def test_equal_failures_stop_the_submits(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("job", "failed", times=None)
    run = task_runner(make(prompts=[f"p {n}" for n in range(60)], max_in_flight=10, max_failures=1000))

    result = world.run_to_end(run, run.execute())

    assert result.state == "failed"
    assert "items failed for the same reason" in str(result.error)
    assert 20 <= world.accepted() <= 40
    world.emulator.clear_faults()
    result = world.run_to_end(run, run.clear())
    assert result.state == "success", run.log_text
    assert run.xcom()["generated"] == 60


@pytest.mark.parametrize("when", ["before", "after"])
def test_submits_without_a_response_are_searched_for(
    when: str, make: Make, task_runner: TaskRunner, world: World
) -> None:
    world.emulator.fault("submit", "reset", when=when, times=2)
    run = task_runner(make())

    result = world.run_to_end(run, run.execute())

    if when == "after":
        world.assert_stats_agree(run, result)
        return
    assert result.state == "up_for_retry"
    assert "may have been accepted" in str(result.error)
    assert world.accepted() == 3
    world.advance(HISTORY_LAG)
    assert world.run_to_end(run, run.retry()).state == "up_for_retry"
    assert world.accepted() == 3
    world.assert_stats_agree(run, world.run_to_end(run, run.clear()))
