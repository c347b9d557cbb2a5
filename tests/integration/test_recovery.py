"""Requests older than an hour, or not found: an image that still exists is fetched, and nothing is paid twice."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.api.history import HISTORY_LAG_MAX
from airflow_provider_ideogram.exceptions import IdeogramJobFailed, IdeogramJobUnreachable, IdeogramResultExpired
from tests.support.world import DAY, HOUR, KEY, MINUTE, RECORD_KEY, assert_error, assert_succeeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.task_runner import Slice, TaskRun
    from tests.support.world import ImageTask, World

    ReturnToRequest = Callable[[TaskRun, World, float], Slice]

#: Jobs for each path by which a task returns to its request.
JOBS_PER_PATH = 8


def _resume_with_event(run: TaskRun, world: World, seconds: float) -> Slice:
    """Let the trigger fire in time, and the task wait for a worker."""
    event = run.fire()
    world.pass_time(seconds)
    return run.resume(event)


def _fire_late(run: TaskRun, world: World, seconds: float) -> Slice:
    """Let the triggerer be down."""
    world.pass_time(seconds)
    return run.resume(run.fire())


def _retry(run: TaskRun, world: World, seconds: float) -> Slice:
    world.pass_time(seconds)
    return run.retry()


def _clear(run: TaskRun, world: World, seconds: float) -> Slice:
    world.pass_time(seconds)
    return run.clear()


def _retry_on_the_worker(run: TaskRun, world: World, seconds: float) -> Slice:
    world.pass_time(seconds)
    run.operator.deferrable = False
    return run.retry()


@pytest.mark.parametrize("return_to_request", [_resume_with_event, _fire_late, _retry, _clear, _retry_on_the_worker])
def test_jobs_of_61_minutes_to_6_days_are_all_stored(
    return_to_request: ReturnToRequest, image_task: ImageTask, world: World
) -> None:
    first, last = 61 * MINUTE, 6 * DAY
    for number in range(JOBS_PER_PATH):
        run = image_task(f"run-{number}", s3_key=f"images/{number}.png", retries=1)
        assert run.execute().state == "deferred"
        age = first + (last - first) * number / (JOBS_PER_PATH - 1)

        assert_succeeded(world.to_end(run, return_to_request(run, world, age)))

        assert world.stored(f"images/{number}.png") == world.image_of(run)
        assert run.xcom()["cost_usd"] == 0.05
    assert (world.accepted, world.submits) == (JOBS_PER_PATH, JOBS_PER_PATH)
    assert world.object_keys("_ideogram/") == []


@pytest.mark.parametrize("age", [61 * MINUTE, 6 * DAY])
def test_task_that_did_not_wait_is_cleared_and_stores_it(age: float, image_task: ImageTask, world: World) -> None:
    run = image_task(wait_for_completion=False)
    assert_succeeded(run.execute())
    world.pass_time(age)
    run.operator.wait_for_completion = True

    assert_succeeded(world.to_end(run, run.clear()))

    assert world.object_keys() == [KEY]
    assert world.accepted == 1


@pytest.mark.parametrize("return_to_request", [_resume_with_event, _fire_late, _retry, _clear, _retry_on_the_worker])
def test_after_8_days_the_image_is_expired_and_paid_anew(
    return_to_request: ReturnToRequest, image_task: ImageTask, world: World
) -> None:
    run = image_task(retries=3)
    run.execute()
    old = run.xcom("request_id")

    expired = world.to_end(run, return_to_request(run, world, 8 * DAY))

    assert expired.state == "up_for_retry"
    assert isinstance(expired.error, IdeogramResultExpired)
    assert_error(expired, old, "no longer holds the image", "charged if it completed", "pays for a new request")
    failure = run.xcom("failure")
    assert (failure["reason"], failure["request_id"]) == ("expired", old)
    assert world.submits == 1
    assert_succeeded(world.to_end(run, run.retry()))
    assert world.submits == 2
    assert run.xcom()["request_id"] != old
    assert world.object_keys() == [KEY]


def test_waiting_worker_waits_for_a_request_hours_late(
    image_task: ImageTask, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.emulator.configure(job_seconds=2 * HOUR)
    run = image_task(timeout=3 * HOUR, retries=1)
    run.execute()
    monkeypatch.setattr(time, "sleep", lambda _: world.pass_time(10 * MINUTE))

    assert_succeeded(_retry_on_the_worker(run, world, 61 * MINUTE))

    assert world.accepted == 1


class TestHistory:
    """What the account's history says of a request whose record is gone."""

    def test_failed_request_is_a_failure_without_a_charge(self, image_task: ImageTask, world: World) -> None:
        world.emulator.fault("job", "failed")
        run = image_task(retries=1)
        run.execute()
        world.pass_time(61 * MINUTE)

        result = run.resume(run.fire())

        assert result.state == "up_for_retry"
        assert isinstance(result.error, IdeogramJobFailed)
        assert_error(result, "ran out of memory", "It was not charged")
        assert run.xcom("failure")["charged"] is False
        assert world.object_keys() == []
        assert_succeeded(world.to_end(run, run.retry()))
        assert world.charged_usd == 0.05

    def test_running_request_is_awaited(self, image_task: ImageTask, world: World) -> None:
        world.emulator.configure(job_seconds=65 * MINUTE)
        run = image_task(timeout=2 * HOUR, poll_interval=0.05)
        run.execute()
        world.pass_time(61 * MINUTE)

        assert_succeeded(world.to_end(run, run.resume(run.fire())))

        assert world.accepted == 1
        assert world.stored() == world.image_of(run)

    def test_that_is_late_proves_nothing(self, image_task: ImageTask, world: World) -> None:
        world.emulator.configure(history_lag_seconds=2 * HOUR)
        run = image_task(retries=2)
        run.execute()
        world.pass_time(61 * MINUTE)

        result = run.resume(run.fire())

        assert result.state == "up_for_retry"
        assert isinstance(result.error, IdeogramJobUnreachable)
        assert_error(result, "rows may be late", "the next attempt reattaches to it")
        assert world.object_keys() == [RECORD_KEY]
        world.pass_time(HOUR)
        assert_succeeded(world.to_end(run, run.retry()))
        assert world.accepted == 1

    def test_that_can_t_be_read_proves_nothing(self, image_task: ImageTask, world: World) -> None:
        run = image_task(retries=2)
        run.execute()
        world.pass_time(HISTORY_LAG_MAX + MINUTE)
        world.emulator.fault("history", "error", status=503, times=None)

        result = run.resume(run.fire())

        assert result.state == "up_for_retry"
        assert isinstance(result.error, IdeogramJobUnreachable)
        assert_error(result, "the account's history can't be read")
        world.emulator.clear_faults()
        assert_succeeded(world.to_end(run, run.retry()))
        assert world.accepted == 1

    def test_without_the_request_for_hours_frees_the_target(self, image_task: ImageTask, world: World) -> None:
        world.emulator.configure(history_lag_seconds=30 * DAY)
        run = image_task(retries=2)
        run.execute()
        lost = run.xcom("request_id")
        world.pass_time(HISTORY_LAG_MAX + MINUTE)

        assert_succeeded(world.to_end(run, run.retry()))

        assert f"image of request {lost}" in run.log_text
        assert "A new request is submitted" in run.log_text
        first, second = world.emulator.requests()
        assert first.inputs == second.inputs
        assert run.xcom()["request_id"] == second.request_id

    def test_that_a_connection_lacks_ends_with_the_hour(
        self, image_task: ImageTask, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gateway = {"conn_type": "ideogram", "password": world.emulator.api_key, "host": world.emulator.url}
        monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", json.dumps(gateway))
        run = image_task(retries=2)
        run.execute()
        lost = run.xcom("request_id")
        world.pass_time(61 * MINUTE)

        assert_succeeded(world.to_end(run, run.retry()))

        assert f"image of request {lost}" in run.log_text
        assert "A new request is submitted" in run.log_text
        assert world.accepted == 2


class TestWithinTheHour:
    @pytest.mark.parametrize("late", [11 * MINUTE, 58 * MINUTE])
    def test_late_resume_still_fetches_the_image(self, late: float, image_task: ImageTask, world: World) -> None:
        world.emulator.configure(job_seconds=9 * MINUTE)
        run = image_task(timeout=5 * MINUTE)
        run.execute()
        world.pass_time(6 * MINUTE)
        event = run.fire()
        assert [report["outcome"] for report in event["requests"].values()] == ["pending"]
        world.pass_time(late - 6 * MINUTE)

        assert_succeeded(run.resume(event))

        assert world.accepted == 1
        assert world.stored() == world.image_of(run)

    def test_deadline_is_the_same_on_every_attempt(self, image_task: ImageTask, world: World) -> None:
        world.emulator.configure(job_seconds=30 * MINUTE)
        run = image_task(retries=3, timeout=HOUR)
        run.execute()
        assert run.deferral is not None
        deadline = run.deferral["trigger_kwargs"]["deadline"]
        for _ in range(2):
            world.pass_time(5 * MINUTE)
            assert run.retry().state == "deferred"
            assert run.deferral["trigger_kwargs"]["deadline"] == deadline
        assert world.accepted == 1


class TestEarlyNotFound:
    """A 404 within the hour: a gateway, a replica that lags behind, or another account's key."""

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_does_not_end_the_wait(self, deferrable: bool, image_task: ImageTask, world: World) -> None:
        world.emulator.fault("status", "error", status=404, times=5)

        assert_succeeded(world.run(image_task(deferrable=deferrable)))

        assert world.accepted == 1

    def test_on_reattaching_submits_nothing(self, image_task: ImageTask, world: World) -> None:
        run = image_task(retries=1, poll_interval=0.05)
        run.execute()
        world.pass_time(5 * MINUTE)
        world.emulator.fault("status", "error", status=404, times=3)

        assert_succeeded(world.to_end(run, run.retry()))

        assert world.accepted == 1
        assert world.stored() == world.image_of(run)

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_that_stays_keeps_the_record_for_the_next_attempt(
        self, deferrable: bool, image_task: ImageTask, world: World
    ) -> None:
        world.emulator.fault("status", "error", status=404, times=None)
        run = image_task(deferrable=deferrable, retries=1, timeout=1.0)

        result = run.to_end()

        assert result.state == "up_for_retry"
        assert_error(result, "within the hour", "check the connection's base URL and API key")
        assert world.object_keys() == [RECORD_KEY]
        world.emulator.clear_faults()
        assert_succeeded(world.to_end(run, run.retry()))
        assert world.accepted == 1

    def test_of_the_result_defers_the_fetch(self, image_task: ImageTask, world: World) -> None:
        world.emulator.fault("result", "error", status=404)
        run = image_task()
        run.execute()
        result = run.resume(run.fire())
        assert (result.state, world.object_keys()) == ("deferred", [RECORD_KEY])
        assert "is completed, but its image is not stored yet" in run.log_text
        world.pass_time(MINUTE)

        assert_succeeded(run.resume(run.fire()))

        assert world.accepted == 1

    def test_of_a_dropped_record_ends_with_the_hour(self, image_task: ImageTask, world: World) -> None:
        world.emulator.configure(lifetime_seconds=0.01)
        run = image_task(retries=2)
        run.execute()
        world.pass_time(11 * MINUTE)
        assert world.to_end(run, run.retry()).state == "up_for_retry"
        world.pass_time(50 * MINUTE)

        assert_succeeded(world.to_end(run, run.retry()))

        assert world.accepted == 1
        assert world.stored() == world.image_of(run)
