"""``@task.ideogram``: a function's result is sent unchanged, and the function is called once for each paid image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.jobs.ledger import Ledger
from airflow_provider_ideogram.jobs.submission import Submitter
from tests.support.airflow_version import need_airflow
from tests.support.world import KEY, assert_error, assert_succeeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.task_runner import TaskRun, TaskRunner
    from tests.support.world import World

    Decorate = Callable[..., TaskRun]


@pytest.fixture
def decorate(ideogram_connection: str, s3_bucket: str, task_runner: TaskRunner) -> Decorate:
    """Make a task of a function and return its run."""

    def make(function: Callable[..., Any], *args: Any, **arguments: Any) -> TaskRun:
        with DAG("decorated", schedule=None):
            options: dict[str, Any] = {"s3_key": KEY, "s3_bucket": s3_bucket, "retries": 2} | arguments
            return task_runner(task.ideogram(**options)(function)(*args).operator)

    return make


class Prompts:
    """Makes a function that returns another prompt with each call."""

    def __init__(self) -> None:
        self.calls = 0

    def function(self) -> Callable[[], str]:
        def prompt() -> str:
            self.calls += 1
            return f"lighthouse number {self.calls}"

        return prompt


def test_prompt_is_sent_as_it_was_returned(decorate: Decorate, world: World) -> None:
    def poster(theme: str, ds: str | None = None) -> str:
        return f"{theme} on {ds}, with {{{{ ds }}}} and {{% if %}}"

    run = decorate(poster, "a lighthouse")

    assert run.to_end().state == "success"

    [request] = world.emulator.requests()
    assert request.inputs["prompt"] == "a lighthouse on 2026-01-02, with {{ ds }} and {% if %}"
    assert run.xcom()["prompt"] == request.inputs["prompt"]


def test_mapping_overrides_the_tasks_own_parameters(decorate: Decorate, world: World) -> None:
    def poster() -> dict[str, Any]:
        return {"prompt": "a lighthouse", "seed": 7, "resolution": "1344x768"}

    run = decorate(poster, style_type="ANIME", resolution="512x1536")

    assert run.to_end().state == "success"

    [request] = world.emulator.requests()
    assert request.inputs == {
        "prompt": "a lighthouse",
        "magic_prompt_option": "AUTO",
        "resolution": "RESOLUTION_1344_768",
        "style_type": "ANIME",
        "seed": 7,
    }


@pytest.mark.parametrize("arguments", [{"deferrable": False}, {"wait_for_completion": False}])
def test_task_that_does_not_defer_returns_its_result(arguments: dict[str, Any], decorate: Decorate) -> None:
    run = decorate(Prompts().function(), **arguments)

    result = run.execute()

    assert result.state == "success", result.log_text
    assert run.xcom()["prompt"] == "lighthouse number 1"


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (None, "it returned NoneType, not a prompt or a mapping"),
        ({"promt": "a cat"}, "it returned an unknown 'promt'. Did you mean 'prompt'?"),
        ({"seed": 3}, "it returned a mapping without a prompt"),
        (" ", "prompt: must not be empty"),
        ({"prompt": "a cat", "style_type": "ANIM"}, "Did you mean 'ANIME'?"),
    ],
)
def test_invalid_result_fails_before_a_call(returned: Any, problem: str, decorate: Decorate, world: World) -> None:
    def poster() -> Any:
        return returned

    result = decorate(poster).execute()

    assert result.state == "failed"
    assert problem in str(result.error)
    assert "Nothing was sent or charged" in str(result.error)
    assert world.emulator.stats().calls == {}


def test_prompt_argument_fails_while_the_dag_is_parsed(decorate: Decorate) -> None:
    with pytest.raises(IdeogramInvalidInput, match="prompt: is returned by the decorated function"):
        decorate(Prompts().function(), prompt="a cat")


class Killed(BaseException):
    """The worker's process was killed."""


def _killed(owner: Any, name: str, *, after: bool) -> Any:
    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> None:
        if after:
            original(*args, **kwargs)
        raise Killed

    return mock.patch.object(owner, name, call)


def _attempt(run: TaskRun) -> None:
    """Run an attempt until it is killed."""
    assert isinstance(run.to_end().error, Killed)


class TestAnotherAttempt:
    """The function returns another prompt each time, and only the first one may be paid."""

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
    def test_sends_the_prompt_of_the_first_attempt(
        self,
        owner: Any,
        name: str,
        after: bool,
        decorate: Decorate,
        world: World,
    ) -> None:
        prompts = Prompts()
        run = decorate(prompts.function(), on_unknown_submit="resubmit")
        with _killed(owner, name, after=after):
            _attempt(run)

        assert_succeeded(world.to_end(run, run.retry()))

        assert prompts.calls == 1
        [request] = world.emulator.requests()
        assert request.inputs["prompt"] == "lighthouse number 1" == run.xcom()["prompt"]
        assert world.stored() == world.image_of(run)

    def test_calls_the_function_if_nothing_was_recorded(self, decorate: Decorate, world: World) -> None:
        prompts = Prompts()
        run = decorate(prompts.function())
        with _killed(Submitter, "get_or_submit", after=False):
            _attempt(run)

        assert run.retry().state == "deferred"

        assert prompts.calls == 2
        assert world.accepted == 1

    def test_calls_the_function_after_a_clear(self, decorate: Decorate, world: World) -> None:
        prompts = Prompts()
        run = decorate(prompts.function())
        assert run.to_end().state == "success"

        assert_succeeded(world.to_end(run, run.clear()))

        assert run.xcom()["prompt"] == "lighthouse number 2"
        assert world.accepted == 2

    def test_fails_if_the_inputs_of_its_stored_image_are_unknown(self, decorate: Decorate, world: World) -> None:
        run = decorate(Prompts().function())
        with _killed(Ledger, "delete", after=True):
            _attempt(run)
        world.emulator.configure(history_lag_seconds=3600)

        result = run.retry()

        assert result.state == "up_for_retry"
        assert_error(result, "is stored at", "does not show its inputs")
        assert world.accepted == 1


def test_two_slices_at_once_pay_for_the_first_prompt(decorate: Decorate, world: World) -> None:
    """Airflow may fail an attempt that goes on, and start the next one before the first has recorded its request."""
    need_airflow("3.0", "task runner without a database, which two slices at once would share")
    runs: list[TaskRun] = []

    def poster() -> str:
        if len(runs) == 1:
            runs.append(decorate(second))
            assert runs[1].execute().state == "deferred"
        return "the first prompt"

    def second() -> str:
        return "the second prompt"

    second.__name__ = poster.__name__  # the same task
    runs.append(decorate(poster))
    assert_succeeded(world.run(runs[0]))
    assert_succeeded(world.to_end(runs[1], runs[1].resume(runs[1].fire())))

    [request] = world.emulator.requests()
    assert request.inputs["prompt"] == "the second prompt" == runs[0].xcom()["prompt"] == runs[1].xcom()["prompt"]


def test_wait_for_the_rate_limit_keeps_what_was_returned(decorate: Decorate, world: World) -> None:
    world.emulator.fault("submit", "error", status=429, retry_after=30)
    prompts = Prompts()
    run = decorate(prompts.function())
    assert run.execute().state == "deferred"
    assert run.deferral is not None
    event = {"requests": {}, "payload": run.deferral["trigger_kwargs"]["payload"], "error": None}

    assert_succeeded(world.to_end(run, run.resume(event)))

    assert prompts.calls == 1
    assert [request.inputs["prompt"] for request in world.emulator.requests()] == ["lighthouse number 1"]
