"""Attempts and runs that use one target at the same time: one request is paid, and both tasks end well."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.exceptions import IdeogramTargetBusy
from tests.support.world import KEY, MINUTE, assert_error, assert_succeeded

if TYPE_CHECKING:
    from tests.support.world import ImageTask, World

#: Seconds of a job that runs for as long as the test needs it to.
LONG = 1800.0


class TestOneTask:
    def test_trigger_that_ran_twice_changes_nothing(self, image_task: ImageTask, world: World) -> None:
        run = image_task()
        run.execute()

        async def fire_twice() -> list[Any]:
            return [await run.afire(), await run.afire()]

        first, second = asyncio.run(fire_twice())
        for name in ("payload", "error"):
            assert first[name] == second[name]
        assert_succeeded(run.resume(second))

        assert world.accepted == 1
        assert world.object_keys() == [KEY]

    def test_slice_that_airflow_failed_and_its_retry_both_end(self, image_task: ImageTask, world: World) -> None:
        """The scheduler may fail a task whose resumed slice goes on (apache/airflow#72716)."""
        world.emulator.configure(job_seconds=MINUTE)
        failed_by_airflow, retried = image_task(poll_interval=0.05), image_task(poll_interval=0.05)
        failed_by_airflow.execute()
        assert retried.execute().state == "deferred"
        world.pass_time(MINUTE)

        assert_succeeded(failed_by_airflow.resume(failed_by_airflow.fire()))
        assert_succeeded(world.to_end(retried, retried.resume(retried.fire())))

        assert world.accepted == 1
        assert world.object_keys() == [KEY]
        completed_at = failed_by_airflow.xcom()["completed_at"]
        assert failed_by_airflow.xcom() == {**retried.xcom(), "completed_at": completed_at}

    def test_retry_finds_what_that_slice_stored_in_a_prefix(self, image_task: ImageTask, world: World) -> None:
        world.run(image_task(s3_key="images/", prompt="another", seed=1))
        run = image_task(s3_key="images/", retries=2)
        world.run(run)
        stored = run.xcom()

        assert_succeeded(world.to_end(run, run.retry()))

        assert world.accepted == 2
        assert run.xcom() == stored


class TestTwoRuns:
    @pytest.mark.parametrize("deferrable", [True, False])
    def test_same_inputs_are_paid_once_and_shared(self, deferrable: bool, image_task: ImageTask, world: World) -> None:
        first, second = image_task("first"), image_task("second", deferrable=deferrable)
        assert first.execute().state == "deferred"

        assert_succeeded(world.run(second))
        assert_succeeded(first.resume(first.fire()))

        assert world.accepted == 1
        assert world.object_keys() == [KEY]
        assert world.stored() == world.image_of(first) == world.image_of(second)
        assert (first.xcom()["cost_usd"], first.xcom()["reused"]) == (0.05, False)
        assert (second.xcom()["cost_usd"], second.xcom()["reused"]) == (0.0, True)

    def test_second_reuses_what_the_first_stored_meanwhile(self, image_task: ImageTask, world: World) -> None:
        world.emulator.configure(job_seconds=LONG)
        first, second = (image_task(name, timeout=LONG * 2, poll_interval=0.05) for name in ("first", "second"))
        first.execute()
        second.execute()
        world.pass_time(LONG)

        assert_succeeded(first.resume(first.fire()))
        assert_succeeded(second.resume(second.fire()))

        assert world.accepted == 1
        assert first.xcom()["cost_usd"] + second.xcom()["cost_usd"] == 0.05
        assert world.object_keys() == [KEY]

    def test_other_inputs_wait_until_the_first_is_stored(self, image_task: ImageTask, world: World) -> None:
        world.emulator.configure(job_seconds=LONG)
        first = image_task("first", timeout=LONG * 2, poll_interval=0.05)
        second = image_task("second", prompt="a harbour", retries=2)
        first.execute()
        world.pass_time(MINUTE)

        busy = second.execute()

        assert busy.state == "up_for_retry"
        assert isinstance(busy.error, IdeogramTargetBusy)
        assert_error(busy, first.xcom("request_id"), "first/generate", "Nothing was charged")
        assert world.accepted == 1
        world.pass_time(LONG)
        assert_succeeded(first.resume(first.fire()))
        assert world.stored() == world.image_of(first)

        world.emulator.configure(job_seconds=0.15)
        assert_succeeded(world.to_end(second, second.retry()))
        assert world.accepted == 2
        assert world.stored() == world.image_of(second)
        assert world.object_keys() == [KEY]

    def test_tasks_with_other_keys_are_independent(self, image_task: ImageTask, world: World) -> None:
        runs = [image_task(name, s3_key=f"images/{name}.png") for name in "ab"]
        for run in runs:
            run.execute()
        for run in runs:
            assert_succeeded(run.resume(run.fire()))
        assert world.accepted == 2
        assert [run.xcom()["cost_usd"] for run in runs] == [0.05, 0.05]
