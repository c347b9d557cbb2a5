"""Images whose request the vendor no longer lists: recovered from the history for seven days, then submitted anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client

    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator
    from tests.integration.conftest import Clock
    from tests.support.task_runner import TaskRunner

    Generate = Callable[..., IdeogramGenerateImageOperator]

IMAGES = 20
FIRST_AGE, LAST_AGE = 61 * 60.0, 6 * 86400.0


def _advance(seconds: float, *clocks: Any) -> None:
    for clock in clocks:
        clock.advance(seconds)


def test_requests_are_resumed_between_an_hour_and_six_days_later_without_a_submit(
    generate: Generate,
    task_runner: TaskRunner,
    ideogram_emulator: RunningEmulator,
    clock: Clock,
    s3: S3Client,
    s3_bucket: str,
) -> None:
    runs = [task_runner(generate(task_id=f"t{n}", s3_key=f"images/{n}.png", retries=1)) for n in range(IMAGES)]
    for run in runs:
        assert run.execute().state == "deferred"

    _advance(FIRST_AGE, clock, ideogram_emulator)
    for n, run in enumerate(runs):
        result = run.retry()
        assert result.state == "success", result.log_text
        xcom = run.xcom()
        stored = s3.get_object(Bucket=s3_bucket, Key=f"images/{n}.png")["Body"].read()
        assert stored == ideogram_emulator.image_bytes(xcom["request_id"])
        assert (xcom["cost_usd"], xcom["cost_is_estimate"], xcom["reused"]) == (0.05, False, False)
        _advance((LAST_AGE - FIRST_AGE) / (IMAGES - 1), clock, ideogram_emulator)

    stats = ideogram_emulator.stats()
    assert (stats.accepted, stats.calls["submit"], len(ideogram_emulator.charges())) == (IMAGES, IMAGES, IMAGES)


def test_image_is_expired_after_eight_days_and_then_submitted_once(
    generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator, clock: Clock
) -> None:
    run = task_runner(generate(retries=3))
    assert run.execute().state == "deferred"
    first_request = run.xcom("request_id")
    _advance(8 * 86400.0, clock, ideogram_emulator)

    result = run.retry()

    assert result.state == "up_for_retry", result.log_text
    failure = run.xcom("failure")
    assert (failure["reason"], failure["request_id"]) == ("expired", first_request)
    assert ideogram_emulator.stats().accepted == 1
    assert run.retry().state == "deferred"
    assert run.resume(run.fire()).state == "success"
    assert run.xcom()["request_id"] != first_request
    assert ideogram_emulator.stats().accepted == 2
