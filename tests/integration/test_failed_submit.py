"""A submit that is answered 500, 502 or 503: it is sent again once the account's history shows no such request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.exceptions import IdeogramSubmitFailed
from airflow_provider_ideogram.jobs.reconciliation import HISTORY_LAG, MAX_SUBMITS
from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator
from airflow_provider_ideogram.operators import image as image_operator
from tests.support.world import KEY, MINUTE, RECORD_KEY, assert_error, assert_succeeded

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRun, TaskRunner
    from tests.support.world import ImageTask, World

IMAGES = 30
OUTAGE_SECONDS = 60.0


def _run_until_all_end(runs: list[TaskRun], world: World, start_seconds: float, outage_ends: float) -> None:
    """Start the tasks over some time, and resume each when its wait ends, as Airflow does."""
    now = world.clock()
    due = [(now + start_seconds * index / len(runs), run) for index, run in enumerate(runs)]
    while due:
        due.sort(key=lambda item: item[0])
        at, run = due.pop(0)
        world.pass_time(max(at - world.clock(), 0.0))
        if world.clock() >= outage_ends:
            world.emulator.clear_faults()
        result = run.resume(run.fire()) if run.state == "deferred" else run.execute()
        if result.state == "deferred":
            assert run.deferral is not None
            trigger = run.deferral["trigger_kwargs"]
            due.append((world.clock() + 1.0 if trigger["requests"] else trigger["deadline"], run))


def test_30_mapped_images_survive_a_minute_of_502(
    task_runner: TaskRunner, ideogram_connection: str, world: World
) -> None:
    world.emulator.configure(history_lag_seconds=30)
    world.emulator.fault("submit", "error", status=502, when="after", times=None, probability=0.3)
    world.emulator.fault("submit", "error", status=502, times=None)
    mapped = IdeogramGenerateImageOperator.partial(
        task_id="generate", s3_key=world.uri("night/{{ ti.map_index }}.png"), retries=2
    ).expand(prompt=[f"lighthouse {number}" for number in range(IMAGES)])
    runs = [task_runner(mapped, map_index=index) for index in range(IMAGES)]

    _run_until_all_end(runs, world, OUTAGE_SECONDS / 2, outage_ends=world.clock() + OUTAGE_SECONDS)

    assert [run.state for run in runs] == ["success"] * IMAGES
    stats = world.emulator.stats()
    assert (stats.accepted, stats.charges) == (IMAGES, IMAGES)
    assert IMAGES < stats.calls["submit"] < 2 * IMAGES  # some of the 502s hid an accepted submit
    assert sorted(world.object_keys()) == sorted(f"night/{index}.png" for index in range(IMAGES))
    assert sum(run.xcom()["cost_usd"] for run in runs) == pytest.approx(IMAGES * 0.05)


@pytest.mark.parametrize("status", [500, 502, 503])
def test_waits_for_the_history_and_submits_again(status: int, image_task: ImageTask, world: World) -> None:
    world.emulator.fault("submit", "error", status=status)
    run = image_task()
    before = world.clock()

    assert run.execute().state == "deferred"

    assert run.deferral is not None
    assert run.deferral["trigger_kwargs"]["deadline"] >= before + HISTORY_LAG
    assert f"HTTP {status}" in run.log_text
    world.pass_time(run.deferral["trigger_kwargs"]["deadline"] - world.clock())
    assert_succeeded(world.to_end(run, run.resume(run.fire())))
    assert (world.accepted, world.submits) == (1, 2)
    assert world.object_keys() == [KEY]


def test_request_that_the_history_shows_is_adopted(image_task: ImageTask, world: World) -> None:
    world.emulator.configure(history_lag_seconds=MINUTE)
    world.emulator.fault("submit", "error", status=502, when="after")
    run = image_task()

    assert_succeeded(world.run(run))

    assert (world.accepted, world.submits) == (1, 1)
    assert run.xcom()["cost_usd"] == 0.05


def test_three_submits_are_sent_at_most(image_task: ImageTask, world: World) -> None:
    world.emulator.fault("submit", "error", status=503, times=None)
    run = image_task(retries=2)

    result = world.run(run)
    for _ in range(2):
        assert isinstance(result.error, IdeogramSubmitFailed)
        assert_error(result, f"{MAX_SUBMITS} submits")
        result = world.to_end(run, run.retry())

    assert result.state == "failed"
    assert (world.accepted, world.submits) == (0, MAX_SUBMITS)
    world.emulator.clear_faults()
    assert_succeeded(world.to_end(run, run.clear()))
    assert (world.accepted, world.submits) == (1, MAX_SUBMITS + 1)


@pytest.mark.parametrize("when", ["before", "after"])
def test_waits_for_a_person_if_the_user_says_so(when: str, image_task: ImageTask, world: World) -> None:
    world.emulator.configure(history_lag_seconds=100_000.0)
    world.emulator.fault("submit", "error", status=502, when=when)
    run = image_task(retries=1, resubmit_on_5xx=False)

    result = world.run(run)

    assert result.state == "up_for_retry"
    assert world.to_end(run, run.retry()).state == "failed"
    assert_error(result, "may have been accepted", "Clear the task")
    assert (world.accepted, world.submits) == (int(when == "after"), 1)


def test_unreadable_history_permits_no_submit(
    image_task: ImageTask, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_operator, "PATIENCE_SECONDS", 2 * HISTORY_LAG)
    world.emulator.fault("submit", "error", status=502)
    world.emulator.fault("history", "error", status=503, times=None)
    run = image_task(retries=1)

    result = world.run(run)

    assert result.state == "up_for_retry"
    assert isinstance(result.error, IdeogramSubmitFailed)
    assert_error(result, "the account's request history can't be read")
    assert (world.submits, world.object_keys()) == (1, [RECORD_KEY])
    world.emulator.clear_faults()
    assert_succeeded(world.to_end(run, run.retry()))
    assert (world.accepted, world.submits) == (1, 2)
