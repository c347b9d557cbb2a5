"""What goes wrong with one image: what the task does, what it pays, and what it says."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from airflow_provider_ideogram.api import polling
from airflow_provider_ideogram.emulator.running import connection_to, run_emulator
from airflow_provider_ideogram.emulator.settings import DEFAULT_FORBIDDEN_KEY, EmulatorSettings
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.hooks import image as image_module
from airflow_provider_ideogram.jobs import completion
from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client

    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from tests.integration.conftest import Clock
    from tests.support.task_runner import Slice, TaskRunner

    Generate = Callable[..., IdeogramGenerateImageOperator]

KEY = "images/lighthouse.png"


def said(result: Slice) -> str:
    """Return what the task failed with."""
    assert result.error is not None, result.log_text
    return str(result.error)


def is_stored(s3: S3Client, bucket: str) -> bool:
    try:
        s3.head_object(Bucket=bucket, Key=KEY)
    except ClientError:
        return False
    return True


@pytest.fixture
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker that sleeps fail."""

    def sleep(seconds: float) -> None:
        raise AssertionError(f"a worker slept {seconds} s")

    monkeypatch.setattr(time, "sleep", sleep)


class TestBeforeMoney:
    """What is refused before anything is paid."""

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({"prompt": " "}, "prompt: must not be empty"),
            ({"resolution": "1000x1000"}, "The nearest is"),
            ({"style_type": "REALISTC"}, "'REALISTIC'"),
            ({"magic_prompt_option": "on"}, "'ON'"),
            ({"seed": -1}, "seed: -1"),
            ({"s3_key": "no-bucket.png", "s3_bucket": None}, "names no bucket"),
            ({"if_exists": "overwite"}, "if_exists"),
            ({"timeout": 0}, "timeout"),
            ({"s3_extra_args": {"Body": "the image"}}, "s3_extra_args"),
        ],
    )
    def test_bad_input_is_found_while_the_dag_is_parsed(self, wrong: dict[str, Any], named: str) -> None:
        arguments = {"task_id": "generate", "prompt": "a lighthouse", "s3_key": KEY, "s3_bucket": "bucket", **wrong}

        with pytest.raises(IdeogramInvalidInput, match="nothing was sent or charged") as raised:
            IdeogramGenerateImageOperator(**arguments)

        assert named in str(raised.value)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"resolution": "{{ dag_run.conf.get('size', 'huge') }}"},
            {"seed": "{{ ds }}"},
            {"s3_key": "{{ '' }}"},
            {"s3_extra_args": {"ServerSideEncription": "{{ ds }}"}},
        ],
    )
    def test_bad_templates_are_found_before_anything_is_sent(
        self, wrong: dict[str, Any], generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        result = task_runner(generate(retries=3, **wrong)).execute()

        assert result.state == "failed"
        assert "nothing was sent or charged" in said(result)
        assert ideogram_emulator.stats().calls == {}

    @pytest.mark.parametrize(
        ("key", "error", "do"),
        [
            ("wrong-key", "authentication", "Check the connection's API key"),
            (DEFAULT_FORBIDDEN_KEY, "permission", "Check the account's plan"),
        ],
    )
    def test_a_key_that_may_not_is_not_tried_again(
        self,
        key: str,
        error: str,
        do: str,
        monkeypatch: pytest.MonkeyPatch,
        generate: Generate,
        task_runner: TaskRunner,
        ideogram_emulator: RunningEmulator,
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", connection_to(ideogram_emulator.url, key))

        run = task_runner(generate(retries=3))
        result = run.execute()

        assert result.state == "failed"
        assert run.xcom("failure")["reason"] == error
        assert all(words in said(result) for words in ("Nothing was charged", do))
        assert key not in said(result)
        assert ideogram_emulator.stats().calls == {"submit": 1}

    def test_an_empty_account_is_not_asked_again(
        self, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        ideogram_emulator.configure(credits=0.01)
        run = task_runner(generate(retries=3))

        result = run.execute()

        assert result.state == "failed"
        assert run.xcom("failure")["reason"] == "insufficient_credits"
        assert all(words in said(result) for words in ("Nothing was charged", "Add credits at Segmind"))
        assert ideogram_emulator.stats().calls == {"submit": 1}

    def test_an_unknown_model_is_not_asked_again(
        self, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        run = task_runner(generate(retries=3, model="ideogram-0"))
        result = run.execute()

        assert result.state == "failed"
        assert run.xcom("failure")["reason"] == "not_found"
        assert all(words in said(result) for words in ("Nothing was charged", "Check the model"))
        assert ideogram_emulator.stats().calls == {"submit": 1}

    def test_a_connection_that_is_not_valid_fails_without_retry(
        self, monkeypatch: pytest.MonkeyPatch, generate: Generate, task_runner: TaskRunner
    ) -> None:
        connection = {"conn_type": "ideogram", "password": "secret", "extra": {"requests_per_minut": 5}}
        monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", json.dumps(connection))

        result = task_runner(generate(retries=3)).execute()

        assert result.state == "failed"
        assert all(words in said(result) for words in ("nothing was sent or charged", "'requests_per_minute'"))

    def test_a_missing_bucket_is_found_before_paying(
        self, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        result = task_runner(generate(retries=3, s3_bucket="no-such-bucket")).execute()

        assert all(words in said(result) for words in ("s3://no-such-bucket", "Nothing was charged"))
        assert ideogram_emulator.stats().calls == {}

    def test_a_server_that_is_not_there_is_tried_again(
        self,
        monkeypatch: pytest.MonkeyPatch,
        generate: Generate,
        task_runner: TaskRunner,
        ideogram_emulator: RunningEmulator,
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", connection_to(url, ideogram_emulator.api_key))

        result = task_runner(generate(retries=1)).execute()

        assert result.state == "up_for_retry"
        assert "Nothing was sent or charged" in said(result)

    def test_a_submit_that_was_refused_a_connection_is_repeated(
        self, monkeypatch: pytest.MonkeyPatch, generate: Generate, task_runner: TaskRunner
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        settings = EmulatorSettings(port=port, queue_seconds=0.05, job_seconds=0.15)
        monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", connection_to(f"http://127.0.0.1:{port}", settings.keys[0]))
        started = []
        with ExitStack() as servers, monkeypatch.context() as until_started:

            def start_server(_: float) -> None:
                until_started.undo()
                started.append(servers.enter_context(run_emulator(settings)))

            until_started.setattr(time, "sleep", start_server)  # the wait between two attempts

            assert task_runner(generate()).execute().state == "deferred"

            assert started[0].stats().accepted == 1


class TestRateLimit:
    """A submit that the server puts off."""

    def test_waits_in_the_triggerer_and_pays_once(
        self,
        no_sleep: None,
        clock: Clock,
        generate: Generate,
        task_runner: TaskRunner,
        ideogram_emulator: RunningEmulator,
    ) -> None:
        ideogram_emulator.fault("submit", "error", status=429, retry_after="40")
        run = task_runner(generate())
        before = clock()

        first = run.execute()

        assert first.state == "deferred"
        assert run.deferral is not None
        assert run.deferral["trigger_kwargs"]["deadline"] >= before + 40
        assert "request_id" not in run.xcoms
        assert ideogram_emulator.stats().accepted == 0
        clock.advance(120)
        assert run.resume(run.fire()).state == "deferred"
        assert ideogram_emulator.stats().accepted == 1
        assert run.resume(run.fire()).state == "success"
        assert ideogram_emulator.stats().calls["submit"] == 2

    def test_holds_for_tasks_that_are_not_deferrable_too(
        self, no_sleep: None, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        ideogram_emulator.fault("submit", "error", status=429, retry_after="40")

        assert task_runner(generate(deferrable=False)).execute().state == "deferred"

    def test_a_limit_that_stays_ends_the_task_unpaid(
        self, clock: Clock, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        ideogram_emulator.fault("submit", "error", status=429, retry_after="600", times=None)
        run = task_runner(generate(retries=1))

        result = run.execute()
        while result.state == "deferred":
            clock.advance(1000)
            result = run.resume(run.fire())

        assert result.state == "up_for_retry"
        assert all(words in said(result) for words in ("rate limit", "Nothing was charged", "requests_per_minute"))
        assert ideogram_emulator.stats().accepted == 0

    def test_several_tasks_share_a_minute(
        self, clock: Clock, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        ideogram_emulator.configure(rate_limit=2)
        first, second, third = [task_runner(generate(task_id=f"t{n}", s3_key=f"images/{n}.png")) for n in range(3)]
        assert [first.to_end().state, second.to_end().state, third.execute().state] == [
            "success",
            "success",
            "deferred",
        ]
        clock.advance(120)
        ideogram_emulator.advance(61)

        assert third.resume(third.fire()).state == "deferred"

        assert ideogram_emulator.stats().accepted == 3
        assert third.resume(third.fire()).state == "success"


class TestUnknownSubmit:
    """A submit that nobody answered."""

    def test_one_that_was_accepted_is_found_and_not_repeated(
        self, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        ideogram_emulator.fault("submit", "reset", when="after")
        run = task_runner(generate())

        result = run.to_end()

        assert result.state == "success", result.log_text
        stats = ideogram_emulator.stats()
        assert (stats.accepted, stats.calls["submit"]) == (1, 1)

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_one_that_was_answered_502_is_submitted_again_only_if_it_was_not_accepted(
        self,
        when: str,
        clock: Clock,
        generate: Generate,
        task_runner: TaskRunner,
        ideogram_emulator: RunningEmulator,
    ) -> None:
        ideogram_emulator.fault("submit", "error", status=502, when=when)
        run = task_runner(generate())

        result = run.execute()
        while result.state == "deferred":
            assert run.deferral is not None
            if run.deferral["next_method"] == "submit_again":
                clock.advance(150)
            result = run.resume(run.fire())

        assert result.state == "success", result.log_text
        stats = ideogram_emulator.stats()
        assert (stats.accepted, stats.calls["submit"]) == (1, 2 if when == "before" else 1)

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize(
        ("fault", "arguments"),
        [
            ({"kind": "reset"}, {}),
            ({"kind": "error", "status": 504}, {}),
            ({"kind": "error", "status": 502}, {"resubmit_on_5xx": False}),
        ],
        ids=["reset", "504", "502"],
    )
    def test_one_that_nothing_tells_of_is_never_charged_twice(
        self,
        when: str,
        fault: dict[str, Any],
        arguments: dict[str, Any],
        clock: Clock,
        generate: Generate,
        task_runner: TaskRunner,
        ideogram_emulator: RunningEmulator,
    ) -> None:
        ideogram_emulator.configure(history_lag_seconds=100_000.0)
        ideogram_emulator.fault("submit", when=when, **fault)
        run = task_runner(generate(retries=1, **arguments))

        result = run.execute()
        while result.state == "deferred":
            clock.advance(150)
            result = run.resume(run.fire())

        assert result.state == "up_for_retry"
        assert run.retry().state == "failed"
        assert all(words in said(result) for words in ("may have been", "charged", "Clear the task"))
        stats = ideogram_emulator.stats()
        assert (stats.accepted, stats.calls["submit"]) == (int(when == "after"), 1)

    def test_without_a_ledger_it_fails_and_says_that_money_may_be_spent(
        self, clock: Clock, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        ideogram_emulator.configure(history_lag_seconds=100_000.0)
        ideogram_emulator.fault("submit", "reset", when="after")

        result = task_runner(generate(retries=3, durable=False)).execute()

        assert result.state == "failed"
        assert all(words in said(result) for words in ("may have been", "charged", "Clear the task"))
        assert ideogram_emulator.stats().calls["submit"] == 1


class TestAfterMoney:
    """What becomes of a paid job."""

    def test_a_failed_job_is_a_failure_that_may_be_retried(
        self, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        ideogram_emulator.fault("job", "failed")
        run = task_runner(generate(retries=1))

        result = run.to_end()

        [charge] = ideogram_emulator.requests()
        assert result.state == "up_for_retry"
        assert all(words in said(result) for words in (charge.request_id, "ran out of memory", "not charged", "retry"))
        assert ideogram_emulator.charges() == []
        assert run.retry().state == "deferred"
        assert run.resume(run.fire()).state == "success"

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_blocked_content_fails_without_retry(
        self, deferrable: bool, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        ideogram_emulator.fault("job", "blocked")

        run = task_runner(generate(retries=3, deferrable=deferrable))
        result = run.to_end()

        assert result.state == "failed"
        failure = run.xcom("failure")
        assert set(failure) == {"reason", "error", "advice", "charged", "request_id"}
        assert (failure["reason"], failure["charged"]) == ("content_blocked", False)
        assert all(words in said(result) for words in ("safety filter", "not charged", "Change the prompt"))
        assert ideogram_emulator.charges() == []

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_blocked_content_skips_where_it_was_told_to(
        self, deferrable: bool, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        ideogram_emulator.fault("job", "blocked")

        result = task_runner(generate(on_content_blocked="skip", deferrable=deferrable)).to_end()

        assert result.state == "skipped"
        assert "safety filter" in result.log_text

    def test_a_failed_job_is_not_skipped(
        self, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        ideogram_emulator.fault("job", "failed")

        assert task_runner(generate(on_content_blocked="skip")).to_end().state == "failed"

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_an_expired_result_says_what_is_lost(
        self,
        deferrable: bool,
        monkeypatch: pytest.MonkeyPatch,
        generate: Generate,
        task_runner: TaskRunner,
        ideogram_emulator: RunningEmulator,
    ) -> None:
        monkeypatch.setattr(polling, "RESULT_LIFETIME", 0.5)
        monkeypatch.setattr(completion, "RESULT_LIFETIME", 0.0)
        ideogram_emulator.configure(lifetime_seconds=0.01, file_lifetime_seconds=0.01)

        result = task_runner(generate(deferrable=deferrable)).to_end()

        assert result.state == "failed"
        assert all(
            words in said(result)
            for words in ("no longer holds the image", "charged if it completed", "pays for a new request")
        )
        assert ideogram_emulator.stats().accepted == 1

    def test_timeout_counts_from_the_submission_and_names_the_job(
        self, clock: Clock, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        ideogram_emulator.configure(job_seconds=10_000.0)
        run = task_runner(generate(retries=3, timeout=300))
        before = clock()
        run.execute()
        assert run.deferral is not None
        assert before + 300 <= run.deferral["trigger_kwargs"]["deadline"] <= clock() + 300
        clock.advance(301)

        result = run.resume(run.fire())

        assert result.state in ("failed", "up_for_retry")
        [charge] = ideogram_emulator.requests()
        assert all(
            words in said(result)
            for words in (charge.request_id, "charged if it completes", "not done in time", "timeout")
        )

    def test_the_wait_on_a_worker_ends_at_the_timeout_too(
        self, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        ideogram_emulator.configure(job_seconds=10_000.0)

        result = task_runner(generate(timeout=0.2, deferrable=False)).execute()

        assert result.state == "failed"
        assert "not done in time" in said(result)

    def test_timeout_may_be_longer_than_the_vendor_s_hour(
        self, clock: Clock, generate: Generate, task_runner: TaskRunner
    ) -> None:
        run = task_runner(generate(timeout=100_000))
        before = clock()
        run.execute()

        assert run.deferral is not None
        assert before + 100_000 <= run.deferral["trigger_kwargs"]["deadline"] <= clock() + 100_000

    @pytest.mark.parametrize("deferrable", [True, False])
    @pytest.mark.parametrize(
        "fault",
        [
            {"kind": "error", "status": 500},
            {"kind": "error", "status": 502, "body": "html"},
            {"kind": "error", "status": 503, "body": "empty"},
            {"kind": "error", "status": 504, "body": "binary"},
            {"kind": "error", "status": 429, "retry_after": "0"},
            {"kind": "reset"},
            {"kind": "truncated"},
            {"kind": "not_image"},
        ],
        ids=lambda fault: f"{fault['kind']}{fault.get('status', '')}",
    )
    def test_blips_while_polling_don_t_fail_the_task(
        self,
        fault: dict[str, Any],
        deferrable: bool,
        generate: Generate,
        task_runner: TaskRunner,
        ideogram_emulator: RunningEmulator,
    ) -> None:
        ideogram_emulator.fault("status", times=3, **fault)

        result = task_runner(generate(deferrable=deferrable)).to_end()

        assert result.state == "success", result.log_text
        stats = ideogram_emulator.stats()
        assert stats.accepted == 1
        assert stats.faults == {f"status:{fault['kind']}": 3}

    def test_a_key_that_is_withdrawn_meanwhile_ends_the_wait(
        self, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        run = task_runner(generate())
        run.execute()
        ideogram_emulator.configure(keys=["another-key"])

        result = run.resume(run.fire())

        assert result.state in ("failed", "up_for_retry")
        [charge] = ideogram_emulator.requests()
        assert all(words in said(result) for words in (charge.request_id, "is not lost", "API key"))
        assert ideogram_emulator.stats().calls["status"] == 1

    def test_a_result_without_an_image_says_what_came(
        self, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        ideogram_emulator.fault("job", "result_form", form="none")

        run = task_runner(generate(retries=1))
        result = run.to_end()

        assert run.retry().state == "failed"
        [charge] = ideogram_emulator.requests()
        assert all(words in said(result) for words in (charge.request_id, "no image", "It was charged", "for an hour"))


class TestImage:
    """What goes wrong on the image's way."""

    @pytest.mark.parametrize("operation", ["result", "image"])
    @pytest.mark.parametrize(
        "fault",
        [
            {"kind": "error", "status": 503},
            {"kind": "error", "status": 429},
            {"kind": "reset"},
            {"kind": "truncated"},
        ],
        ids=lambda fault: f"{fault['kind']}{fault.get('status', '')}",
    )
    def test_is_fetched_again_after_a_blip(
        self,
        operation: str,
        fault: dict[str, Any],
        generate: Generate,
        task_runner: TaskRunner,
        ideogram_emulator: RunningEmulator,
        s3: S3Client,
        s3_bucket: str,
    ) -> None:
        ideogram_emulator.fault(operation, times=2, **fault)
        run = task_runner(generate(deferrable=False))

        result = run.execute()

        assert result.state == "success", result.log_text
        content = s3.get_object(Bucket=s3_bucket, Key=KEY)["Body"].read()
        assert content == ideogram_emulator.image_bytes(run.xcom()["request_id"])
        assert ideogram_emulator.stats().accepted == 1

    def test_is_waited_for_in_the_triggerer_while_its_host_is_away(
        self, clock: Clock, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        ideogram_emulator.fault("image", "error", status=503, times=None)
        run = task_runner(generate())
        run.execute()
        assert run.resume(run.fire()).state == "deferred"
        ideogram_emulator.clear_faults()
        clock.advance(60)

        assert run.resume(run.fire()).state == "success"

        assert ideogram_emulator.stats().accepted == 1

    @pytest.mark.parametrize("status", [403, 404, 503])
    def test_is_given_up_at_the_deadline_and_named(
        self, status: int, clock: Clock, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        """A file that is missing within the hour may still appear."""
        ideogram_emulator.fault("image", "error", status=status, times=None)
        run = task_runner(generate())
        run.execute()
        event = run.fire()
        clock.advance(601)

        result = run.resume(event)

        [charge] = ideogram_emulator.requests()
        assert result.state in ("failed", "up_for_retry")
        assert all(words in said(result) for words in (charge.request_id, str(status), "is not lost", "for an hour"))

    @pytest.mark.parametrize(
        ("fault", "named"),
        [
            ({"kind": "not_image"}, "not a complete image"),
            ({"kind": "redirect", "location": "http://169.254.169.254/latest"}, "169.254.169.254"),
            ({"kind": "redirect", "location": "https://images.example.com/a.png"}, "image_hosts"),
            ({"kind": "redirect", "location": "file:///etc/passwd"}, "file"),
            ({"kind": "oversize", "size": 2_000_000}, "more than 1,000,000 bytes"),
            ({"kind": "endless"}, "more than 1,000,000 bytes"),
        ],
        ids=lambda value: value["kind"] if isinstance(value, dict) else None,
    )
    def test_that_is_none_is_not_stored(
        self,
        fault: dict[str, Any],
        named: str,
        monkeypatch: pytest.MonkeyPatch,
        generate: Generate,
        task_runner: TaskRunner,
        ideogram_emulator: RunningEmulator,
        s3: S3Client,
        s3_bucket: str,
    ) -> None:
        monkeypatch.setattr(image_module, "MAX_IMAGE_BYTES", 1_000_000)
        ideogram_emulator.fault("image", times=None, **fault)

        result = task_runner(generate()).to_end()

        [charge] = ideogram_emulator.requests()
        assert result.state == "failed"
        assert all(
            words in said(result) for words in (charge.request_id, "paid", named, "A retry fetches the image again")
        )
        assert not is_stored(s3, s3_bucket)

    def test_is_stored_when_the_bucket_is_there_again(
        self,
        clock: Clock,
        generate: Generate,
        task_runner: TaskRunner,
        ideogram_emulator: RunningEmulator,
        s3: S3Client,
        s3_bucket: str,
    ) -> None:
        run = task_runner(generate(durable=False))
        run.execute()
        s3.delete_bucket(Bucket=s3_bucket)
        assert run.resume(run.fire()).state == "deferred"
        s3.create_bucket(Bucket=s3_bucket)
        clock.advance(60)

        assert run.resume(run.fire()).state == "success"

        assert ideogram_emulator.stats().accepted == 1
        assert is_stored(s3, s3_bucket)
