"""What the log of a task says: a line on submit, a line on storing, and no error without a failure."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.emulator.running import connection_to
from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator
from airflow_provider_ideogram.sensors import IdeogramRequestSensor
from tests.support.task_logs import captured_logs

if TYPE_CHECKING:
    from tests.support.task_runner import Slice, TaskRunner
    from tests.support.world import ImageTask, World


def _error_lines(log_text: str) -> list[str]:
    """Return the lines of errors, but for those of Airflow 3.0's own client of the API server."""
    lines = [line for line in log_text.splitlines() if line.startswith(("ERROR", "CRITICAL"))]
    return [line for line in lines if not line.startswith("ERROR airflow.sdk.api.client")]


def test_image_logs_its_submit_and_its_storing(image_task: ImageTask, world: World) -> None:
    run = image_task(seed=7)

    assert run.to_end().state == "success"

    request_id = run.xcom()["request_id"]
    submitted = (
        f"Submitted request {request_id}: RESOLUTION_1024_1024, style GENERAL, seed 7, ideogram-2a-txt-2-img, "
        "about 0.05 USD; expected in about 12 s"
    )
    assert run.log_text.count(submitted) == 1
    kib = round(len(world.stored()) / 1024)
    assert run.log_text.count(f"Stored {world.uri()}: 1024 x 1024 pixels, {kib} KiB, 0.05 USD. Gallery: ") == 1
    assert _error_lines(run.log_text) == []


def test_reattached_and_reused_images_log_no_submit(image_task: ImageTask, world: World) -> None:
    assert image_task(run_id="one", seed=7).execute().state == "deferred"

    second = image_task(run_id="two", seed=7)
    assert second.to_end().state == "success"
    third = image_task(run_id="three", seed=7)
    assert third.execute().state == "success"

    assert second.log_text.count("Reattached to request") == 1
    assert third.log_text.count("it is reused, and nothing is paid") == 1
    assert "Submitted request" not in second.log_text + third.log_text
    assert _error_lines(third.log_text) == []


def test_wait_for_the_rate_limit_logs_no_error(image_task: ImageTask, world: World) -> None:
    world.emulator.fault("submit", "error", status=429)

    result = image_task().execute()

    assert result.state == "deferred"
    assert result.log_text.count("Next attempt in") == 1
    assert _error_lines(result.log_text) == []


@pytest.mark.usefixtures("ideogram_connection")
def test_dataset_logs_no_error(task_runner: TaskRunner, world: World) -> None:
    operator = IdeogramGenerateDatasetOperator(task_id="generate", prompts=["a cat"], s3_prefix=world.uri("day"))

    run = task_runner(operator)

    assert world.run(run).state == "success"
    assert _error_lines(run.log_text) == []


LOGGER = "ERROR airflow_provider_ideogram.operators.failures"


def _assert_failure(result: Slice, what: str, money: str, remedy: str) -> None:
    """Check the three lines, and that one exception without a cause follows."""
    lines = _error_lines(result.log_text)
    assert [line.removeprefix(f"{LOGGER} ") for line in lines[:3]] == [what, money, remedy]
    assert result.error is not None
    assert result.error.__cause__ is None


def test_missing_bucket_is_named(image_task: ImageTask) -> None:
    result = image_task(s3_bucket="no-such-bucket", retries=3).execute()

    assert result.state == "failed"
    remedy = "Create it, or correct the name of the bucket"
    _assert_failure(result, "Bucket 'no-such-bucket' does not exist", "Nothing was charged", remedy)


def test_missing_connection_is_named(image_task: ImageTask) -> None:
    result = image_task(ideogram_conn_id="segmind").execute()

    assert str(result.error).startswith(
        "Connection 'segmind' does not exist. Nothing was charged. Create it under Admin → Connections"
    )
    remedy = "Create it under Admin → Connections, or correct the id in the task"
    _assert_failure(result, "Connection 'segmind' does not exist", "Nothing was charged", remedy)


