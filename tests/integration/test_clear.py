"""Another attempt after a retry or a clear: what it submits, what it reattaches to, and what it reuses."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_ideogram.api.retry_flow import MAX_ATTEMPTS
from tests.support.world import KEY, assert_succeeded

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRunner
    from tests.support.world import Generate, ImageTask, World


class TestClear:
    @pytest.mark.parametrize("deferrable", [True, False])
    def test_reattaches_while_the_task_is_deferred(self, deferrable: bool, image_task: ImageTask, world: World) -> None:
        run = image_task()
        run.execute()
        run.operator.deferrable = deferrable

        assert_succeeded(world.to_end(run, run.clear()))

        assert world.accepted == 1
        assert world.object_keys() == [KEY]
        assert run.xcom()["cost_usd"] == 0.05

    def test_fetches_an_image_that_could_not_be_fetched(self, image_task: ImageTask, world: World) -> None:
        run = image_task(retries=0)
        run.execute()
        world.emulator.fault("image", "not_image", times=MAX_ATTEMPTS)
        assert run.resume(run.fire()).state == "failed"

        assert_succeeded(world.to_end(run, run.clear()))

        assert world.accepted == 1
        assert world.stored() == world.image_of(run)

    @pytest.mark.parametrize("if_exists", ["overwrite", "fail"])
    def test_makes_the_image_the_own_one_of_its_retries(
        self, if_exists: str, image_task: ImageTask, world: World
    ) -> None:
        run = image_task(if_exists=if_exists, retries=1)
        run.execute()
        assert_succeeded(world.to_end(run, run.clear()))

        assert_succeeded(run.retry())  # Airflow had failed the attempt that went on and stored the image

        assert world.accepted == 1
        assert run.xcom()["cost_usd"] == 0.05

    def test_reuses_the_image_of_a_successful_task(self, image_task: ImageTask, world: World) -> None:
        run = image_task()
        assert_succeeded(world.run(run))

        assert_succeeded(run.clear())

        assert world.accepted == 1
        assert (run.xcom()["cost_usd"], run.xcom()["reused"]) == (0.0, True)
        assert run.xcom()["original_cost_usd"] == 0.05

    def test_generates_a_new_image_below_a_prefix(self, image_task: ImageTask, world: World) -> None:
        run = image_task(s3_key="images/")
        world.run(run)

        assert_succeeded(world.to_end(run, run.clear()))

        assert world.accepted == 2
        assert len(world.object_keys()) == 2


class TestInputs:
    def test_that_change_abandon_the_old_request_by_name(self, image_task: ImageTask, world: World) -> None:
        run = image_task(retries=1)
        run.execute()
        old = run.xcom("request_id")
        run.operator.prompt = "a harbour"

        assert_succeeded(world.to_end(run, run.retry()))

        assert [request.inputs["prompt"] for request in world.emulator.requests()] == ["a lighthouse", "a harbour"]
        assert f"Request {old} of" in run.log_text
        assert "with other inputs. It is abandoned, and a new one is submitted" in run.log_text
        assert world.stored() == world.image_of(run)
        assert world.object_keys() == [KEY]

    def test_that_change_make_a_new_image_below_a_prefix(self, image_task: ImageTask, world: World) -> None:
        run = image_task(s3_key="images/", prompt="a cat of {{ ti.try_number }}", retries=2)
        world.run(run)

        assert_succeeded(world.to_end(run, run.retry()))

        assert world.accepted == 2
        assert len(world.object_keys()) == 2

    def test_drawn_seed_is_kept_for_the_next_attempt(self, image_task: ImageTask, world: World) -> None:
        world.emulator.fault("job", "failed")
        run = image_task(retries=1)
        run.execute()
        world.pass_time(1)

        assert_succeeded(world.to_end(run, run.retry()))

        first, second = world.emulator.requests()
        assert first.inputs == second.inputs

    def test_that_render_differently_on_resume_change_nothing(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        times = itertools.count()
        with DAG("lighthouses", schedule=None, user_defined_macros={"number": lambda: next(times)}):
            operator = generate(prompt="lighthouse {{ number() }}", s3_key="images/{{ number() }}.png")
        run = task_runner(operator)
        run.execute()

        event = run.fire()
        assert_succeeded(run.resume(event))

        assert next(times) == 4
        [request] = world.emulator.requests()
        assert request.inputs["prompt"] == run.xcom()["prompt"] == "lighthouse 0"
        assert run.xcom()["key"] == "images/1.png"
        assert world.object_keys() == ["images/1.png"]
