"""Requests whose record at the vendor is gone: the account's history has their images, and nothing is paid again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.datasets.results import ROWS, Make, assert_results_agree, manifest
from tests.support.world import DAY, HOUR

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRunner
    from tests.support.world import World


@pytest.mark.parametrize(
    ("items", "seconds"), [(5, HOUR + 60), (5, DAY), (100, 6 * DAY)], ids=["61 minutes", "a day", "six days"]
)
def test_images_are_recovered_after_the_hour(
    items: int, seconds: float, make: Make, task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(make(prompts=[f"p {number}" for number in range(items)], max_in_flight=items, max_cost_usd=5))
    assert run.execute().state == "deferred"
    while world.accepted < items:
        assert run.resume(run.fire()).state == "deferred"
    event = run.fire()
    world.pass_time(seconds)

    xcom = assert_results_agree(world, run, world.to_end(run, run.resume(event)), total=items)

    assert (world.accepted, xcom["generated"], xcom["cost_usd"]) == (items, items, pytest.approx(0.05 * items))


def test_request_missing_in_a_late_history_is_recovered_later(
    make: Make, task_runner: TaskRunner, world: World
) -> None:
    world.emulator.configure(history_lag_seconds=2 * HOUR)
    run = task_runner(make(prompts=ROWS[:2]))
    run.execute()
    event = run.fire()
    world.pass_time(HOUR + 60)
    assert world.to_end(run, run.resume(event)).state == "up_for_retry"
    assert [(line["status"], line["cost_usd"]) for line in manifest(world)] == [("failed", 0.05)] * 2
    assert "does not show it" in manifest(world)[0]["error"]
    world.pass_time(HOUR)

    assert_results_agree(world, run, world.to_end(run, run.retry()), total=2)

    assert world.accepted == 2


def test_missing_file_is_expired_and_submitted_again(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(prompts=ROWS[:1]))
    run.execute()
    event = run.fire()
    world.pass_time(8 * DAY)

    assert world.to_end(run, run.resume(event)).state == "up_for_retry"
    assert [(line["status"], line["cost_usd"]) for line in manifest(world)] == [("expired", 0.05)]

    assert world.to_end(run, run.retry()).state == "success"
    assert (world.accepted, run.xcom()["cost_usd"]) == (2, 0.1)


def test_request_that_is_late_by_hours_is_waited_for(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.configure(job_seconds=2 * HOUR)
    run = task_runner(make(prompts=ROWS[:2], timeout=3 * HOUR))
    result = run.execute()
    world.pass_time(HOUR + 60)
    result = run.resume(run.fire())
    assert result.state == "deferred"
    assert run.trigger().requests == {}  # type: ignore[attr-defined]
    world.pass_time(HOUR)

    assert_results_agree(world, run, world.to_end(run, result), total=2)

    assert world.accepted == 2
