"""
Getting the request of a target, against the emulator and an S3 server on sockets.

The cells of the two tables in ``docs/money-and-failure.md`` are tests here and in ``test_reconciliation.py``.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.polling import Outcome
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.emulator.history import HISTORY_PATH
from airflow_provider_ideogram.emulator.running import connection_to
from airflow_provider_ideogram.exceptions import (
    IdeogramContentBlocked,
    IdeogramError,
    IdeogramJobUnreachable,
    IdeogramLedgerError,
    IdeogramNotCharged,
    IdeogramRateLimited,
    IdeogramServerUnavailable,
    IdeogramTargetBusy,
    IdeogramUnknownSubmit,
)
from airflow_provider_ideogram.hooks.client import SegmindClient
from airflow_provider_ideogram.jobs.identity import attempt_group
from airflow_provider_ideogram.jobs.reconciliation import RetryLater
from airflow_provider_ideogram.jobs.record import Intent, LedgerRecord
from airflow_provider_ideogram.jobs.submission import STORING_SECONDS, SUBMIT_SECONDS
from tests.support.s3 import answered
from tests.unit.jobs.world import (
    ASKED,
    DAY,
    HOUR,
    INPUTS,
    JOB_SECONDS,
    ME,
    OTHER_INPUTS,
    OTHER_TASK,
    OWNERS,
    QUEUE_SECONDS,
    RECORD_KEY,
    State,
    World,
    blocked,
    completed,
    expired,
    failed,
    left_unknown,
    processing,
    queued,
    record_gone,
    states,
)


class TestNoRecord:
    def test_intent_is_written_before_and_id_after_the_submit(self, world: World) -> None:
        seen: list[LedgerRecord] = []
        submit = world.hook.submit

        def observed(request: GenerationRequest, **admitted: bool) -> Any:
            seen.append(world.existing_record())
            return submit(request, **admitted)

        with mock.patch.object(world.hook, "submit", observed):
            job, poll = world.get_or_submit()

        [intended] = seen
        assert (intended.request_id, intended.intent.owner, intended.intent.intent_at) == (None, ME, time.time())
        assert intended.intent.fingerprint == ASKED.fingerprint
        recorded = world.existing_record()
        assert recorded == replace(intended, request_id=job.request_id, etag=recorded.etag)
        [accepted] = world.emulator.requests()
        assert accepted.request_id == job.request_id == poll.request_id
        assert accepted.inputs == intended.intent.request.body()
        assert (job, job.paid_by_other_task) == (recorded.job, False)
        assert poll.outcome is Outcome.PENDING

    def test_seed_of_the_user_is_sent(self, world: World) -> None:
        job, _ = world.get_or_submit(replace(ASKED, seed=77))
        assert job.request is not None
        assert job.request.seed == world.emulator.requests()[0].inputs["seed"] == 77

    def test_nothing_is_submitted_without_a_written_intent(self, world: World) -> None:
        with answered(world.client, "PutObject", 403), pytest.raises(IdeogramLedgerError):
            world.get_or_submit()
        assert world.submits() == 0

    def test_nothing_is_submitted_with_an_unreadable_record(self, world: World) -> None:
        world.client.put_object(Bucket=world.bucket, Key=RECORD_KEY, Body=b'{"version": 99}')
        with pytest.raises(IdeogramLedgerError, match="version 99"):
            world.get_or_submit()
        assert world.submits() == 0


class TestRunning:
    """The record's request is queued or processing."""

    @OWNERS
    @states(queued, processing)
    def test_same_inputs_reattach(self, world: World, state: State, owner: str) -> None:
        request_id = state(world, owner)

        job, poll = world.get_or_submit()

        assert (job.request_id, poll.request_id, poll.outcome) == (request_id, request_id, Outcome.PENDING)
        assert job.paid_by_other_task is (owner != ME)
        assert world.submits() == world.accepted() == 1
        assert world.existing_record().job == replace(job, paid_by_other_task=False)

    def test_own_request_after_a_clear_is_of_the_new_attempt_group(self, world: World) -> None:
        request_id = queued(world, ME)

        job, _ = world.get_or_submit(max_tries=5)

        assert (job.request_id, job.attempt_group) == (request_id, attempt_group(ME, 5))

    def test_request_of_another_task_stays_of_its_attempt_group(self, world: World) -> None:
        queued(world, OTHER_TASK)
        assert world.get_or_submit(max_tries=5)[0].attempt_group == attempt_group(OTHER_TASK, 2)

    @states(queued, processing)
    def test_own_request_with_other_inputs_is_abandoned(
        self, world: World, state: State, caplog: pytest.LogCaptureFixture
    ) -> None:
        request_id = state(world, ME)

        job, _ = world.get_or_submit(OTHER_INPUTS)

        assert [request.inputs["prompt"] for request in world.emulator.requests()] == ["a lighthouse", "a harbour"]
        assert job.request_id == world.existing_record().request_id != request_id
        assert f"Request {request_id} of an earlier attempt of this task was submitted for" in caplog.text
        assert "with other inputs. It is abandoned, and a new one is submitted" in caplog.text

    @states(queued, processing)
    def test_other_inputs_wait_for_another_task(self, world: World, state: State) -> None:
        request_id = state(world, OTHER_TASK)

        with pytest.raises(IdeogramTargetBusy) as caught:
            world.get_or_submit(OTHER_INPUTS)

        assert caught.value.retryable
        for words in (request_id, OTHER_TASK, "Nothing was charged"):
            assert words in str(caught.value)
        assert world.submits() == 1
        assert world.existing_record().request_id == request_id


