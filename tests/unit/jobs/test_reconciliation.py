"""A submit whose acceptance is unknown: the account's history, the user and the rule for an answered 5xx."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from airflow_provider_ideogram.api.history import HISTORY_LAG_MAX
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.polling import Outcome
from airflow_provider_ideogram.exceptions import (
    IdeogramSubmitFailed,
    IdeogramTargetBusy,
    IdeogramUnknownSubmit,
)
from airflow_provider_ideogram.jobs.reconciliation import HISTORY_LAG, RETRY_SECONDS, RetryLater
from airflow_provider_ideogram.jobs.record import LedgerRecord
from airflow_provider_ideogram.jobs.submission import SUBMIT_SECONDS
from tests.support.s3 import answered
from tests.unit.jobs.world import (
    ASKED,
    HOUR,
    INPUTS,
    JOB_SECONDS,
    ME,
    OTHER_INPUTS,
    OTHER_TASK,
    OWNERS,
    QUEUE_SECONDS,
    RECORD_KEY,
    UNREADABLE,
    World,
    left_unknown,
)


class TestInProgress:
    """An intent less than a minute old, without a request id, is treated as in progress."""

    @OWNERS
    @INPUTS
    @pytest.mark.parametrize(
        ("age", "delay"),
        [
            (0.0, RETRY_SECONDS),
            (SUBMIT_SECONDS - RETRY_SECONDS, RETRY_SECONDS),
            (SUBMIT_SECONDS - 15, 15.0),
            (SUBMIT_SECONDS - 1, 1.0),
        ],
    )
    def test_submit_in_progress_is_waited_for(
        self, world: World, owner: str, request_: GenerationRequest, age: float, delay: float
    ) -> None:
        left = left_unknown(world, owner, accepted=True)
        world.clock.now += age

        with pytest.raises(RetryLater) as caught:
            world.get_or_submit(request_)

        assert caught.value.delay == pytest.approx(delay, abs=1e-3)
        assert isinstance(caught.value.error, IdeogramTargetBusy)
        assert (owner in str(caught.value)) is (owner != ME)
        assert ("an earlier attempt of this task" in str(caught.value)) is (owner == ME)
        assert (caught.value.error.charged, "Nothing was charged" in str(caught.value.error)) == (
            (None, False) if owner == ME else (False, True)
        )
        assert world.submits() == 1
        assert "history" not in world.emulator.stats().calls
        assert world.record() == left


class TestUnknownSubmit:
    """It is unknown whether the record's request was accepted."""

    @OWNERS
    def test_request_in_the_history_is_adopted(self, world: World, owner: str) -> None:
        left_unknown(world, owner, accepted=True)
        [accepted] = world.emulator.requests()
        world.pass_time(SUBMIT_SECONDS)

        job, poll = world.get_or_submit()

        assert job.request_id == accepted.request_id == world.existing_record().request_id
        assert (job.paid_by_other_task, poll.outcome) == (owner != ME, Outcome.PENDING)
        assert world.submits() == 1

    def test_adopted_request_that_failed_is_submitted_again(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.emulator.fault("job", "failed")
        left_unknown(world, ME, accepted=True)
        [accepted] = world.emulator.requests()
        world.pass_time(SUBMIT_SECONDS + QUEUE_SECONDS + JOB_SECONDS)

        job, _ = world.get_or_submit()

        assert world.accepted() == 2
        assert f"the submit was accepted as request {accepted.request_id}" in caplog.text
        assert job.request_id != accepted.request_id

    def test_adopted_request_with_other_inputs_is_abandoned(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        left_unknown(world, ME, accepted=True)
        [accepted] = world.emulator.requests()
        world.pass_time(SUBMIT_SECONDS)

        world.get_or_submit(OTHER_INPUTS)

        assert f"Request {accepted.request_id} of an earlier attempt of this task was submitted for" in caplog.text
        assert world.accepted() == 2

    @OWNERS
    @INPUTS
    @pytest.mark.parametrize(
        ("age", "delay"),
        [(SUBMIT_SECONDS, RETRY_SECONDS), (HISTORY_LAG - 10, 10.0), (HISTORY_LAG - 1, 1.0)],
    )
    def test_history_is_given_two_minutes(
        self, world: World, owner: str, request_: GenerationRequest, age: float, delay: float
    ) -> None:
        left = left_unknown(world, owner)
        world.clock.now += age

        with pytest.raises(RetryLater) as caught:
            world.get_or_submit(request_, resubmit=True, max_tries=9)

        assert caught.value.delay == pytest.approx(delay, abs=1e-3)
        assert isinstance(caught.value.error, IdeogramUnknownSubmit)
        assert world.submits() == 0
        assert world.record() == left

    def test_request_that_the_history_shows_late_is_adopted(self, world: World) -> None:
        world.emulator.configure(history_lag_seconds=90)
        left_unknown(world, ME, accepted=True)
        world.pass_time(61)
        with pytest.raises(RetryLater):
            world.get_or_submit()
        world.pass_time(30)

        job, _ = world.get_or_submit()

        assert job.request_id == world.emulator.requests()[0].request_id
        assert world.accepted() == 1

    def test_each_later_attempt_searches_again(self, world: World) -> None:
        world.emulator.configure(history_lag_seconds=2 * HOUR)
        left_unknown(world, ME, accepted=True)
        for _ in range(2):
            world.pass_time(HOUR - 1)
            with pytest.raises(IdeogramUnknownSubmit):
                world.get_or_submit()
        world.pass_time(2)

        job, poll = world.get_or_submit()

        assert job.request_id == world.emulator.requests()[0].request_id
        assert (poll.outcome, world.submits()) == (Outcome.COMPLETED, 1)

    @OWNERS
    def test_same_inputs_fail_by_default(self, world: World, owner: str) -> None:
        left = left_unknown(world, owner)
        world.pass_time(HISTORY_LAG)

        with pytest.raises(IdeogramUnknownSubmit) as caught:
            world.get_or_submit()

        for words in (owner, "has no response", "the account's request history shows no requests with its inputs"):
            assert words in caught.value.reason
        for words in (world.target.uri, "may have been accepted", "hours late", f"Clear the task {owner}"):
            assert words in caught.value.advice
        assert caught.value.charged is None
        assert world.submits() == 0
        assert world.record() == left

    @OWNERS
    def test_user_can_choose_to_submit_again(self, world: World, owner: str, caplog: pytest.LogCaptureFixture) -> None:
        left = left_unknown(world, owner)
        world.pass_time(HISTORY_LAG)

        job, _ = world.get_or_submit(resubmit=True)

        assert world.submits() == 1
        assert job.request == left.intent.request
        assert "on_unknown_submit is 'resubmit': a new request is submitted" in caplog.text

    @pytest.mark.parametrize("max_tries", [3, 1], ids=["same retries", "fewer retries"])
    def test_clear_by_a_person_submits_again(
        self, world: World, max_tries: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        left = left_unknown(world, ME)
        world.pass_time(HISTORY_LAG)

        job, _ = world.get_or_submit(max_tries=max_tries)

        assert world.submits() == 1
        assert job.request == left.intent.request
        assert world.existing_record().intent.max_tries == max_tries
        assert "A person cleared the task: a new request is submitted" in caplog.text

    def test_clear_does_not_decide_about_another_task(self, world: World) -> None:
        left_unknown(world, OTHER_TASK)
        world.pass_time(HISTORY_LAG)
        with pytest.raises(IdeogramUnknownSubmit):
            world.get_or_submit(max_tries=3)
        assert world.submits() == 0

    def test_own_submit_with_other_inputs_is_replaced(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        left_unknown(world, ME)
        world.pass_time(HISTORY_LAG)

        job, _ = world.get_or_submit(OTHER_INPUTS)

        assert job.request is not None
        assert job.request.prompt == world.emulator.requests()[0].inputs["prompt"] == "a harbour"
        assert "The inputs were changed: a new request is submitted" in caplog.text

    @INPUTS
    def test_submit_of_another_task_holds_the_target_for_hours(self, world: World, request_: GenerationRequest) -> None:
        left_unknown(world, OTHER_TASK)
        world.pass_time(HISTORY_LAG_MAX)
        with pytest.raises(IdeogramUnknownSubmit):
            world.get_or_submit(request_)
        world.pass_time(1)

        world.get_or_submit(request_)

        assert world.submits() == 1

    def test_own_submit_needs_a_person_after_any_time(self, world: World) -> None:
        left_unknown(world, ME)
        world.pass_time(30 * HOUR)
        with pytest.raises(IdeogramUnknownSubmit):
            world.get_or_submit()
        assert world.submits() == 0


class TestHistory:
    def _assert_unknown(self, world: World, why: str = "history shows no requests with its inputs") -> None:
        submits = world.submits()
        with pytest.raises(IdeogramUnknownSubmit, match=why):
            world.get_or_submit()
        assert world.submits() == submits
        assert world.existing_record().request_id is None

    def test_request_with_other_inputs_is_not_adopted(self, world: World) -> None:
        sent = left_unknown(world, ME).intent.request
        assert sent.seed is not None
        for other in (replace(sent, seed=sent.seed + 1), replace(sent, prompt="a harbour")):
            world.hook.submit(other)
        world.pass_time(HISTORY_LAG)
        self._assert_unknown(world)

    def test_request_of_another_time_is_not_adopted(self, world: World) -> None:
        world.hook.submit(ASKED.with_seed(random.Random(7)))
        world.pass_time(1000)
        left_unknown(world, ME)
        world.pass_time(1000)
        world.hook.submit(ASKED.with_seed(random.Random(7)))
        self._assert_unknown(world)

    def test_request_of_a_teammate_is_not_adopted(self, world: World) -> None:
        left = left_unknown(world, ME)
        world.emulator.add_teammate_request(left.intent.request.body())
        world.pass_time(HISTORY_LAG)
        self._assert_unknown(world)

    def test_request_with_several_outputs_is_one_request(self, world: World) -> None:
        world.emulator.configure(outputs=3)
        left_unknown(world, ME, accepted=True)
        world.pass_time(HOUR / 2)
        assert world.get_or_submit()[0].request_id == world.emulator.requests()[0].request_id

    def test_request_of_a_model_with_a_longer_name_is_not_adopted(self, world: World) -> None:
        left = left_unknown(world, ME)
        model = f"{left.intent.request.model}-preview"
        world.emulator.configure(prices={model: 0.05})
        world.hook.submit(replace(left.intent.request, model=model))
        world.pass_time(HISTORY_LAG)
        self._assert_unknown(world)

    @pytest.mark.parametrize("accepted", [False, True])
    def test_ended_request_is_not_taken_for_the_next_one(self, world: World, accepted: bool) -> None:
        world.emulator.configure(queue_seconds=0.0, job_seconds=0.0)
        world.emulator.fault("job", "failed")
        ended = world.get_or_submit()[0].request_id
        world.emulator.fault("submit", "reset", when="after" if accepted else "before")

        if accepted:
            job, _ = world.get_or_submit()
            assert job.request_id == world.emulator.requests()[1].request_id
        else:
            with pytest.raises(RetryLater, match="shows no requests"):
                world.get_or_submit()
            assert world.existing_record().intent.excluded_request_ids == (ended,)
            assert world.existing_record().request_id is None

    @pytest.mark.parametrize("is_failed", [True, False])
    def test_request_of_an_earlier_attempt_is_not_adopted(self, world: World, is_failed: bool) -> None:
        """Its record is deleted, its inputs and the user's seed are the same, and the next row is not shown yet."""
        world.emulator.configure(queue_seconds=0.0, job_seconds=0.0, history_lag_seconds=30)
        asked = replace(ASKED, seed=7)
        if is_failed:
            world.emulator.fault("job", "failed")
        world.get_or_submit(asked)
        world.ledger.delete(RECORD_KEY, world.existing_record().etag)
        world.pass_time(60)
        world.emulator.fault("submit", "reset", when="after")
        with pytest.raises(RetryLater, match="shows no requests"):
            world.get_or_submit(asked)
        world.pass_time(SUBMIT_SECONDS)
        job, _ = world.get_or_submit(asked)
        assert [request.request_id for request in world.emulator.requests()][1:] == [job.request_id]

    def test_request_of_another_record_is_not_adopted(self, world: World) -> None:
        left = left_unknown(world, ME)
        other = replace(left.intent, owner=OTHER_TASK)
        ledger, key = world.ledger, "_ideogram/images/another.png.json"
        ledger.record_request(ledger.write_intent(key, other), world.hook.submit(other.request).request_id)
        world.client.put_object(Bucket=world.bucket, Key="_ideogram/no-record.json", Body=b"{}")
        world.pass_time(HISTORY_LAG)
        self._assert_unknown(world)

        world.hook.submit(left.intent.request)

        assert world.get_or_submit()[0].request_id == world.emulator.requests()[1].request_id

    def test_same_request_in_progress_elsewhere_is_waited_for(self, world: World) -> None:
        left = left_unknown(world, ME, accepted=True)
        world.pass_time(HISTORY_LAG)
        other = replace(left.intent, owner=OTHER_TASK, intent_at=world.clock.now)
        world.ledger.write_intent("_ideogram/images/another.png.json", other)

        with pytest.raises(RetryLater, match="on its way for another target"):
            world.get_or_submit(max_tries=3)
        world.pass_time(HISTORY_LAG)

        assert world.get_or_submit()[0].request_id == world.emulator.requests()[0].request_id

    def test_one_of_two_tasks_adopts_the_only_request(self, world: World) -> None:
        left = left_unknown(world, ME, accepted=True)
        [accepted] = world.emulator.requests()
        key = "_ideogram/images/another.png.json"
        other = world.ledger.write_intent(key, replace(left.intent, owner=OTHER_TASK))
        world.pass_time(HISTORY_LAG)
        record_request = world.ledger.record_request

        def both(record: LedgerRecord, request_id: str) -> LedgerRecord:
            record_request(other, request_id)
            return record_request(record, request_id)

        with mock.patch.object(world.ledger, "record_request", both), pytest.raises(RetryLater) as caught:
            world.get_or_submit()

        assert world.existing_record() == replace(left, etag=world.existing_record().etag)
        assert RETRY_SECONDS <= caught.value.delay <= 2 * RETRY_SECONDS
        held = world.ledger.read(key)
        assert held is not None
        assert held.request_id == accepted.request_id
        self._assert_unknown(world)

    def test_ledger_that_cannot_be_listed_is_asked_again(self, world: World) -> None:
        left_unknown(world, ME, accepted=True)
        world.pass_time(HISTORY_LAG)
        with answered(world.client, "ListObjectsV2", 403), pytest.raises(RetryLater, match="can't be read"):
            world.get_or_submit(max_tries=3)
        assert world.submits() == 1

    def test_several_matches_are_not_adopted(self, world: World) -> None:
        left = left_unknown(world, ME, accepted=True)
        world.hook.submit(left.intent.request)
        world.pass_time(HISTORY_LAG)
        self._assert_unknown(world, "shows 2 requests with its inputs")

    @UNREADABLE
    def test_history_that_does_not_respond_is_asked_again(self, world: World, fault: dict[str, Any], why: str) -> None:
        left_unknown(world, ME, accepted=True)
        world.pass_time(HISTORY_LAG)
        world.emulator.fault("history", **fault, times=None)

        with pytest.raises(RetryLater, match=f"history can't be read .{why}") as caught:
            world.get_or_submit(resubmit=True, max_tries=9)

        assert RETRY_SECONDS <= caught.value.delay <= 2 * RETRY_SECONDS
        assert world.submits() == 1
        world.emulator.clear_faults()
        job, _ = world.get_or_submit()
        assert job.request_id == world.emulator.requests()[0].request_id

    @pytest.mark.parametrize("status", [302, 401, 403, 404])
    def test_history_that_refuses_the_key_leaves_it_to_an_argument(self, world: World, status: int) -> None:
        left_unknown(world, ME)
        world.pass_time(HISTORY_LAG)
        world.emulator.fault("history", "error", status=status, times=None)
        self._assert_unknown(world, f"history can't be read .*HTTP {status}")

        world.get_or_submit(resubmit=True)

        assert world.submits() == 1

    @pytest.mark.parametrize(
        ("request_", "changes"),
        [(ASKED, {"max_tries": 3}), (OTHER_INPUTS, {}), (ASKED, {"owner": OTHER_TASK})],
        ids=["clear", "other inputs", "another task"],
    )
    @pytest.mark.parametrize("status", [302, 401, 403, 404])
    def test_consent_counts_after_a_readable_history_only(
        self, world: World, status: int, request_: GenerationRequest, changes: dict[str, Any]
    ) -> None:
        left_unknown(world, ME, accepted=True)
        world.pass_time(4 * HOUR)
        world.emulator.fault("history", "error", status=status, times=None)
        with pytest.raises(IdeogramUnknownSubmit, match=f"can't be read .*HTTP {status}"):
            world.get_or_submit(request_, **changes)
        assert world.submits() == 1

    def test_search_that_raises_another_error_is_not_consent(self, world: World) -> None:
        left_unknown(world, ME, accepted=True)
        world.pass_time(HISTORY_LAG)
        with (
            mock.patch.object(world.hook, "find_submitted", side_effect=KeyError),
            pytest.raises(RetryLater, match=r"can't be read .KeyError"),
        ):
            world.get_or_submit(max_tries=3)
        assert world.submits() == 1

    def test_connection_without_history_leaves_it_to_a_clear(self, gateway: World) -> None:
        left_unknown(gateway, ME)
        gateway.pass_time(HISTORY_LAG)
        gateway.get_or_submit(max_tries=3)
        assert gateway.submits() == 1

    def test_connection_without_history_leaves_it_to_the_user(self, gateway: World) -> None:
        left_unknown(gateway, ME, accepted=True)
        gateway.pass_time(HISTORY_LAG)
        self._assert_unknown(gateway, "has no history_url")

        gateway.get_or_submit(resubmit=True)

        assert gateway.submits() == 2


class TestNoResponse:
    """Resets, timeouts and 504 are unknown submits, decided by ``on_unknown_submit``."""

    FAULTS = pytest.mark.parametrize(
        "fault", [{"kind": "reset"}, {"kind": "error", "status": 504, "body": "html"}], ids=["reset", "504"]
    )

    @FAULTS
    def test_accepted_submit_is_found_at_once(self, world: World, fault: dict[str, Any]) -> None:
        world.emulator.fault("submit", **fault, when="after")

        job, poll = world.get_or_submit()

        [accepted] = world.emulator.requests()
        assert job.request_id == poll.request_id == accepted.request_id == world.existing_record().request_id
        assert (poll.outcome, job.paid_by_other_task) == (Outcome.PENDING, False)
        assert world.submits() == 1

    @FAULTS
    @pytest.mark.parametrize("resubmit", [False, True])
    def test_other_submit_is_searched_for_later(self, world: World, fault: dict[str, Any], resubmit: bool) -> None:
        world.emulator.fault("submit", **fault)

        with pytest.raises(RetryLater) as caught:
            world.get_or_submit(resubmit=resubmit)

        assert caught.value.delay == RETRY_SECONDS
        assert isinstance(caught.value.error, IdeogramUnknownSubmit)
        assert not isinstance(caught.value.error, IdeogramSubmitFailed)
        assert world.submits() == 1
        assert world.existing_record().request_id is None
        world.pass_time(HISTORY_LAG)
        if not resubmit:
            with pytest.raises(IdeogramUnknownSubmit):
                world.get_or_submit()
            assert world.submits() == 1

    def test_response_without_a_request_id_is_searched_for(self, world: World) -> None:
        world.emulator.fault("submit", "not_image")
        job, _ = world.get_or_submit()
        assert job.request_id == world.emulator.requests()[0].request_id
        assert world.submits() == 1
