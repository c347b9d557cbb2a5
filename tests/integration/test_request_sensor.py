"""A request that somebody else has submitted: waited for, stored, and told downstream as the operator does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_provider_ideogram.sensors import IdeogramRequestSensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client

    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator
    from tests.integration.conftest import Clock
    from tests.support.task_runner import TaskRun, TaskRunner

    Generate = Callable[..., IdeogramGenerateImageOperator]
    Sense = Callable[..., IdeogramRequestSensor]

KEY = "images/lighthouse.png"


@pytest.fixture
def sense(ideogram_connection: str, s3_bucket: str) -> Sense:
    """Make the sensor for an image in the test's bucket; arguments are the sensor's own."""

    def make(**arguments: Any) -> IdeogramRequestSensor:
        return IdeogramRequestSensor(**({"task_id": "wait", "s3_key": KEY, "s3_bucket": s3_bucket} | arguments))

    return make


@pytest.fixture
def submitted(generate: Generate, task_runner: TaskRunner) -> TaskRun:
    """A task that has submitted a request and did not wait."""
    run = task_runner(generate(task_id="submit", wait_for_completion=False))
    assert run.execute().state == "success"
    return run


@pytest.fixture
def submitted_elsewhere(ideogram_emulator: RunningEmulator, ideogram_connection: str) -> str:
    """The id of a request that nobody in this Airflow has submitted."""
    answer = httpx.post(
        f"{ideogram_emulator.url}/v2/ideogram-2a-txt-2-img",
        json={"prompt": "a gull", "seed": 7},
        headers={"x-api-key": ideogram_emulator.api_key},
        trust_env=False,
    )
    request_id: str = answer.json()["request_id"]
    return request_id


def _keys(s3: S3Client, bucket: str) -> list[str]:
    return [item["Key"] for item in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


@pytest.mark.parametrize("how", [{}, {"deferrable": False, "poke_interval": 0.05}], ids=["deferred", "poking"])
def test_stores_the_image_of_a_task_that_did_not_wait(
    how: dict[str, Any],
    sense: Sense,
    submitted: TaskRun,
    task_runner: TaskRunner,
    ideogram_emulator: RunningEmulator,
    s3: S3Client,
    s3_bucket: str,
) -> None:
    asked = submitted.xcom()
    run = task_runner(sense(request=asked, **how))

    result = run.to_end()

    assert result.state == "success", result.log_text
    xcom = run.xcom()
    assert s3.get_object(Bucket=s3_bucket, Key=KEY)["Body"].read() == ideogram_emulator.image_bytes(xcom["request_id"])
    assert {name: xcom[name] for name in ("request_id", "prompt", "seed", "model", "submitted_at")} == {
        name: asked[name] for name in ("request_id", "prompt", "seed", "model", "submitted_at")
    }
    assert (xcom["cost_usd"], xcom["reused"]) == (0.05, False)
    assert run.xcom("request_id") == xcom["request_id"]
    assert ideogram_emulator.stats().accepted == 1
    assert _keys(s3, s3_bucket) == [KEY], "the ledger's record is removed when the image is stored"


def test_takes_the_output_of_the_submitting_task(
    generate: Generate, sense: Sense, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
) -> None:
    with DAG("two_steps", schedule=None):
        submit = generate(task_id="submit", wait_for_completion=False, prompt="a {% raw %}{{ lighthouse }}{% endraw %}")
        wait = sense(request=submit.output, s3_key="elsewhere/")
    task_runner(submit).execute()
    run = task_runner(wait)

    assert run.to_end().state == "success"

    xcom = run.xcom()
    assert xcom["prompt"] == "a {{ lighthouse }}", "what was passed on is not rendered once more"
    assert xcom["key"] == f"elsewhere/{xcom['request_id']}.png"


@pytest.mark.parametrize("durable", [True, False])
def test_later_runs_reuse_what_it_stored(
    durable: bool,
    generate: Generate,
    sense: Sense,
    task_runner: TaskRunner,
    ideogram_emulator: RunningEmulator,
) -> None:
    submitted = task_runner(generate(task_id="submit", wait_for_completion=False, durable=durable))
    submitted.execute()
    task_runner(sense(request=submitted.xcom())).to_end()

    later = task_runner(generate(task_id="submit"), run_id="later")

    assert later.execute().state == "success"
    assert later.xcom()["reused"] is True
    assert ideogram_emulator.stats().accepted == 1


def test_request_from_elsewhere_is_known_from_the_history(
    sense: Sense, submitted_elsewhere: str, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
) -> None:
    run = task_runner(sense(request=submitted_elsewhere))

    assert run.to_end().state == "success"

    xcom = run.xcom()
    assert (xcom["prompt"], xcom["seed"], xcom["cost_usd"]) == ("a gull", 7, 0.05)
    assert ideogram_emulator.stats().accepted == 1


def test_image_is_stored_where_nobody_knows_what_was_asked_for(
    sense: Sense,
    submitted_elsewhere: str,
    task_runner: TaskRunner,
    ideogram_emulator: RunningEmulator,
    s3: S3Client,
    s3_bucket: str,
) -> None:
    ideogram_emulator.fault("history", "error", status=503, times=None)
    run = task_runner(sense(request=submitted_elsewhere))

    result = run.to_end()

    assert result.state == "success", result.log_text
    xcom = run.xcom()
    assert (xcom["prompt"], xcom["seed"], xcom["model"]) == (None, None, None)
    assert (xcom["cost_usd"], xcom["cost_is_estimate"]) == (0.05, False), "the vendor's response names the cost"
    assert s3.get_object(Bucket=s3_bucket, Key=KEY)["Body"].read() == ideogram_emulator.image_bytes(submitted_elsewhere)
    assert f"The inputs of request {submitted_elsewhere} are unknown" in run.log_text


@pytest.mark.parametrize(("soft_fail", "state"), [(False, "failed"), (True, "skipped")])
def test_failed_job_fails_it_or_skips_it(
    soft_fail: bool,
    state: str,
    sense: Sense,
    generate: Generate,
    task_runner: TaskRunner,
    ideogram_emulator: RunningEmulator,
) -> None:
    ideogram_emulator.fault("job", "failed")
    submit = task_runner(generate(task_id="submit", wait_for_completion=False))
    submit.execute()
    run = task_runner(sense(request=submit.xcom(), soft_fail=soft_fail, retries=1))

    assert run.to_end().state == state

    failure = run.xcom("failure")
    assert (failure["reason"], failure["charged"]) == ("request_failed", False)
    assert "A retry of the task that submitted it submits a new request" in failure["advice"]
    assert ideogram_emulator.stats().accepted == 1
    assert ideogram_emulator.charges() == []


def test_key_that_is_not_accepted_leaves_the_paid_image_to_a_retry(
    sense: Sense, submitted: TaskRun, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
) -> None:
    ideogram_emulator.configure(keys=["another-key-0001"])
    run = task_runner(sense(request=submitted.xcom(), retries=1))

    result = run.to_end()

    assert result.state == "up_for_retry"
    assert "is not lost: the next attempt reattaches to it" in str(result.error)


def test_image_is_recovered_after_the_hour(
    sense: Sense,
    submitted: TaskRun,
    task_runner: TaskRunner,
    ideogram_emulator: RunningEmulator,
    clock: Clock,
    s3: S3Client,
    s3_bucket: str,
) -> None:
    for time in (clock, ideogram_emulator):
        time.advance(3700)
    run = task_runner(sense(request=submitted.xcom()))

    result = run.to_end()

    assert result.state == "success", result.log_text
    xcom = run.xcom()
    assert xcom["request_id"] == submitted.xcom()["request_id"]
    assert (xcom["cost_usd"], xcom["cost_is_estimate"]) == (0.05, False)
    assert s3.get_object(Bucket=s3_bucket, Key=KEY)["Body"].read() == ideogram_emulator.image_bytes(xcom["request_id"])
    assert ideogram_emulator.stats().accepted == 1


def test_expired_request_says_that_the_image_is_lost(
    sense: Sense, submitted: TaskRun, task_runner: TaskRunner, ideogram_emulator: RunningEmulator, clock: Clock
) -> None:
    for time in (clock, ideogram_emulator):
        time.advance(8 * 86400)
    run = task_runner(sense(request=submitted.xcom(), retries=1))

    result = run.to_end()

    assert result.state == "failed"
    assert "The vendor no longer holds the image" in str(result.error)
    assert "Another attempt of the task that submitted it" in str(result.error)


def test_result_that_is_not_there_yet_is_not_skipped(
    sense: Sense, submitted: TaskRun, task_runner: TaskRunner, ideogram_emulator: RunningEmulator, clock: Clock
) -> None:
    ideogram_emulator.advance(60)
    ideogram_emulator.fault("result", "error", status=404)
    run = task_runner(sense(request=submitted.xcom(), soft_fail=True))
    assert run.execute().state == "deferred"
    assert "is completed, but its image is not stored yet" in run.log_text
    clock.advance(60)

    assert run.resume(run.fire()).state == "success"


class TestIfExists:
    def test_its_own_image_is_not_fetched_again(
        self, sense: Sense, submitted: TaskRun, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        first = task_runner(sense(request=submitted.xcom()))
        first.to_end()
        asked = ideogram_emulator.stats().calls
        again = task_runner(sense(request=submitted.xcom()))

        assert again.execute().state == "success"

        assert ideogram_emulator.stats().calls == asked
        assert again.xcom() == first.xcom()

    @pytest.mark.parametrize("if_exists", ["reuse", "overwrite", "fail"])
    def test_its_own_image_is_its_result_after_the_hour(
        self,
        if_exists: str,
        sense: Sense,
        submitted: TaskRun,
        task_runner: TaskRunner,
        ideogram_emulator: RunningEmulator,
        clock: Clock,
    ) -> None:
        run = task_runner(sense(request=submitted.xcom(), if_exists=if_exists))
        run.to_end()
        first = run.xcom()
        for time in (clock, ideogram_emulator):
            time.advance(3700)

        assert run.clear().state == "success"

        assert run.xcom() == first

    @pytest.mark.parametrize("if_exists", ["reuse", "overwrite"])
    def test_another_object_is_replaced(
        self,
        if_exists: str,
        sense: Sense,
        submitted: TaskRun,
        task_runner: TaskRunner,
        ideogram_emulator: RunningEmulator,
        s3: S3Client,
        s3_bucket: str,
    ) -> None:
        s3.put_object(Bucket=s3_bucket, Key=KEY, Body=b"not ours")

        assert task_runner(sense(request=submitted.xcom(), if_exists=if_exists)).to_end().state == "success"

        stored = s3.get_object(Bucket=s3_bucket, Key=KEY)["Body"].read()
        assert stored == ideogram_emulator.image_bytes(submitted.xcom()["request_id"])

    def test_fail_says_that_the_request_is_paid(
        self, sense: Sense, submitted: TaskRun, task_runner: TaskRunner, s3: S3Client, s3_bucket: str
    ) -> None:
        s3.put_object(Bucket=s3_bucket, Key=KEY, Body=b"not ours")

        result = task_runner(sense(request=submitted.xcom(), if_exists="fail", retries=2)).execute()

        assert result.state == "failed"
        assert isinstance(result.error, AirflowFailException)
        assert "The request is charged if it completes, and is not lost" in str(result.error)
        assert s3.get_object(Bucket=s3_bucket, Key=KEY)["Body"].read() == b"not ours"
