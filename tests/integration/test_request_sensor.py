"""A request that another task, or another client, submitted: the sensor waits for it and stores its image."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_provider_ideogram.sensors import IdeogramRequestSensor
from tests.support.world import DAY, HOUR, KEY, MINUTE, assert_error, assert_succeeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.task_runner import TaskRun, TaskRunner
    from tests.support.world import Generate, ImageTask, World

    Sensor = Callable[..., IdeogramRequestSensor]
    SensorTask = Callable[..., TaskRun]


@pytest.fixture
def sensor(ideogram_connection: str, s3_bucket: str) -> Sensor:
    """Make the sensor for an image in the test's bucket; arguments are the sensor's own."""

    def make(**arguments: Any) -> IdeogramRequestSensor:
        return IdeogramRequestSensor(**({"task_id": "wait", "s3_key": KEY, "s3_bucket": s3_bucket} | arguments))

    return make


@pytest.fixture
def sensor_task(sensor: Sensor, task_runner: TaskRunner) -> SensorTask:
    """Make a task instance of that sensor for a request."""

    def make(request: Any, **arguments: Any) -> TaskRun:
        return task_runner(sensor(request=request, **arguments))

    return make


@pytest.fixture
def submitted(image_task: ImageTask) -> dict[str, Any]:
    """Return the result of a task that submitted a request and did not wait."""
    run = image_task(task_id="submit", wait_for_completion=False)
    assert_succeeded(run.execute())
    result: dict[str, Any] = run.xcom()
    return result


@pytest.fixture
def foreign_request(world: World, ideogram_connection: str) -> str:
    """Return the id of a request that another client submitted."""
    response = httpx.post(
        f"{world.emulator.url}/v2/ideogram-2a-txt-2-img",
        json={"prompt": "a gull", "seed": 7},
        headers={"x-api-key": world.emulator.api_key},
        trust_env=False,
    )
    request_id: str = response.json()["request_id"]
    return request_id


@pytest.mark.parametrize("mode", [{}, {"deferrable": False, "poke_interval": 0.05}], ids=["deferred", "poking"])
def test_stores_the_image_of_a_task_that_did_not_wait(
    mode: dict[str, Any], submitted: dict[str, Any], sensor_task: SensorTask, world: World
) -> None:
    run = sensor_task(submitted, **mode)

    assert_succeeded(run.to_end())

    xcom = run.xcom()
    assert world.stored() == world.image_of(run)
    for name in ("request_id", "prompt", "seed", "model", "submitted_at"):
        assert xcom[name] == submitted[name]
    assert (xcom["cost_usd"], xcom["reused"]) == (0.05, False)
    assert run.xcom("request_id") == xcom["request_id"]
    assert world.accepted == 1
    assert world.object_keys() == [KEY]  # the ledger's record is deleted when the image is stored


def test_pokes_until_a_request_that_is_late_by_hours_is_done(
    image_task: ImageTask, sensor_task: SensorTask, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.emulator.configure(job_seconds=7200)
    submit = image_task(task_id="submit", wait_for_completion=False)
    submit.execute()
    run = sensor_task(submit.xcom(), deferrable=False, poke_interval=60, timeout=10_800)
    world.pass_time(3660)
    monkeypatch.setattr(time, "sleep", lambda _: world.pass_time(600))

    assert_succeeded(run.execute())

    assert world.stored() == world.image_of(run)


def test_timeout_of_airflow_says_what_is_known_of_the_money(
    foreign_request: str, sensor_task: SensorTask, world: World
) -> None:
    world.emulator.configure(history_lag_seconds=3600)  # the time of the submission stays unknown
    world.emulator.fault("status", "error", times=None)
    run = sensor_task(foreign_request, deferrable=False, poke_interval=0.05, timeout=0.2)

    assert_error(run.execute(), "IdeogramTimeout", foreign_request, "is charged if it completes")


def test_image_stored_elsewhere_leaves_the_targets_record(
    submitted: dict[str, Any], sensor_task: SensorTask, image_task: ImageTask, world: World
) -> None:
    run = sensor_task(submitted, s3_key="elsewhere.png")
    assert_succeeded(run.to_end())

    assert_succeeded(world.run(image_task("another")))

    assert world.accepted == 1
    assert world.object_keys() == ["elsewhere.png", KEY]


def test_takes_the_output_of_the_submitting_task(
    generate: Generate, sensor: Sensor, task_runner: TaskRunner, world: World
) -> None:
    with DAG("two_steps", schedule=None):
        submit = generate(task_id="submit", wait_for_completion=False, prompt="a {% raw %}{{ lighthouse }}{% endraw %}")
        wait = sensor(request=submit.output, s3_key="elsewhere/")
    task_runner(submit).execute()
    run = task_runner(wait)

    assert_succeeded(run.to_end())

    xcom = run.xcom()
    assert xcom["prompt"] == "a {{ lighthouse }}"  # not rendered a second time
    assert re.fullmatch(rf"elsewhere/[0-9a-f]{{8}}-{xcom['request_id']}\.png", xcom["key"])


@pytest.mark.parametrize("durable", [True, False])
def test_later_runs_reuse_the_stored_image(
    durable: bool, image_task: ImageTask, sensor_task: SensorTask, world: World
) -> None:
    submit = image_task(task_id="submit", wait_for_completion=False, durable=durable)
    submit.execute()
    sensor_task(submit.xcom()).to_end()

    later = image_task("later", task_id="submit")

    assert_succeeded(later.execute())
    assert later.xcom()["reused"] is True
    assert world.accepted == 1


def test_inputs_of_a_foreign_request_are_in_the_history(
    foreign_request: str, sensor_task: SensorTask, world: World
) -> None:
    run = sensor_task(foreign_request)

    assert_succeeded(run.to_end())

    xcom = run.xcom()
    assert (xcom["prompt"], xcom["seed"], xcom["cost_usd"]) == ("a gull", 7, 0.05)
    assert world.accepted == 1


def test_image_of_unknown_inputs_is_stored(foreign_request: str, sensor_task: SensorTask, world: World) -> None:
    world.emulator.fault("history", "error", status=503, times=None)
    run = sensor_task(foreign_request)

    assert_succeeded(run.to_end())

    xcom = run.xcom()
    assert (xcom["prompt"], xcom["seed"], xcom["model"]) == (None, None, None)
    assert (xcom["cost_usd"], xcom["cost_is_estimate"]) == (0.05, False)  # by the response with the result
    assert world.stored() == world.emulator.image_bytes(foreign_request)
    assert f"The inputs of request {foreign_request} are unknown" in run.log_text


@pytest.mark.parametrize(("soft_fail", "state"), [(False, "failed"), (True, "skipped")])
def test_failed_request_fails_or_skips_the_task(
    soft_fail: bool, state: str, image_task: ImageTask, sensor_task: SensorTask, world: World
) -> None:
    world.emulator.fault("job", "failed")
    submit = image_task(task_id="submit", wait_for_completion=False)
    submit.execute()
    run = sensor_task(submit.xcom(), soft_fail=soft_fail, retries=1)

    assert run.to_end().state == state

    failure = run.xcom("failure")
    assert (failure["reason"], failure["charged"]) == ("request_failed", False)
    assert "A retry of the task that submitted it submits a new request" in failure["advice"]
    assert world.accepted == 1
    assert world.emulator.charges() == []


def test_refused_key_leaves_the_image_to_a_retry(
    submitted: dict[str, Any], sensor_task: SensorTask, world: World
) -> None:
    world.emulator.configure(keys=["another-key-0001"])

    result = sensor_task(submitted, retries=1).to_end()

    assert result.state == "up_for_retry"
    assert_error(result, "is not lost: the next attempt reattaches to it")


@pytest.mark.parametrize("age", [61 * MINUTE, 6 * DAY])
def test_image_is_recovered_after_the_hour(
    age: float, submitted: dict[str, Any], sensor_task: SensorTask, world: World
) -> None:
    world.pass_time(age)
    run = sensor_task(submitted)

    assert_succeeded(run.to_end())

    xcom = run.xcom()
    assert xcom["request_id"] == submitted["request_id"]
    assert (xcom["cost_usd"], xcom["cost_is_estimate"]) == (0.05, False)
    assert world.stored() == world.image_of(run)
    assert (world.accepted, world.object_keys()) == (1, [KEY])


def test_expired_image_is_left_to_the_submitting_task(
    submitted: dict[str, Any], sensor_task: SensorTask, world: World
) -> None:
    world.pass_time(8 * DAY)

    result = sensor_task(submitted, retries=1).to_end()

    assert result.state == "failed"
    assert_error(result, "The vendor no longer holds the image", "Another attempt of the task that submitted it")


def test_stored_image_is_copied_whatever_its_age(
    submitted: dict[str, Any], image_task: ImageTask, sensor_task: SensorTask, world: World
) -> None:
    assert_succeeded(world.run(image_task("another")))
    world.pass_time(8 * DAY)
    again = image_task(task_id="submit", wait_for_completion=False)
    assert_succeeded(again.execute())
    run = sensor_task(again.xcom(), s3_key="elsewhere/")

    assert_succeeded(run.to_end())

    xcom = run.xcom()
    assert xcom["key"] == f"elsewhere/{submitted['request_id']}.png"
    assert world.stored(xcom["key"]) == world.stored()
    assert (xcom["cost_usd"], xcom["prompt"]) == (0.05, submitted["prompt"])
    assert world.accepted == 1


def test_result_that_is_late_does_not_skip_the_task(
    submitted: dict[str, Any], sensor_task: SensorTask, world: World
) -> None:
    world.emulator.advance(MINUTE)
    world.emulator.fault("result", "error", status=404)
    run = sensor_task(submitted, soft_fail=True)
    assert run.execute().state == "deferred"
    assert "is completed, but its image is not stored yet" in run.log_text
    world.clock.advance(MINUTE)

    assert_succeeded(run.resume(run.fire()))


class TestIfExists:
    def test_own_image_is_not_fetched_again(
        self, submitted: dict[str, Any], sensor_task: SensorTask, world: World
    ) -> None:
        first = sensor_task(submitted)
        first.to_end()
        calls = world.emulator.stats().calls
        again = sensor_task(submitted)

        assert_succeeded(again.execute())

        assert world.emulator.stats().calls == calls
        assert again.xcom() == first.xcom()

    @pytest.mark.parametrize("if_exists", ["reuse", "overwrite", "fail"])
    def test_own_image_is_the_result_after_the_hour(
        self, if_exists: str, submitted: dict[str, Any], sensor_task: SensorTask, world: World
    ) -> None:
        run = sensor_task(submitted, if_exists=if_exists)
        run.to_end()
        first = run.xcom()
        world.pass_time(HOUR + MINUTE)

        assert_succeeded(run.clear())

        assert run.xcom() == first

    @pytest.mark.parametrize("if_exists", ["reuse", "overwrite"])
    def test_another_object_is_replaced(
        self, if_exists: str, submitted: dict[str, Any], sensor_task: SensorTask, world: World
    ) -> None:
        world.put(KEY, b"not ours")
        run = sensor_task(submitted, if_exists=if_exists)

        assert_succeeded(run.to_end())

        assert world.stored() == world.image_of(run)

    def test_fail_keeps_another_object(self, submitted: dict[str, Any], sensor_task: SensorTask, world: World) -> None:
        world.put(KEY, b"not ours")

        result = sensor_task(submitted, if_exists="fail", retries=2).execute()

        assert result.state == "failed"
        assert isinstance(result.error, AirflowFailException)
        assert_error(result, "The request is charged if it completes, and is not lost")
        assert world.stored() == b"not ours"
