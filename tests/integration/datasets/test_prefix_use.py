"""Several tasks at one prefix: none of them pays twice, and no manifest disappears unseen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.exceptions import IdeogramTargetBusy
from tests.integration.datasets.results import PREFIX, Make, assert_results_agree, manifest

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRunner
    from tests.support.world import World

OWN_PREFIX = "Give each task a prefix of its own, of mapped tasks for example with {{ ti.map_index }}"


@pytest.mark.parametrize("is_done", [False, True])
def test_second_task_of_a_run_is_refused(is_done: bool, make: Make, task_runner: TaskRunner, world: World) -> None:
    first = task_runner(make())
    result = first.execute()
    if is_done:
        assert world.to_end(first, result).state == "success"
    accepted = world.accepted

    for second in (
        task_runner(make(task_id="other", prompts=["a cat"])),
        task_runner(make(prompts=["a cat"]), map_index=1),
    ):
        result = second.execute()
        assert result.state == "failed"
        assert f"of the same DAG run has the prefix s3://{world.bucket}/{PREFIX}, too. {OWN_PREFIX}" in str(
            result.error
        )
    assert world.accepted == accepted

    if not is_done:
        assert_results_agree(world, first, world.to_end(first, first.resume(first.fire())))
    assert [line["id"] for line in manifest(world)] == [f"item-{number}" for number in range(5)]


def test_task_of_another_run_waits_for_the_one_at_work(make: Make, task_runner: TaskRunner, world: World) -> None:
    first = task_runner(make())
    result = first.execute()
    accepted = world.accepted

    second = task_runner(make(), run_id="second")
    refused = second.execute()
    assert refused.state == "up_for_retry"
    assert "'dag_of_the_test/manual__2026-01-02T00:00:00+00:00/make/-1' is at work at s3_prefix" in str(refused.error)
    assert second.xcom("failure")["charged"] is False
    assert world.accepted == accepted

    assert_results_agree(world, first, world.to_end(first, result))
    xcom = assert_results_agree(world, second, world.to_end(second, second.retry()))
    assert (xcom["reused"], world.accepted) == (5, 5)


def test_task_that_waits_for_a_retry_is_not_at_work(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("job", "failed", prompt="number 3")
    first = task_runner(make())
    assert world.to_end(first, first.execute()).state == "up_for_retry"

    second = task_runner(make(), run_id="second")

    assert world.to_end(second, second.execute()).state == "success", second.log_text
    assert (second.xcom()["reused"], second.xcom()["generated"]) == (4, 1)
    assert world.to_end(first, first.retry()).state == "success", first.log_text
    assert len(world.emulator.charges()) == 5


def test_manifest_of_another_task_is_not_replaced_unseen(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make())
    result = run.execute()
    world.put(f"{PREFIX}manifest.jsonl", b'{"written by": "another task"}\n')

    result = world.to_end(run, result)

    assert result.state == "up_for_retry"
    assert isinstance(result.error, IdeogramTargetBusy)
    assert f"Another task has written s3://{world.bucket}/{PREFIX}manifest.jsonl" in str(result.error)
    assert world.stored(f"{PREFIX}manifest.jsonl") == b'{"written by": "another task"}\n'
    assert_results_agree(world, run, world.to_end(run, run.retry()))
    assert world.accepted == 5
