"""Attempts, runs, triggers and people that meet at one image: what is paid, what is stored, and what is said."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_provider_ideogram.api.retry_flow import MAX_ATTEMPTS
from airflow_provider_ideogram.exceptions import (
    IdeogramInsufficientCredits,
    IdeogramResultExpired,
    IdeogramTargetBusy,
    IdeogramUnknownSubmit,
)
from airflow_provider_ideogram.jobs import completion
from airflow_provider_ideogram.jobs.ledger import Ledger
from airflow_provider_ideogram.jobs.reconciliation import HISTORY_LAG, RETRY_SECONDS
from airflow_provider_ideogram.operators.image import IdeogramGenerateImageOperator
from tests.support.task_logs import captured_logs

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from tests.integration.conftest import Clock
    from tests.support.task_runner import Slice, TaskRun, TaskRunner

    Generate = Callable[..., IdeogramGenerateImageOperator]

KEY = "images/lighthouse.png"
RECORD_KEY = f"_ideogram/{KEY}.json"
MINUTE, HOUR = 60.0, 3600.0
#: A job that a test lets be running for as long as it wants.
LONG = 1800.0


@dataclass
class World:
    """What the tests compare: the vendor's books and the bucket."""

    emulator: RunningEmulator
    clock: Clock
    s3: S3Client
    bucket: str

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.emulator.advance(seconds)

    def to_end(self, run: TaskRun, result: Slice) -> Slice:
        """Run the attempt to its end, with the time passing that it waits for."""
        while result.state == "deferred":
            assert run.deferral is not None
            if run.deferral["next_method"] == "submit_again":
                self.later(RETRY_SECONDS)
            result = run.resume(run.fire())
        return result

    def charged(self) -> int:
        return self.emulator.stats().accepted

    def stored(self, key: str = KEY) -> bytes:
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def keys(self) -> list[str]:
        return [item["Key"] for item in self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])]

    def image_of(self, run: TaskRun) -> bytes:
        return self.emulator.image_bytes(run.xcom()["request_id"])


@pytest.fixture
def world(ideogram_emulator: RunningEmulator, clock: Clock, s3: S3Client, s3_bucket: str) -> World:
    return World(ideogram_emulator, clock, s3, s3_bucket)


def _succeeded(result: Slice) -> None:
    assert result.state == "success", result.log_text