class TestCompleted:
    @OWNERS
    def test_same_inputs_reattach(self, world: World, owner: str) -> None:
        request_id = completed(world, owner)

        job, poll = world.get_or_submit()

        assert (job.request_id, poll.outcome, job.paid_by_other_task) == (request_id, Outcome.COMPLETED, owner != ME)
        assert world.accepted() == 1

    @OWNERS
    def test_other_inputs_replace_it_with_a_warning(
        self, world: World, owner: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        request_id = completed(world, owner)
        world.pass_time(STORING_SECONDS)

        job, _ = world.get_or_submit(OTHER_INPUTS)

        assert job.request_id == world.existing_record().request_id == world.emulator.requests()[1].request_id
        whose = "an earlier attempt of this task" if owner == ME else f"the task {owner}"
        assert f"Request {request_id} of {whose} was submitted for" in caplog.text

    def test_other_inputs_leave_another_task_time_to_store(self, world: World) -> None:
        request_id = queued(world, OTHER_TASK)
        world.emulator.advance(QUEUE_SECONDS + JOB_SECONDS + 1)

        with pytest.raises(IdeogramTargetBusy, match="is COMPLETED"):
            world.get_or_submit(OTHER_INPUTS)

        assert world.existing_record().request_id == request_id
        assert world.submits() == 1


class TestFailed:
    """The record's request failed, was blocked, or its image can no longer be had."""

    @OWNERS
    @INPUTS
    @states(failed, expired)
    def test_new_request_is_submitted(
        self, world: World, state: State, owner: str, request_: GenerationRequest
    ) -> None:
        first = state(world, owner)

        job, poll = world.get_or_submit(request_)

        assert world.accepted() == 2
        assert job.request_id == world.existing_record().request_id == poll.request_id != first
        assert (job.paid_by_other_task, poll.outcome) == (False, Outcome.PENDING)
        assert world.existing_record().intent.owner == ME
        assert world.existing_record().intent.excluded_request_ids == (first,)
        assert job.submitted_at == time.time()

    @states(failed, expired)
    def test_same_image_is_asked_for_again(self, world: World, state: State) -> None:
        state(world, ME)
        world.get_or_submit()
        first, second = world.emulator.requests()
        assert first.inputs == second.inputs

    @OWNERS
    def test_lost_image_is_logged(self, world: World, owner: str, caplog: pytest.LogCaptureFixture) -> None:
        request_id = expired(world, owner)
        world.get_or_submit()
        assert (
            f"The vendor no longer holds the image of request {request_id}. A new request is submitted" in caplog.text
        )

    @pytest.mark.parametrize(("owner", "max_tries"), [(OTHER_TASK, 2), (ME, 5)], ids=["another task", "clear"])
    def test_blocked_content_is_submitted_again(self, world: World, owner: str, max_tries: int) -> None:
        request_id = blocked(world, owner)
        job, _ = world.get_or_submit(max_tries=max_tries)
        assert job.request_id == world.existing_record().request_id != request_id

    def test_blocked_content_is_not_submitted_by_a_retry(self, world: World) -> None:
        request_id = blocked(world, ME)

        job, poll = world.get_or_submit()

        assert (job.request_id, poll.outcome) == (request_id, Outcome.CONTENT_BLOCKED)
        assert isinstance(poll.failure(), IdeogramContentBlocked)
        assert poll.failure().charged is False
        assert world.accepted() == 1

    @OWNERS
    def test_other_inputs_after_blocked_content_are_submitted(self, world: World, owner: str) -> None:
        blocked(world, owner)
        world.get_or_submit(OTHER_INPUTS)
        assert world.accepted() == 2


class TestRecordGone:
    """The vendor's record of the request is gone; the file lives for seven days."""

    @OWNERS
    @pytest.mark.parametrize("age", [HOUR + 60, 6 * DAY])
    def test_same_inputs_are_recovered_and_nothing_is_paid(self, world: World, owner: str, age: float) -> None:
        request_id = queued(world, owner)
        world.pass_time(age)

        job, poll = world.get_or_submit()

        assert (job.request_id, poll.outcome, job.paid_by_other_task) == (request_id, Outcome.COMPLETED, owner != ME)
        assert poll.image_url is not None
        assert (poll.cost_usd, world.submits()) == (0.05, 1)

    @OWNERS
    def test_other_inputs_replace_it(self, world: World, owner: str) -> None:
        request_id = record_gone(world, owner)
        job, _ = world.get_or_submit(OTHER_INPUTS)
        assert job.request_id == world.existing_record().request_id != request_id

    def test_row_that_is_not_in_the_history_yet_proves_nothing(self, world: World) -> None:
        world.emulator.configure(history_lag_seconds=2 * HOUR)
        request_id = record_gone(world, ME)

        with pytest.raises(IdeogramJobUnreachable, match="rows may be late"):
            world.get_or_submit()

        assert world.submits() == 1
        assert world.existing_record().request_id == request_id
        world.pass_time(HOUR)
        assert world.get_or_submit()[0].request_id == request_id

    @OWNERS
    def test_history_that_cannot_be_read_proves_nothing(self, world: World, owner: str) -> None:
        request_id = record_gone(world, owner)
        world.emulator.fault("history", "error", status=503, times=None)

        with pytest.raises(IdeogramJobUnreachable, match="history can't be read") as caught:
            world.get_or_submit()

        assert (world.submits(), caught.value.paid_by_other_task) == (1, owner != ME)
        world.emulator.clear_faults()
        assert world.get_or_submit()[0].request_id == request_id


class TestStatusUnreadable:
    """The API does not return the status of the record's request: it is neither abandoned nor paid again."""

    @OWNERS
    @pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
    def test_same_inputs_reattach(self, world: World, owner: str, status: int) -> None:
        request_id = processing(world, owner)
        world.emulator.fault("status", "error", status=status, times=None)

        job, poll = world.get_or_submit()

        assert job.request_id == request_id
        assert poll.outcome is (Outcome.REFUSED if status in (401, 403) else Outcome.PENDING)
        assert world.submits() == 1

    @pytest.mark.parametrize("status", [401, 404, 503])
    def test_other_inputs_wait_for_another_task(self, world: World, status: int) -> None:
        processing(world, OTHER_TASK)
        world.emulator.fault("status", "error", status=status, times=None)

        with pytest.raises(IdeogramTargetBusy):
            world.get_or_submit(OTHER_INPUTS)

        assert world.submits() == 1


class TestRefusedSubmit:
    def test_rate_limit_frees_the_target(self, world: World) -> None:
        world.emulator.fault("submit", "error", status=429, retry_after=30)

        with pytest.raises(RetryLater) as caught:
            world.get_or_submit()

        assert 30 <= caught.value.delay <= 35
        assert isinstance(caught.value.error, IdeogramRateLimited)
        assert world.record() is None
        assert world.get_or_submit(owner=OTHER_TASK)[0].paid_by_other_task is False
        assert world.accepted() == 1

    @pytest.mark.parametrize("status", [302, 400, 401, 402, 403, 404, 405, 406, 410, 418, 422])
    def test_refusal_frees_the_target(self, world: World, status: int) -> None:
        world.emulator.fault("submit", "error", status=status)

        with pytest.raises(IdeogramNotCharged, match="Nothing was charged"):
            world.get_or_submit()

        assert world.record() is None
        assert (world.submits(), world.accepted()) == (1, 0)

    @OWNERS
    @INPUTS
    @pytest.mark.parametrize("status", [406, 429])
    def test_refusal_frees_a_target_whose_record_stays(
        self, world: World, status: int, owner: str, request_: GenerationRequest
    ) -> None:
        world.emulator.fault("submit", "error", status=status, retry_after=30)
        with answered(world.client, "DeleteObject", 403):
            with pytest.raises((IdeogramNotCharged, RetryLater)):
                world.get_or_submit(owner=owner)
            assert world.existing_record().not_submitted

            job, _ = world.get_or_submit(request_)

        record = world.existing_record()
        assert (job.request_id, job.paid_by_other_task) == (record.request_id, False)
        assert (world.accepted(), record.intent.owner, record.not_submitted) == (1, ME, False)
        assert "history" not in world.emulator.stats().calls

    def test_unreachable_api_frees_the_target(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", connection_to("http://127.0.0.1:9", "a-key-of-some-length"))
        with pytest.raises(IdeogramServerUnavailable, match="Nothing was sent or charged"):
            world.get_or_submit()
        assert world.record() is None

    def test_error_of_any_class_before_the_call_frees_the_target(self, world: World) -> None:
        with mock.patch.object(world.hook, "submit", side_effect=KeyError), pytest.raises(KeyError):
            world.get_or_submit()
        assert world.record() is None

    def test_error_of_any_class_in_the_call_is_an_unknown_submit(self, world: World) -> None:
        answers = [KeyError, ApiResponse(200, body=b"[]")]  # the second one is the history's
        with mock.patch.object(SegmindClient, "_send", side_effect=answers), pytest.raises(RetryLater) as caught:
            world.get_or_submit()
        assert isinstance(caught.value.error, IdeogramUnknownSubmit)
        assert world.existing_record().request_id is None

    def test_no_error_contains_the_api_key(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        for status in (400, 401, 429, 503):
            text = f"key {world.emulator.api_key} at {HISTORY_PATH}"
            world.emulator.fault("submit", "error", status=status, text=text, retry_after=60)
            with pytest.raises((IdeogramError, RetryLater)) as caught:
                world.get_or_submit(owner=f"owner-{status}")
            assert world.emulator.api_key not in str(caught.value)
        assert world.emulator.api_key not in caplog.text


class TestRequestIdNotRecorded:
    @pytest.mark.parametrize("status", [403, 500])
    def test_error_is_logged_and_the_request_continues(
        self, world: World, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        with answered(world.client, "PutObject", status, from_call=2):  # the first is the intent
            job, _ = world.get_or_submit()

        [accepted] = world.emulator.requests()
        assert job.request_id == accepted.request_id
        [error] = [record for record in caplog.records if record.levelname == "ERROR"]
        for words in (job.request_id, "could not be recorded in the ledger", "the account's history"):
            assert words in error.message
        assert world.existing_record().request_id is None

        world.pass_time(SUBMIT_SECONDS)
        assert world.get_or_submit()[0].request_id == job.request_id
        assert world.accepted() == 1

    def test_record_that_another_task_replaced_is_left_alone(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        submit = world.hook.submit

        def late(request: GenerationRequest, **admitted: bool) -> Any:
            record = world.existing_record()
            world.ledger.replace(record, replace(record.intent, owner=OTHER_TASK))
            return submit(request, **admitted)

        with mock.patch.object(world.hook, "submit", late):
            job, _ = world.get_or_submit()

        assert job.request_id == world.emulator.requests()[0].request_id
        assert f"Request {job.request_id} is submitted, but its id could not be recorded" in caplog.text
        assert world.existing_record().intent.owner == OTHER_TASK

    def test_metrics_that_fail_do_not_lose_the_id(self, world: World) -> None:
        with mock.patch("airflow_provider_ideogram.metrics.Stats.incr", side_effect=KeyError), pytest.raises(KeyError):
            world.get_or_submit()
        assert world.existing_record().request_id == world.emulator.requests()[0].request_id


def test_no_message_takes_the_task_for_another_one(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The record was changed by another slice of the same task."""
    replace_record = world.ledger.replace
    failed(world, ME)

    def late(record: LedgerRecord, intent: Intent) -> LedgerRecord:
        with mock.patch.object(world.ledger, "replace", replace_record):
            world.get_or_submit()
        return replace_record(record, intent)

    with mock.patch.object(world.ledger, "replace", late), pytest.raises(RetryLater) as caught:
        world.get_or_submit()

    for text in (str(caught.value.error), caplog.text):
        assert "another task" not in text


class TestConcurrentTasks:
    def test_one_task_submits_and_the_other_reattaches(self, world: World) -> None:
        submit = world.hook.submit
        waited: list[RetryLater] = []

        def slow(request: GenerationRequest, **admitted: bool) -> Any:
            with pytest.raises(RetryLater) as caught:
                world.get_or_submit(owner=OTHER_TASK)
            waited.append(caught.value)
            return submit(request, **admitted)

        with mock.patch.object(world.hook, "submit", slow):
            mine, _ = world.get_or_submit()
        theirs, _ = world.get_or_submit(owner=OTHER_TASK)

        assert len(waited) == 1
        assert (theirs.request_id, theirs.paid_by_other_task) == (mine.request_id, True)
        assert mine.paid_by_other_task is False
        assert world.accepted() == 1

    def test_one_of_two_tasks_replaces_an_ended_request(self, world: World) -> None:
        failed(world, OTHER_TASK)
        replace_record = world.ledger.replace

        def late(record: LedgerRecord, intent: Intent) -> LedgerRecord:
            with mock.patch.object(world.ledger, "replace", replace_record):
                world.get_or_submit(owner="night/run-3/generate/-1")
            return replace_record(record, intent)

        with mock.patch.object(world.ledger, "replace", late), pytest.raises(RetryLater):
            world.get_or_submit()

        assert world.accepted() == 2
        assert world.existing_record().intent.owner == "night/run-3/generate/-1"

    def test_record_deleted_between_two_reads_is_retried(self, world: World) -> None:
        queued(world, OTHER_TASK)
        existing = LedgerRecord(RECORD_KEY, '"etag"', Intent(ASKED, "", "", 0.0, OTHER_TASK, 0))
        with mock.patch.object(world.ledger, "read", side_effect=[existing, None]), pytest.raises(RetryLater):
            world.get_or_submit()
        assert world.submits() == 1


def test_image_stored_since_a_refused_submit_is_found(world: World) -> None:
    with answered(world.client, "DeleteObject", 403):
        world.ledger.cancel_intent(left_unknown(world, ME))
    world.store_image("r-1")

    found = world.find_image(absent=True)

    assert (found.request_id, world.record()) == ("r-1", None)
