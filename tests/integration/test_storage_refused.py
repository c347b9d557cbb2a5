"""A permanent refusal by S3: no retry, unless a request of an earlier attempt may be charged or fetched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import botocore.httpsession
import pytest

from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator
from airflow_provider_ideogram.sensors import IdeogramRequestSensor
from tests.support.s3 import s3_response
from tests.support.world import KEY, RECORD_KEY, assert_error, assert_succeeded

if TYPE_CHECKING:
    from tests.support.task_runner import Slice, TaskRun, TaskRunner
    from tests.support.world import ImageTask, World


@contextmanager
def _refused(*suffixes: str, method: str = "", status: int = 403, code: str = "AccessDenied") -> Iterator[None]:
    """Refuse each call to S3 whose path has one of these endings; all calls without one."""
    send = botocore.httpsession.URLLib3Session.send

    def refuse(session: Any, request: Any) -> Any:
        path = request.url.partition("?")[0]
        if request.method.startswith(method) and path.endswith(suffixes or ("",)):
            return s3_response(request, status, code)
        return send(session, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.httpsession.URLLib3Session, "send", refuse)
        yield


def _failure(run: TaskRun, result: Slice) -> tuple[str, str, bool | None]:
    failure = run.xcom("failure")
    return result.state, failure["reason"], failure["charged"]


def test_first_attempt_is_not_retried(image_task: ImageTask, world: World) -> None:
    run = image_task(retries=3)
    with _refused():
        result = run.execute()
    assert _failure(run, result) == ("failed", "storage_refused", False)
    assert_error(result, "Nothing was charged by this call to S3. Permit the call to the worker's role")
    assert world.emulator.stats().calls == {}


def test_refused_record_is_not_retried_either(image_task: ImageTask, world: World) -> None:
    run = image_task(retries=3)
    with _refused(RECORD_KEY, method="PUT"):
        result = run.execute()
    assert _failure(run, result) == ("failed", "ledger_refused", False)
    assert_error(result, "Nothing was charged by this attempt. Give the worker's role access")
    assert world.emulator.stats().calls == {}


def test_pending_request_is_named_and_fetched_later(image_task: ImageTask, world: World) -> None:
    run = image_task(retries=3)
    assert run.execute().state == "deferred"
    request_id = run.xcom("request_id")

    with _refused(KEY):
        result = run.retry()
    assert _failure(run, result) == ("up_for_retry", "unreachable", None)
    assert_error(result, f"Request {request_id} was submitted before, and is charged if it completes")
    assert run.xcom("failure")["request_id"] == request_id

    assert_succeeded(world.to_end(run, run.retry()))
    assert (world.accepted, run.xcom()["request_id"]) == (1, request_id)


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (404, "NoSuchBucket")])
def test_record_that_cannot_be_read_may_be_of_a_request(
    status: int, code: str, image_task: ImageTask, world: World
) -> None:
    run = image_task(retries=3)
    assert run.execute().state == "deferred"

    with _refused(status=status, code=code):
        result = run.retry()
    assert _failure(run, result) == ("up_for_retry", "unreachable", None)
    assert_error(result, "An earlier attempt may have submitted a request")

    assert_succeeded(world.to_end(run, run.retry()))
    assert world.accepted == 1


def test_unanswered_submit_is_pending(image_task: ImageTask, world: World) -> None:
    run = image_task(retries=3)
    world.emulator.fault("submit", "reset", when="after")
    world.emulator.configure(history_lag_seconds=60.0)
    assert run.execute().state == "deferred"

    with _refused(KEY):
        result = run.retry()
    assert _failure(run, result) == ("up_for_retry", "unreachable", None)
    assert_error(result, "may have been accepted, and is charged if it completes", "searches the account's history")


def test_later_attempt_without_a_request_is_not_retried(image_task: ImageTask, world: World) -> None:
    run = image_task(retries=3)
    with _refused(KEY, status=500, code="InternalError"):
        assert run.execute().state == "up_for_retry"

    with _refused(KEY):
        result = run.retry()
    assert _failure(run, result) == ("failed", "storage_refused", False)
    assert world.emulator.stats().calls == {}


def test_sensor_is_retried_as_its_request_is_paid(task_runner: TaskRunner, image_task: ImageTask, world: World) -> None:
    submit = image_task(wait_for_completion=False)
    assert submit.execute().state == "success"
    sensor = IdeogramRequestSensor(task_id="wait", request=submit.xcom(), s3_key=world.uri(), retries=1)
    run = task_runner(sensor)
    for refused in (_refused(KEY), _refused(RECORD_KEY)):
        with refused:
            result = run.execute() if run.state != "up_for_retry" else run.retry()
        assert_error(result, f"Request {submit.xcom()['request_id']} was submitted before")
        assert run.xcom("failure")["charged"] is None


class TestDataset:
    @pytest.fixture
    def run(self, task_runner: TaskRunner, world: World, ideogram_connection: str) -> TaskRun:
        prefix = world.uri("day")
        return task_runner(
            IdeogramGenerateDatasetOperator(task_id="generate", prompts=["a cat"], s3_prefix=prefix, retries=3)
        )

    def test_first_attempt_is_not_retried(self, run: TaskRun, world: World) -> None:
        with _refused():
            result = run.execute()
        assert _failure(run, result) == ("failed", "storage_refused", False)
        assert world.emulator.stats().calls == {}

    def test_running_requests_are_fetched_later(self, run: TaskRun, world: World) -> None:
        assert run.execute().state == "deferred"

        with _refused():
            result = run.retry()
        assert _failure(run, result) == ("up_for_retry", "unreachable", None)
        assert_error(result, "Running requests are charged if they complete")

        assert_succeeded(world.to_end(run, run.retry()))
        assert world.accepted == 1
