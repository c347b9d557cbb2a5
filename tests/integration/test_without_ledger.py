"""A task with ``durable=False``: one execution pays once, and nothing else of it is remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest import mock

import pytest
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


@pytest.mark.parametrize("place", ["hook", "S3"])
def test_error_of_others_after_the_submit_is_not_retried(place: str, image_task: ImageTask, world: World) -> None:
    """No process died: a retry would pay again for a request that this one knows."""
    run = image_task(durable=False, retries=3)
    run.execute()
    event = run.fire()
    name = "hooks.ideogram.IdeogramHook.get_result" if place == "hook" else "storage.image_store.ImageStore.put"

    with mock.patch(f"airflow_provider_ideogram.{name}", side_effect=PermissionError):
        result = run.resume(event)

    assert result.state == "failed"
    assert_error(result, run.xcom("request_id"), "PermissionError")
    assert (run.xcom("failure")["reason"], world.accepted) == ("unreachable", 1)


def test_deferral_that_airflow_ended_is_not_retried(image_task: ImageTask, world: World) -> None:
    run = image_task(durable=False, retries=3)
    run.execute()

    result = run.time_out()

    assert result.state == "failed"
    assert_error(result, "Airflow ended the deferral", "A request may be running")
    assert world.accepted == 1


def test_failed_request_is_retried(image_task: ImageTask, world: World) -> None:
    world.emulator.fault("job", "failed")
    run = image_task(durable=False, retries=1)
    assert run.to_end().state == "up_for_retry"
    assert_succeeded(world.to_end(run, run.retry()))
    assert world.emulator.stats().charged_usd == 0.05


def test_unknown_submit_is_not_retried(image_task: ImageTask, world: World) -> None:
    world.emulator.configure(history_lag_seconds=100_000.0)
    world.emulator.fault("submit", "reset", when="after")

    result = image_task(retries=3, durable=False).execute()

    assert result.state == "failed"
    assert_error(result, "may have been accepted", "charged", "Clear the task")
    assert world.submits == 1
