"""Rate limits, and temporary errors of the vendor or of S3."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest import mock

import pytest

from airflow_provider_ideogram.datasets import submitting, waiting
from airflow_provider_ideogram.datasets.slice import RETRY_SECONDS
from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.storage.image_store import ImageStore
from tests.integration.datasets.world import PREFIX, ROWS

if TYPE_CHECKING:
    from tests.integration.datasets.world import Make, World
    from tests.support.task_runner import TaskRunner


@pytest.mark.parametrize("named", [6, 0])
def test_rate_limit_is_kept_if_named_and_learned_if_not(
    named: float, make: Make, task_runner: TaskRunner, world: World
) -> None:
    world.emulator.configure(rate_limit=6)
    rows = [f"p {number}" for number in range(15)]
    run = task_runner(make(prompts=rows, requests_per_minute=named))
    start = world.clock()

    world.assert_stats_agree(run, world.run_to_end(run, run.execute()), total=15)

    rejected = world.emulator.stats().rate_limited
    assert rejected == 0 if named else 0 < rejected < 30
    assert world.clock() - start > 60


@pytest.mark.parametrize("on", ["submit", "status", "result", "image"])
def test_temporary_errors_are_retried(on: str, make: Make, task_runner: TaskRunner, world: World) -> None:
    wait = {"status": 429, "retry_after": 20} if on == "submit" else {"status": 503}
    world.emulator.fault(on, "error", times=6, **wait)
    run = task_runner(make())

    world.assert_stats_agree(run, world.run_to_end(run, run.execute()))


@pytest.mark.timeout(60)  # without its place in max_in_flight the task would never end
def test_late_image_frees_its_place_on_a_waiting_worker(
    make: Make, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "RETRY_SECONDS", 0.2)
    monkeypatch.setattr(submitting, "RETRY_SECONDS", 0.2)
    world.emulator.fault("image", "error", status=503, times=4)
    run = task_runner(make(prompts=ROWS[:3], max_in_flight=1, deferrable=False))

    xcom = world.assert_stats_agree(run, world.run_to_end(run, run.execute()), total=3)

    assert (xcom["generated"], world.accepted()) == (3, 3)
    assert "is completed, but its image is not stored yet" in run.log_text


def _block_images(on: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no image be fetched, or none be stored."""
    if on == "S3":
        refused = IdeogramStorageError("S3 takes nothing")
        monkeypatch.setattr(ImageStore, "put", mock.Mock(side_effect=refused))
    else:
        world.emulator.fault(on, "error", status=503, times=None)


@pytest.mark.parametrize("on", ["image", "result"])
def test_image_that_can_not_be_fetched_stops_no_others(
    on: str, make: Make, task_runner: TaskRunner, world: World
) -> None:
    bad = {"id": "bad", "prompt": "a bad one"}
    world.emulator.fault(on, "error", status=503, times=None, prompt=bad["prompt"])
    run = task_runner(make(prompts=[bad, *ROWS], max_in_flight=2))

    result = run.execute()
    while result.state == "deferred" and len(world.keys(PREFIX)) < len(ROWS):
        assert run.trigger().requests, "no request is running"  # type: ignore[attr-defined]
        result = run.resume(run.fire())

    assert result.state == "deferred", "the bad one is fetched again within its hour"
    world.emulator.clear_faults()
    world.assert_stats_agree(run, world.run_to_end(run, result), total=6)
    assert world.accepted() == 6


@pytest.mark.parametrize(("on", "held"), [("image", 5), ("result", 5), ("S3", 1)])
def test_nothing_is_submitted_while_no_image_can_be_stored(
    on: str, held: int, make: Make, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"p {number}" for number in range(12)]
    run = task_runner(make(prompts=rows, max_in_flight=8, requests_per_minute=10 * held))
    with monkeypatch.context() as patch:
        _block_images(on, world, patch)
        result = run.execute()
        for _ in range(6):
            world.advance(RETRY_SECONDS)
            result = run.resume(run.fire())
        assert (result.state, world.accepted(), world.keys(PREFIX)) == ("deferred", held, [])
    world.emulator.clear_faults()

    world.assert_stats_agree(run, world.run_to_end(run, result), total=12)


def test_not_found_within_the_hour_is_not_the_end(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("status", "error", status=404, times=3 * len(ROWS))
    run = task_runner(make(poll_interval=0.05))

    world.assert_stats_agree(run, world.run_to_end(run, run.execute()))


def test_late_result_is_fetched_again(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("result", "error", status=404, times=len(ROWS))
    run = task_runner(make())

    world.assert_stats_agree(run, world.run_to_end(run, run.execute()))
