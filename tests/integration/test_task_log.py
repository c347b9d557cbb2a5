"""What the log of a task says: a line on submit, a line on storing, and no error without a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRunner
    from tests.support.world import ImageTask, World


def _error_lines(log_text: str) -> list[str]:
    return [line for line in log_text.splitlines() if line.startswith(("ERROR", "CRITICAL"))]


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


def test_failure_logs_three_lines_and_one_exception(image_task: ImageTask, world: World) -> None:
    result = image_task(s3_bucket="no-such-bucket").execute()

    assert result.state == "failed"
    assert result.error is not None
    assert result.error.__cause__ is None
    logger = "ERROR airflow_provider_ideogram.operators.failures"
    assert _error_lines(result.log_text)[:3] == [
        f"{logger} Bucket 'no-such-bucket' does not exist",
        f"{logger} Nothing was charged",
        f"{logger} Create it, or correct the name of the bucket",
    ]
