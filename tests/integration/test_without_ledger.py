"""A task with ``durable=False``: one execution pays once, and nothing else of it is remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_ideogram.api.retry_flow import MAX_ATTEMPTS
from tests.support.world import KEY, assert_error, assert_succeeded

if TYPE_CHECKING:
    from tests.support.world import ImageTask, World


def test_one_execution_pays_once_and_writes_no_record(image_task: ImageTask, world: World) -> None:
    run = image_task(durable=False)
    assert run.execute().state == "deferred"
    assert world.object_keys() == []

    assert_succeeded(run.resume(run.fire()))

    assert (world.accepted, world.object_keys()) == (1, [KEY])


def test_next_attempt_submits_a_new_request(image_task: ImageTask, world: World) -> None:
    run = image_task(durable=False, retries=1)
    run.execute()

    assert_succeeded(world.to_end(run, run.retry()))

    assert world.accepted == 2


def test_paid_request_without_an_image_is_not_retried(image_task: ImageTask, world: World) -> None:
    run = image_task(durable=False, retries=3, deferrable=False)
    world.emulator.fault("image", "not_image", times=MAX_ATTEMPTS)

    result = run.execute()

    assert result.state == "failed"
    assert isinstance(result.error, AirflowFailException)
    assert world.accepted == 1


def test_unknown_submit_is_not_retried(image_task: ImageTask, world: World) -> None:
    world.emulator.configure(history_lag_seconds=100_000.0)
    world.emulator.fault("submit", "reset", when="after")

    result = image_task(retries=3, durable=False).execute()

    assert result.state == "failed"
    assert_error(result, "may have been accepted", "charged", "Clear the task")
    assert world.submits == 1