def test_connection_of_a_refused_key_is_named(
    image_task: ImageTask, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SEGMIND", connection_to(world.emulator.url, "wrong-key"))

    result = image_task(ideogram_conn_id="segmind", retries=3).execute()

    assert result.state == "failed"
    what = "The API rejected the key of connection 'segmind' (HTTP 401: invalid_api_key)"
    _assert_failure(result, what, "Nothing was charged", "Check the connection's API key")


def test_connection_without_credentials_is_named(image_task: ImageTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_STORE", '{"conn_type": "aws", "extra": {"region_name": "us-east-1"}}')
    monkeypatch.setattr("botocore.credentials.CredentialResolver.load_credentials", lambda _: None)

    result = image_task(aws_conn_id="store").execute()

    what = "Credentials are missing in AWS connection 'store': Unable to locate credentials"
    remedy = "Enter them in the connection, or give the worker a role"
    _assert_failure(result, what, "Nothing was charged by this call to S3", remedy)


class TestEndsThatAirflowDecides:
    def test_timeout_of_a_deferral_names_the_request(self, image_task: ImageTask) -> None:
        run = image_task(retries=1)
        assert run.execute().state == "deferred"

        result = run.time_out()

        assert result.state == "up_for_retry"
        money = f"Request {run.xcom('request_id')} was submitted before, and is charged if it completes"
        what, second = _error_lines(result.log_text)[:2]
        assert what.startswith(f"{LOGGER} Airflow ended the deferral: Trigger")  # Airflow's versions end it differently
        assert second == f"{LOGGER} {money}"
        assert run.xcom("failure")["charged"] is None

    def test_timeout_before_a_submit_says_that_nothing_was_charged(self, image_task: ImageTask, world: World) -> None:
        world.emulator.fault("submit", "error", status=429)
        run = image_task(retries=1)
        assert run.execute().state == "deferred"

        result = run.time_out()

        assert f"{LOGGER} No request was running, and nothing was charged" in _error_lines(result.log_text)
        assert run.xcom("failure")["charged"] is False

    @pytest.mark.usefixtures("ideogram_connection")
    def test_timeout_of_a_dataset_says_where_its_requests_are(self, task_runner: TaskRunner, world: World) -> None:
        operator = IdeogramGenerateDatasetOperator(
            task_id="generate", prompts=["a cat"], s3_prefix=world.uri("day"), retries=1
        )
        run = task_runner(operator)
        assert run.execute().state == "deferred"

        result = run.time_out()

        assert result.state == "up_for_retry"
        assert f"{LOGGER} Running requests are charged if they complete" in _error_lines(result.log_text)

    @pytest.mark.parametrize("soft_fail", [False, True])
    def test_timeout_of_a_sensor_names_the_request(
        self, soft_fail: bool, image_task: ImageTask, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.configure(job_seconds=60.0)
        submit = image_task(wait_for_completion=False)
        assert submit.execute().state == "success"
        request_id = submit.xcom("request_id")
        sensor = IdeogramRequestSensor(
            task_id="wait", request=request_id, s3_key=world.uri(), retries=1, soft_fail=soft_fail
        )
        run = task_runner(sensor)
        assert run.execute().state == "deferred"

        result = run.time_out()

        assert result.state == ("skipped" if soft_fail else "up_for_retry")
        money = f"{LOGGER} Request {request_id} was submitted before, and is charged if it completes"
        assert money in _error_lines(result.log_text)

    def test_end_while_submitting_is_logged(self, image_task: ImageTask, monkeypatch: pytest.MonkeyPatch) -> None:
        def terminate(*_: Any, **__: Any) -> None:
            signal.raise_signal(signal.SIGTERM)
            raise KeyboardInterrupt

        monkeypatch.setattr("airflow_provider_ideogram.hooks.ideogram.IdeogramHook.submit", terminate)

        result = image_task().execute()

        assert "ended while it may be submitting a request, which is charged if it completes" in result.log_text

    def test_end_of_a_dataset_is_logged(self) -> None:
        operator = IdeogramGenerateDatasetOperator(task_id="generate", prompts=["a cat"], s3_prefix="s3://bucket/day")

        lines: list[str] = []
        with captured_logs(lines):
            operator.on_kill()

        assert "Running requests are charged if they complete" in "".join(lines)
