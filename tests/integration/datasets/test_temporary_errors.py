"""Errors that pass, and images that can not be fetched yet: nothing is paid twice and no item blocks others."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest import mock

import pytest

from airflow_provider_ideogram.datasets import submitting, waiting
from airflow_provider_ideogram.datasets.slice import RETRY_SECONDS
from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.jobs.reconciliation import HISTORY_LAG
from airflow_provider_ideogram.storage.image_store import ImageStore
from tests.integration.datasets.results import PREFIX, ROWS, Make, assert_results_agree, manifest
from tests.support.world import HOUR

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRunner
    from tests.support.world import World


@pytest.mark.parametrize("on", ["submit", "status", "result", "image"])
def test_temporary_errors_are_retried(on: str, make: Make, task_runner: TaskRunner, world: World) -> None:
    wait = {"status": 429, "retry_after": 20} if on == "submit" else {"status": 503}
    world.emulator.fault(on, "error", times=6, **wait)
    run = task_runner(make())

    assert_results_agree(world, run, world.to_end(run, run.execute()))


@pytest.mark.timeout(60)  # it would submit nothing more, for ever
def test_delayed_image_does_not_block_a_worker(
    make: Make, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "RETRY_SECONDS", 0.2)
    monkeypatch.setattr(submitting, "RETRY_SECONDS", 0.2)
    world.emulator.fault("image", "error", status=503, times=4)
    run = task_runner(make(prompts=ROWS[:3], max_in_flight=1, deferrable=False))

    xcom = assert_results_agree(world, run, world.to_end(run, run.execute()), total=3)

    assert (xcom["generated"], world.accepted) == (3, 3)
    assert "is completed, but its image is not stored yet" in run.log_text


def _block_storing(on: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevent completed images from being stored."""
    if on == "S3":
        refused = IdeogramStorageError("S3 takes nothing")
        monkeypatch.setattr(ImageStore, "put", mock.Mock(side_effect=refused))
    else:
        world.emulator.fault(on, "error", status=503, times=None)


@pytest.mark.parametrize("on", ["image", "result"])
def test_image_that_can_not_be_fetched_does_not_stop_others(
    on: str, make: Make, task_runner: TaskRunner, world: World
) -> None:
    bad = {"id": "bad", "prompt": "a bad one"}
    world.emulator.fault(on, "error", status=503, times=None, prompt=bad["prompt"])
    run = task_runner(make(prompts=[bad, *ROWS], max_in_flight=2))

    result = run.execute()
    while result.state == "deferred" and len(world.object_keys(PREFIX)) < len(ROWS):
        assert run.trigger().requests, "nothing is at the vendor"  # type: ignore[attr-defined]
        result = run.resume(run.fire())

    assert result.state == "deferred", "the bad one is not given up within its hour"
    world.emulator.clear_faults()
    assert_results_agree(world, run, world.to_end(run, result), total=6)
    assert world.accepted == 6


def test_image_that_is_not_fetched_in_an_hour_frees_its_place(
    make: Make, task_runner: TaskRunner, world: World
) -> None:
    world.emulator.fault("image", "error", status=503, times=None, prompt="number 0")
    run = task_runner(make(prompts=ROWS[:2], max_in_flight=1))
    run.execute()
    event = run.fire()
    world.pass_time(HOUR)

    assert world.to_end(run, run.resume(event)).state == "up_for_retry"

    assert [(line["status"], line["cost_usd"]) for line in manifest(world)] == [("failed", 0.05), ("generated", 0.05)]
    world.emulator.clear_faults()
    assert_results_agree(world, run, world.to_end(run, run.retry()), total=2)
    assert world.accepted == 2


@pytest.mark.parametrize(("on", "held"), [("image", 5), ("result", 5), ("S3", 1)])
def test_nothing_is_submitted_while_no_image_can_be_stored(
    on: str, held: int, make: Make, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"p {number}" for number in range(12)]
    run = task_runner(make(prompts=rows, max_in_flight=8, requests_per_minute=10 * held))
    with monkeypatch.context() as patch:
        _block_storing(on, world, patch)
        result = run.execute()
        for _ in range(6):
            world.pass_time(RETRY_SECONDS)
            result = run.resume(run.fire())
        assert (result.state, world.accepted, world.object_keys(PREFIX)) == ("deferred", held, [])
    world.emulator.clear_faults()

    assert_results_agree(world, run, world.to_end(run, result), total=12)


def test_not_found_within_the_hour_ends_no_request(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("status", "error", status=404, times=3 * len(ROWS))
    run = task_runner(make(poll_interval=0.05))

    assert_results_agree(world, run, world.to_end(run, run.execute()))


def test_result_that_is_not_there_yet_is_fetched_later(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("result", "error", status=404, times=len(ROWS))
    run = task_runner(make())

    assert_results_agree(world, run, world.to_end(run, run.execute()))


@pytest.mark.parametrize("when", ["before", "after"])
def test_unknown_submits_are_looked_up(when: str, make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("submit", "reset", when=when, times=2)
    run = task_runner(make())

    result = world.to_end(run, run.execute())

    if when == "after":
        assert_results_agree(world, run, result)
        return
    assert result.state == "up_for_retry"
    assert "may have been accepted" in str(result.error)
    assert world.accepted == 3
    world.pass_time(HISTORY_LAG)
    assert world.to_end(run, run.retry()).state == "up_for_retry"
    assert world.accepted == 3
    assert_results_agree(world, run, world.to_end(run, run.clear()))