class TestTriggersThatRunTwice:
    def test_both_events_end_the_task_and_one_image_is_paid(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        run = task_runner(generate())
        run.execute()

        async def both() -> list[Any]:
            return [await run.afire(), await run.afire()]

        first, second = asyncio.run(both())
        assert {name: first[name] for name in ("payload", "error")} == {
            name: second[name] for name in ("payload", "error")
        }
        _succeeded(run.resume(second))

        assert world.charged() == 1
        assert world.keys() == [KEY]

    def test_a_slice_that_airflow_gave_up_and_the_next_attempt_both_end(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        """The scheduler may fail a task whose resumed slice goes on (apache/airflow#72716)."""
        world.emulator.configure(job_seconds=MINUTE)
        operator = generate(poll_interval=0.05)
        given_up, retried = task_runner(operator), task_runner(operator)
        given_up.execute()
        assert retried.execute().state == "deferred"
        world.later(MINUTE)

        _succeeded(given_up.resume(given_up.fire()))
        _succeeded(world.to_end(retried, retried.resume(retried.fire())))

        assert world.charged() == 1
        assert world.keys() == [KEY]
        assert given_up.xcom() == {**retried.xcom(), "completed_at": given_up.xcom()["completed_at"]}


class TestBelowAPrefix:
    def test_image_that_was_stored_by_an_attempt_that_airflow_gave_up_is_found(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        """The scheduler may fail a task whose resumed slice goes on (apache/airflow#72716)."""
        task_runner(generate(s3_key="images/", prompt="another", seed=1)).to_end()
        run = task_runner(generate(s3_key="images/", retries=2))
        run.to_end()
        stored = run.xcom()

        _succeeded(world.to_end(run, run.retry()))

        assert world.charged() == 2
        assert run.xcom() == stored

    @pytest.mark.parametrize("again", ["clear", "another input"])
    def test_image_of_before_is_not_the_result_of_what_is_asked_for_anew(
        self, again: str, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        prompt = "a cat" if again == "clear" else "a cat of {{ ti.try_number }}"
        run = task_runner(generate(s3_key="images/", prompt=prompt, retries=2))
        run.to_end()

        _succeeded(world.to_end(run, run.clear() if again == "clear" else run.retry()))

        assert world.charged() == 2
        assert len(world.keys()) == 2


def test_refused_submit_is_no_unanswered_one_to_a_role_that_may_not_delete(
    generate: Generate, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ledger, "_delete", mock.Mock(side_effect=RuntimeError("AccessDenied")))
    world.emulator.fault("submit", "error", status=406)
    run = task_runner(generate(retries=1))
    assert run.execute().state == "failed"
    world.later(HISTORY_LAG)

    _succeeded(world.to_end(run, run.retry()))

    assert world.charged() == 1


class TestTwoRunsAtOneKey:
    @pytest.mark.parametrize("deferrable", [True, False])
    def test_same_inputs_are_paid_once_and_shared(
        self, deferrable: bool, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        first = task_runner(generate(), run_id="first")
        second = task_runner(generate(deferrable=deferrable), run_id="second")
        assert first.execute().state == "deferred"

        _succeeded(world.to_end(second, second.execute()))
        _succeeded(first.resume(first.fire()))

        assert world.charged() == 1
        assert world.keys() == [KEY]
        assert world.stored() == world.image_of(first) == world.image_of(second)
        assert (first.xcom()["cost_usd"], first.xcom()["reused"]) == (0.05, False)
        assert (second.xcom()["cost_usd"], second.xcom()["reused"]) == (0.0, True)

    def test_the_second_takes_what_the_first_has_stored_meanwhile(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.configure(job_seconds=LONG)
        first, second = (
            task_runner(generate(timeout=LONG * 2, poll_interval=0.05), run_id=name) for name in ("first", "second")
        )
        first.execute()
        second.execute()
        world.later(LONG)

        _succeeded(first.resume(first.fire()))
        _succeeded(second.resume(second.fire()))

        assert world.charged() == 1
        assert first.xcom()["cost_usd"] + second.xcom()["cost_usd"] == 0.05
        assert world.keys() == [KEY]

    def test_other_inputs_wait_until_the_first_is_done(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.configure(job_seconds=LONG)
        first = task_runner(generate(timeout=LONG * 2, poll_interval=0.05), run_id="first")
        second = task_runner(generate(prompt="a harbour", retries=2), run_id="second")
        first.execute()
        world.later(MINUTE)

        busy = second.execute()

        assert busy.state == "up_for_retry"
        assert isinstance(busy.error, IdeogramTargetBusy)
        for words in (first.xcom("request_id"), "first/generate", "Nothing was charged"):
            assert words in str(busy.error)
        assert world.charged() == 1
        world.later(LONG)
        _succeeded(first.resume(first.fire()))
        assert world.stored() == world.image_of(first)

        world.emulator.configure(job_seconds=0.15)
        _succeeded(world.to_end(second, second.retry()))
        assert world.charged() == 2
        assert world.stored() == world.image_of(second)
        assert world.keys() == [KEY]

    def test_tasks_with_keys_of_their_own_don_t_see_each_other(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        runs = [task_runner(generate(s3_key=f"images/{name}.png"), run_id=name) for name in "ab"]
        for run in runs:
            run.execute()
        for run in runs:
            _succeeded(run.resume(run.fire()))
        assert world.charged() == 2
        assert [run.xcom()["cost_usd"] for run in runs] == [0.05, 0.05]


class TestClear:
    """A person starts a task again, in every state."""

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_while_it_is_deferred(
        self, deferrable: bool, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        run = task_runner(generate())
        run.execute()
        run.operator.deferrable = deferrable

        _succeeded(world.to_end(run, run.clear()))

        assert world.charged() == 1
        assert world.keys() == [KEY]
        assert run.xcom()["cost_usd"] == 0.05

    def test_while_it_fetches(self, generate: Generate, task_runner: TaskRunner, world: World) -> None:
        run = task_runner(generate(retries=0))
        run.execute()
        world.emulator.fault("image", "not_image", times=MAX_ATTEMPTS)
        assert run.resume(run.fire()).state == "failed"

        _succeeded(world.to_end(run, run.clear()))

        assert world.charged() == 1
        assert world.stored() == world.image_of(run)

    @pytest.mark.parametrize("if_exists", ["overwrite", "fail"])
    def test_what_it_takes_up_is_its_own_for_a_retry(
        self, if_exists: str, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        run = task_runner(generate(if_exists=if_exists, retries=1))
        run.execute()
        _succeeded(world.to_end(run, run.clear()))

        _succeeded(run.retry())  # Airflow had failed the attempt that went on and stored the image

        assert world.charged() == 1
        assert run.xcom()["cost_usd"] == 0.05

    def test_after_its_success(self, generate: Generate, task_runner: TaskRunner, world: World) -> None:
        run = task_runner(generate())
        _succeeded(run.to_end())

        _succeeded(run.clear())

        assert world.charged() == 1
        assert (run.xcom()["cost_usd"], run.xcom()["reused"]) == (0.0, True)

    @pytest.mark.parametrize("accepted", [True, False])
    def test_after_an_unknown_submit_is_the_consent_to_pay(
        self, accepted: bool, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.configure(history_lag_seconds=10 * HISTORY_LAG)
        world.emulator.fault("submit", "reset", when="after" if accepted else "before")
        run = task_runner(generate(retries=0))
        failed = world.to_end(run, run.execute())
        assert failed.state == "failed"
        assert isinstance(failed.error, IdeogramUnknownSubmit)
        assert "Clear the task to submit, and pay for, a new one" in str(failed.error)

        _succeeded(world.to_end(run, run.clear()))

        assert world.charged() == 1 + accepted
        assert "Since a person cleared the task, a new request is submitted and charged" in run.log_text
        assert world.keys() == [KEY]

    def test_is_no_consent_where_the_history_knows_by_then(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.configure(history_lag_seconds=HISTORY_LAG + MINUTE)
        world.emulator.fault("submit", "reset", when="after")
        run = task_runner(generate(retries=0))
        assert world.to_end(run, run.execute()).state == "failed"
        world.later(MINUTE)

        _succeeded(world.to_end(run, run.clear()))

        assert world.charged() == 1
        assert run.xcom()["cost_usd"] == 0.05

    def test_a_retry_is_no_consent(self, generate: Generate, task_runner: TaskRunner, world: World) -> None:
        world.emulator.fault("submit", "reset")
        run = task_runner(generate(retries=3))
        result = world.to_end(run, run.execute())
        for _ in range(3):
            assert isinstance(result.error, IdeogramUnknownSubmit)
            result = run.retry()
        assert result.state == "failed"
        assert world.charged() == 0


class TestUnknownSubmit:
    @pytest.mark.parametrize("deferrable", [True, False])
    def test_is_found_in_the_history_when_that_is_late(
        self, deferrable: bool, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.configure(history_lag_seconds=50)
        world.emulator.fault("submit", "error", status=502, when="after")
        run = task_runner(generate(deferrable=deferrable))

        waiting = run.execute()

        assert waiting.state == "deferred"
        assert run.deferral is not None
        assert (run.deferral["next_method"], run.deferral["trigger_kwargs"]["requests"]) == ("submit_again", {})
        _succeeded(world.to_end(run, waiting))
        assert (world.charged(), world.emulator.stats().calls["submit"]) == (1, 1)
        assert run.xcom()["cost_usd"] == 0.05

    def test_is_paid_again_by_those_who_said_so(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.configure(history_lag_seconds=10 * HISTORY_LAG)
        world.emulator.fault("submit", "reset", when="after")
        run = task_runner(generate(on_unknown_submit="resubmit"))

        _succeeded(world.to_end(run, run.execute()))

        first, second = world.emulator.requests()
        assert first.inputs == second.inputs
        assert world.emulator.stats().calls["submit"] == 2


class TestTheHour:
    def test_a_retry_after_61_minutes_says_that_the_first_was_lost_and_paid(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        run = task_runner(generate(retries=1))
        run.execute()
        lost = run.xcom("request_id")
        world.later(61 * MINUTE)

        _succeeded(world.to_end(run, run.retry()))

        assert world.charged() == 2
        assert f"Request {lost} was submitted and paid, but the vendor no longer knows it" in run.log_text
        assert "A new request is submitted and charged" in run.log_text
        assert run.xcom()["request_id"] != lost
        assert world.stored() == world.image_of(run)
        first, second = world.emulator.requests()
        assert first.inputs == second.inputs
        assert world.keys() == [KEY]

    def test_a_task_that_resumes_after_61_minutes_says_so_and_pays_nothing_itself(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        run = task_runner(generate(retries=1))
        run.execute()
        event = run.fire()
        lost = run.xcom("request_id")
        world.later(61 * MINUTE)

        late = run.resume(event)

        assert late.state == "up_for_retry"
        assert isinstance(late.error, IdeogramResultExpired)
        assert lost in str(late.error)
        assert world.charged() == 1

    @pytest.mark.parametrize("late", [11 * MINUTE, 58 * MINUTE])
    def test_a_late_resume_still_fetches_what_is_there(
        self, late: float, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.configure(job_seconds=9 * MINUTE)
        run = task_runner(generate(timeout=5 * MINUTE))
        run.execute()
        world.later(6 * MINUTE)
        event = run.fire()
        assert [report["outcome"] for report in event["requests"].values()] == ["pending"]
        world.later(late - 6 * MINUTE)

        _succeeded(run.resume(event))

        assert world.charged() == 1
        assert world.stored() == world.image_of(run)

    def test_the_deadline_is_the_submission_s_on_every_attempt(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.configure(job_seconds=LONG)
        run = task_runner(generate(retries=3, timeout=LONG * 2))
        run.execute()
        assert run.deferral is not None
        deadline = run.deferral["trigger_kwargs"]["deadline"]
        for _ in range(2):
            world.later(5 * MINUTE)
            assert run.retry().state == "deferred"
            assert run.deferral["trigger_kwargs"]["deadline"] == deadline
        assert world.charged() == 1


class TestNotFound:
    """A 404 within the hour comes of a gateway, of a replica that lags behind, or of another account's key."""

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_while_it_waits_ends_nothing(
        self, deferrable: bool, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.fault("status", "error", status=404, times=5)
        run = task_runner(generate(deferrable=deferrable))

        _succeeded(run.to_end())

        assert world.charged() == 1

    def test_when_a_job_is_taken_up_pays_for_no_other(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        run = task_runner(generate(retries=1, poll_interval=0.05))
        run.execute()
        world.later(5 * MINUTE)
        world.emulator.fault("status", "error", status=404, times=3)

        _succeeded(world.to_end(run, run.retry()))

        assert world.charged() == 1
        assert world.stored() == world.image_of(run)

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_all_the_time_keeps_the_record_for_the_next_attempt(
        self, deferrable: bool, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.fault("status", "error", status=404, times=None)
        run = task_runner(generate(deferrable=deferrable, retries=1, timeout=1.0))

        result = run.to_end()

        assert result.state == "up_for_retry"
        assert "its hour at the vendor is not over: check the connection's host and key" in str(result.error)
        assert world.keys() == [RECORD_KEY]
        world.emulator.clear_faults()
        _succeeded(world.to_end(run, run.retry()))
        assert world.charged() == 1

    def test_for_the_result_of_a_job_that_is_done_is_asked_again(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.fault("result", "error", status=404)
        run = task_runner(generate())
        run.execute()
        result = run.resume(run.fire())
        assert (result.state, world.keys()) == ("deferred", [RECORD_KEY])
        assert "is done, but not here yet: its result is not there yet" in run.log_text
        world.later(MINUTE)

        _succeeded(run.resume(run.fire()))

        assert world.charged() == 1

    def test_of_a_job_that_is_lost_blocks_its_task_for_no_more_than_the_hour(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.configure(lifetime_seconds=0.01)
        run = task_runner(generate(retries=2))
        run.execute()
        lost = run.xcom("request_id")
        world.emulator.configure(lifetime_seconds=HOUR)
        world.later(11 * MINUTE)

        assert world.to_end(run, run.retry()).state == "up_for_retry"
        assert world.charged() == 1

        world.later(50 * MINUTE)
        _succeeded(world.to_end(run, run.retry()))
        assert world.charged() == 2
        assert run.xcom()["request_id"] != lost


class TestOnKill:
    @pytest.mark.parametrize("deferrable", [True, False])
    def test_an_operator_says_that_the_request_continues_and_the_next_attempt_takes_it(
        self,
        deferrable: bool,
        generate: Generate,
        task_runner: TaskRunner,
        world: World,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Airflow sends SIGTERM, which calls ``on_kill``, and ends the process when some time has passed."""

        def end(*_: Any) -> None:
            signal.raise_signal(signal.SIGTERM)
            raise KeyboardInterrupt

        run = task_runner(generate(deferrable=deferrable, retries=1))
        with monkeypatch.context() as patch:
            patch.setattr(completion, "fetch_and_store" if deferrable else "look", end)
            result = run.execute()
            if deferrable:
                result = run.resume(run.fire())

        assert result.state not in ("success", "deferred")
        [charge] = world.emulator.requests()
        assert f"Request {charge.request_id} continues at the vendor and is paid" in result.log_text
        assert world.keys() == [RECORD_KEY]
        _succeeded(world.to_end(run, run.retry()))
        assert run.xcom()["request_id"] == charge.request_id
        assert world.charged() == 1

    def test_before_a_submit_there_is_nothing_to_say(
        self, generate: Generate, caplog: pytest.LogCaptureFixture
    ) -> None:
        generate().on_kill()
        assert "continues" not in caplog.text

    def test_a_deferred_task_s_trigger_says_it_and_the_next_attempt_takes_the_job(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        run = task_runner(generate())
        run.execute()
        request_id = run.xcom("request_id")

        said: list[str] = []
        with captured_logs(said):
            asyncio.run(run.trigger().on_kill())

        assert f"Request {request_id} continues at the vendor and is paid" in "".join(said)
        _succeeded(world.to_end(run, run.clear()))
        assert run.xcom()["request_id"] == request_id
        assert world.charged() == 1


class TestInputs:
    """What an attempt asks for and what the ledger says was asked for."""

    def test_changed_between_attempts_give_the_old_request_up_by_name(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        run = task_runner(generate(retries=1))
        run.execute()
        old = run.xcom("request_id")
        run.operator.prompt = "a harbour"

        _succeeded(world.to_end(run, run.retry()))

        assert [charge.inputs["prompt"] for charge in world.emulator.requests()] == ["a lighthouse", "a harbour"]
        assert f"Request {old} of" in run.log_text
        assert "with other inputs. It is given up, and a new one is submitted" in run.log_text
        assert world.stored() == world.image_of(run)
        assert world.keys() == [KEY]

    def test_the_drawn_seed_is_kept_for_the_next_attempt(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.fault("job", "failed")
        run = task_runner(generate(retries=1))
        run.execute()
        world.later(1)

        _succeeded(world.to_end(run, run.retry()))

        first, second = world.emulator.requests()
        assert first.inputs == second.inputs
        assert world.charged() == 2

    def test_that_render_differently_on_resume_change_nothing(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        times = itertools.count()
        with DAG("lighthouses", schedule=None, user_defined_macros={"number": lambda: next(times)}):
            operator = generate(prompt="lighthouse {{ number() }}", s3_key="images/{{ number() }}.png")
        run = task_runner(operator)
        run.execute()

        event = run.fire()
        _succeeded(run.resume(event))

        assert next(times) == 4
        [charge] = world.emulator.requests()
        assert charge.inputs["prompt"] == run.xcom()["prompt"] == "lighthouse 0"
        assert run.xcom()["key"] == "images/1.png"
        assert world.keys() == ["images/1.png"]


class TestWithoutLedger:
    """``durable=False``, as documented: one execution's memory and no more."""

    def test_one_execution_pays_once_and_leaves_nothing(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        run = task_runner(generate(durable=False))
        assert run.execute().state == "deferred"
        assert world.keys() == []
        _succeeded(run.resume(run.fire()))
        assert (world.charged(), world.keys()) == (1, [KEY])

    def test_the_next_attempt_knows_nothing_of_the_job(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        run = task_runner(generate(durable=False, retries=1))
        run.execute()
        _succeeded(world.to_end(run, run.retry()))
        assert world.charged() == 2

    def test_a_paid_job_that_cannot_be_ended_is_not_tried_again(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        run = task_runner(generate(durable=False, retries=3, deferrable=False))
        world.emulator.fault("image", "not_image", times=MAX_ATTEMPTS)
        result = run.execute()
        assert result.state == "failed"
        assert isinstance(result.error, AirflowFailException)
        assert world.charged() == 1


class TestMoneyIsRefused:
    def test_nothing_is_left_in_the_ledger_for_the_next_one(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.configure(credits=0.0)
        run = task_runner(generate(retries=1))

        result = run.execute()

        assert result.state == "failed"
        assert result.error is not None
        assert isinstance(result.error.__cause__, IdeogramInsufficientCredits)
        assert world.keys() == []
        world.emulator.configure(credits=1.0)
        _succeeded(world.to_end(run, run.clear()))
        assert world.charged() == 1

    def test_a_failed_job_is_paid_again_by_the_task_s_retries_only(
        self, generate: Generate, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.fault("job", "failed", times=2)
        run = task_runner(generate(retries=2, retry_delay=timedelta(0)))
        result = world.to_end(run, run.execute())
        for paid in (1, 2):
            assert (result.state, world.charged()) == ("up_for_retry", paid)
            assert world.keys() == []
            result = world.to_end(run, run.retry())
        _succeeded(result)
        assert world.charged() == 3
        assert world.keys() == [KEY]
