"""``@task.ideogram``: what a function returned is sent as it is, and asked for once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.jobs.ledger import Ledger
from airflow_provider_ideogram.jobs.submission import Submitter

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client

    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from tests.support.task_runner import TaskRun, TaskRunner

    Decorate = Callable[..., TaskRun]

KEY = "images/lighthouse.png"


@pytest.fixture
def decorate(ideogram_connection: str, s3_bucket: str, task_runner: TaskRunner) -> Decorate:
    """Make a task of a function and return its run."""

    def make(function: Callable[..., Any], *args: Any, **arguments: Any) -> TaskRun:
        with DAG("decorated", schedule=None):
            options = {"s3_key": KEY, "s3_bucket": s3_bucket, "retries": 2} | arguments
            return task_runner(task.ideogram(**options)(function)(*args).operator)  # type: ignore[attr-defined]

    return make


class Answers:
    """A function that returns another prompt with each call."""

    def __init__(self) -> None:
        self.given = 0

    def function(self) -> Callable[[], str]:
        def answer() -> str:
            self.given += 1
            return f"lighthouse number {self.given}"

        return answer


def test_prompt_is_sent_as_it_was_returned(decorate: Decorate, ideogram_emulator: RunningEmulator) -> None:
    def poster(theme: str, ds: str | None = None) -> str:
        return f"{theme} on {ds}, with {{{{ ds }}}} and {{% if %}}"

    run = decorate(poster, "a lighthouse")

    assert run.to_end().state == "success"

    [charge] = ideogram_emulator.requests()
    assert charge.inputs["prompt"] == "a lighthouse on 2026-01-02, with {{ ds }} and {% if %}"
    assert run.xcom()["prompt"] == charge.inputs["prompt"]


def test_mapping_is_laid_over_the_tasks_own_parameters(decorate: Decorate, ideogram_emulator: RunningEmulator) -> None:
    def poster() -> dict[str, Any]:
        return {"prompt": "a lighthouse", "seed": 7, "resolution": "1344x768"}

    run = decorate(poster, style_type="ANIME", resolution="512x1536")

    assert run.to_end().state == "success"

    [charge] = ideogram_emulator.requests()
    assert charge.inputs == {
        "prompt": "a lighthouse",
        "magic_prompt_option": "AUTO",
        "resolution": "RESOLUTION_1344_768",
        "style_type": "ANIME",
        "seed": 7,
    }


@pytest.mark.parametrize("arguments", [{"deferrable": False}, {"wait_for_completion": False}])
def test_what_is_returned_without_deferring_is_the_result(arguments: dict[str, Any], decorate: Decorate) -> None:
    run = decorate(Answers().function(), **arguments)

    result = run.execute()

    assert result.state == "success", result.log_text
    assert run.xcom()["prompt"] == "lighthouse number 1"


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "it returned NoneType, not a prompt or a mapping"),
        ({"promt": "a cat"}, "it returned an unknown 'promt'. Did you mean 'prompt'?"),
        ({"seed": 3}, "prompt: must be text"),
        (" ", "prompt: must not be empty"),
        ({"prompt": "a cat", "style_type": "ANIM"}, "Did you mean 'ANIME'?"),
    ],
)
def test_what_is_no_request_fails_before_anything_is_sent(
    returned: Any, said: str, decorate: Decorate, ideogram_emulator: RunningEmulator
) -> None:
    def poster() -> Any:
        return returned

    result = decorate(poster).execute()

    assert result.state == "failed"
    assert said in str(result.error)
    assert "nothing was sent or charged" in str(result.error)
    assert ideogram_emulator.stats().calls == {}


def test_prompt_beside_the_function_shows_while_the_dag_is_parsed(decorate: Decorate) -> None:
    with pytest.raises(IdeogramInvalidInput, match="prompt: is returned by the decorated function"):
        decorate(Answers().function(), prompt="a cat")


class Died(BaseException):
    """The worker's process is gone."""


def _dying(owner: Any, name: str, *, after: bool) -> Any:
    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> None:
        if after:
            original(*args, **kwargs)
        raise Died

    return mock.patch.object(owner, name, call)


def _attempt(run: TaskRun) -> None:
    """Run an attempt until it dies."""
    assert isinstance(run.to_end().error, Died)


class TestAnotherAttempt:
    """The function answers differently each time, and only its first answer may be paid."""

    @pytest.mark.parametrize(
        ("owner", "name", "after"),
        [
            (Ledger, "write_intent", True),
            (Ledger, "record_request", False),
            (Ledger, "record_request", True),
            (Ledger, "delete", False),
            (Ledger, "delete", True),
        ],
    )
    def test_asks_for_the_same(
        self,
        owner: Any,
        name: str,
        after: bool,
        decorate: Decorate,
        ideogram_emulator: RunningEmulator,
        clock: Any,
        s3: S3Client,
        s3_bucket: str,
    ) -> None:
        answers = Answers()
        run = decorate(answers.function(), on_unknown_submit="resubmit")
        with _dying(owner, name, after=after):
            _attempt(run)

        result = run.retry()
        while result.state == "deferred":
            for time in (clock, ideogram_emulator):
                time.advance(20.0)
            result = run.resume(run.fire())

        assert result.state == "success", result.log_text
        assert answers.given == 1
        [charge] = ideogram_emulator.requests()
        assert charge.inputs["prompt"] == "lighthouse number 1" == run.xcom()["prompt"]
        stored = s3.get_object(Bucket=s3_bucket, Key=KEY)["Body"].read()
        assert stored == ideogram_emulator.image_bytes(charge.request_id)

    def test_asks_anew_if_the_first_died_before_it_had_asked(
        self, decorate: Decorate, ideogram_emulator: RunningEmulator
    ) -> None:
        answers = Answers()
        run = decorate(answers.function())
        with _dying(Submitter, "get_or_submit", after=False):
            _attempt(run)

        assert run.retry().state == "deferred"

        assert answers.given == 2
        assert ideogram_emulator.stats().accepted == 1

    def test_asks_anew_after_a_person_cleared_it(self, decorate: Decorate, ideogram_emulator: RunningEmulator) -> None:
        answers = Answers()
        run = decorate(answers.function())
        assert run.to_end().state == "success"

        result = run.clear()
        while result.state == "deferred":
            result = run.resume(run.fire())

        assert run.xcom()["prompt"] == "lighthouse number 2"
        assert ideogram_emulator.stats().accepted == 2

    def test_pays_for_no_other_image_where_nothing_tells_what_the_first_asked_for(
        self, decorate: Decorate, ideogram_emulator: RunningEmulator
    ) -> None:
        run = decorate(Answers().function())
        with _dying(Ledger, "delete", after=True):
            _attempt(run)
        ideogram_emulator.configure(history_lag_seconds=3600)

        result = run.retry()

        assert result.state == "up_for_retry"
        assert "it is stored at" in str(result.error)
        assert ideogram_emulator.stats().accepted == 1


def test_wait_for_the_rate_limit_keeps_what_was_returned(
    decorate: Decorate, ideogram_emulator: RunningEmulator
) -> None:
    ideogram_emulator.fault("submit", "error", status=429, retry_after=30)
    answers = Answers()
    run = decorate(answers.function())
    assert run.execute().state == "deferred"
    event = {"requests": {}, "payload": run.deferral["trigger_kwargs"]["payload"], "error": None}  # type: ignore[index]

    result = run.resume(event)
    while result.state == "deferred":
        result = run.resume(run.fire())

    assert answers.given == 1
    assert [charge.inputs["prompt"] for charge in ideogram_emulator.requests()] == ["lighthouse number 1"]
