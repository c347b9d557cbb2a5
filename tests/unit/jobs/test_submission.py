"""
Getting a paid job, against the emulator and an S3 server on sockets.

The cells of the two tables in ``docs/money-and-failure.md`` are tests here, by their names.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from botocore.awsrequest import AWSResponse

from airflow_provider_ideogram.api import back_off
from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.polling import Outcome, RequestPoll
from airflow_provider_ideogram.emulator.history import HISTORY_PATH
from airflow_provider_ideogram.emulator.running import RunningEmulator, connection_to
from airflow_provider_ideogram.exceptions import (
    IdeogramContentBlocked,
    IdeogramError,
    IdeogramLedgerError,
    IdeogramNotCharged,
    IdeogramObjectExists,
    IdeogramRateLimited,
    IdeogramServerUnavailable,
    IdeogramTargetBusy,
    IdeogramUnknownSubmit,
)
from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
from airflow_provider_ideogram.jobs.identity import attempt_group
from airflow_provider_ideogram.jobs.ledger import Intent, Ledger, LedgerRecord, NoLedger
from airflow_provider_ideogram.jobs.reconciliation import HISTORY_LAG, RetryLater
from airflow_provider_ideogram.jobs.submission import RETRY_SECONDS, STORING_SECONDS, SUBMIT_SECONDS, Submitter
from airflow_provider_ideogram.storage.image_record import ImageRecord
from airflow_provider_ideogram.storage.image_store import ImageStore
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KEY = "images/lighthouse.png"
RECORD_KEY = f"_ideogram/{KEY}.json"
ME, SOMEBODY = "night/run-2/generate/-1", "night/run-1/generate/-1"
ASKED, OTHER_INPUTS = GenerationRequest("a lighthouse"), GenerationRequest("a harbour")
QUEUE_SECONDS, JOB_SECONDS = 30.0, 600.0
HOUR = 3600.0


class Clock:
    """``time.time()``, which stands still until it is moved."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class World:
    """A vendor, a bucket and the tasks that aim at one key in it."""

    def __init__(self, emulator: RunningEmulator, client: S3Client, bucket: str, clock: Clock) -> None:
        self.emulator, self.client, self.bucket, self.clock = emulator, client, bucket, clock
        self.hook = IdeogramHook()
        self.ledger = Ledger(client, bucket)
        self.target = Target(bucket, KEY)

    def submitter(self, owner: str = ME, **changes: Any) -> Submitter:
        store = ImageStore("aws_default")
        store.client = self.client
        known = {"max_tries": 2, "if_exists": "reuse", "resubmit": False}
        return Submitter(self.hook, store, self.ledger, self.target, owner=owner, **(known | changes))

    def get_or_submit(
        self, request: GenerationRequest = ASKED, owner: str = ME, **changes: Any
    ) -> tuple[Job, RequestPoll]:
        result = self.submitter(owner, **changes).get_or_submit(request)
        assert not isinstance(result, ImageRecord)
        return result

    def pass_time(self, seconds: float) -> None:
        """Let time pass at the worker and at the vendor."""
        self.clock.now += seconds
        self.emulator.advance(seconds)

    def record(self) -> LedgerRecord | None:
        return self.ledger.read(RECORD_KEY)

    def submits(self) -> int:
        return self.emulator.stats().calls.get("submit", 0)

    def charged(self) -> int:
        return self.emulator.stats().accepted


@pytest.fixture
def world(
    ideogram_emulator: RunningEmulator,
    ideogram_connection: str,
    s3_client: S3Client,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    bucket = f"bucket-{uuid.uuid4()}"
    s3_client.create_bucket(Bucket=bucket)
    clock = Clock(time.time())
    monkeypatch.setattr(time, "time", clock)
    monkeypatch.setattr(back_off, "_BACK_OFF_BASE", 0.0)
    ideogram_emulator.configure(queue_seconds=QUEUE_SECONDS, job_seconds=JOB_SECONDS)
    world = World(ideogram_emulator, s3_client, bucket, clock)
    with world.hook, mock.patch("botocore.endpoint.time"):
        yield world


@contextmanager
def _s3_answers(client: S3Client, operation: str, status: int, from_call: int = 1) -> Iterator[None]:
    """Let S3 refuse an operation from its n-th call on."""
    calls = 0

    def refuse(request: Any, **_: Any) -> AWSResponse | None:
        nonlocal calls
        calls += 1
        if calls < from_call:
            return None
        raw = mock.Mock(stream=lambda **_: iter([b"<Error><Code>AccessDenied</Code></Error>"]))
        return AWSResponse(request.url, status, {}, raw)

    event = f"before-send.s3.{operation}"
    client.meta.events.register_first(event, refuse)
    try:
        yield
    finally:
        client.meta.events.unregister(event, refuse)


# What an earlier attempt, or another task, has left in the ledger


def _queued(world: World, owner: str) -> str:
    return world.get_or_submit(owner=owner)[0].request_id


def _processing(world: World, owner: str) -> str:
    request_id = _queued(world, owner)
    world.pass_time(QUEUE_SECONDS + 1)
    return request_id


def _completed(world: World, owner: str) -> str:
    request_id = _queued(world, owner)
    world.pass_time(QUEUE_SECONDS + JOB_SECONDS + 1)
    return request_id


def _failed(world: World, owner: str) -> str:
    world.emulator.fault("job", "failed")
    return _completed(world, owner)


def _blocked(world: World, owner: str) -> str:
    world.emulator.fault("job", "blocked")
    return _completed(world, owner)


def _expired(world: World, owner: str) -> str:
    request_id = _queued(world, owner)
    world.pass_time(HOUR + 1)
    return request_id


def _left_unknown(world: World, owner: str, *, accepted: bool = False) -> LedgerRecord:
    """Leave an intent behind, as a worker does that is killed in the POST."""
    sent = ASKED.with_seed(random.Random(7))
    intent = Intent(sent, ASKED.fingerprint, world.target.uri, time.time(), owner, 2)
    entry = world.ledger.write_intent(RECORD_KEY, intent)
    if accepted:
        world.hook.submit(sent)
    return entry


State = Callable[[World, str], str]
OWNERS = pytest.mark.parametrize("owner", [ME, SOMEBODY], ids=["own", "another task's"])
INPUTS = pytest.mark.parametrize("request_", [ASKED, OTHER_INPUTS], ids=["same inputs", "other inputs"])


def _states(*states: State) -> Any:
    return pytest.mark.parametrize("state", states, ids=lambda state: state.__name__.strip("_"))


class TestNoRecord:
    """Nobody has wanted this image yet."""

    def test_the_intent_is_there_before_the_submit_and_the_id_after_it(self, world: World) -> None:
        seen = []
        submit = world.hook.submit

        def looking(request: GenerationRequest) -> Any:
            seen.append(world.record())
            return submit(request)

        with mock.patch.object(world.hook, "submit", looking):
            job, poll = world.get_or_submit()

        [intended] = seen
        assert (intended.request_id, intended.intent.owner, intended.intent.intent_at) == (None, ME, time.time())
        assert intended.intent.fingerprint == ASKED.fingerprint
        recorded = world.record()
        assert recorded == replace(intended, request_id=job.request_id, etag=recorded.etag)
        [charge] = world.emulator.requests()
        assert charge.request_id == job.request_id == poll.request_id
        assert charge.inputs == intended.intent.request.body()
        assert (job, job.paid_by_other_task) == (recorded.job, False)
        assert poll.outcome is Outcome.PENDING

    def test_the_user_s_seed_is_sent(self, world: World) -> None:
        job, _ = world.get_or_submit(replace(ASKED, seed=77))
        assert job.request.seed == world.emulator.requests()[0].inputs["seed"] == 77

    def test_nothing_is_submitted_where_the_intent_cannot_be_written(self, world: World) -> None:
        with _s3_answers(world.client, "PutObject", 403), pytest.raises(IdeogramLedgerError):
            world.get_or_submit()
        assert world.submits() == 0

    def test_nothing_is_submitted_where_the_record_cannot_be_understood(self, world: World) -> None:
        world.client.put_object(Bucket=world.bucket, Key=RECORD_KEY, Body=b'{"version": 99}')
        with pytest.raises(IdeogramLedgerError, match="version 99"):
            world.get_or_submit()
        assert world.submits() == 0


class TestRunning:
    """The record's request is queued or processing."""

    @OWNERS
    @_states(_queued, _processing)
    def test_same_inputs_are_awaited_and_nothing_is_paid(self, world: World, state: State, owner: str) -> None:
        request_id = state(world, owner)

        job, poll = world.get_or_submit()

        assert (job.request_id, poll.request_id, poll.outcome) == (request_id, request_id, Outcome.PENDING)
        assert job.paid_by_other_task is (owner != ME)
        assert world.submits() == world.charged() == 1
        assert world.record().job == replace(job, paid_by_other_task=False)

    def test_own_after_a_clear_is_of_the_attempts_since(self, world: World) -> None:
        request_id = _queued(world, ME)

        job, _ = world.get_or_submit(max_tries=5)

        assert (job.request_id, job.attempt_group) == (request_id, attempt_group(ME, 5))

    def test_another_task_s_stays_of_its_attempts(self, world: World) -> None:
        _queued(world, SOMEBODY)
        assert world.get_or_submit(max_tries=5)[0].attempt_group == attempt_group(SOMEBODY, 2)

    @_states(_queued, _processing)
    def test_own_with_other_inputs_is_given_up_by_name(
        self, world: World, state: State, caplog: pytest.LogCaptureFixture
    ) -> None:
        request_id = state(world, ME)

        job, _ = world.get_or_submit(OTHER_INPUTS)

        assert [charge.inputs["prompt"] for charge in world.emulator.requests()] == ["a lighthouse", "a harbour"]
        assert job.request_id == world.record().request_id != request_id
        assert f"Request {request_id}" in caplog.text
        assert "given up" in caplog.text

    @_states(_queued, _processing)
    def test_another_task_s_with_other_inputs_is_left_alone(self, world: World, state: State) -> None:
        request_id = state(world, SOMEBODY)

        with pytest.raises(IdeogramTargetBusy) as caught:
            world.get_or_submit(OTHER_INPUTS)

        assert caught.value.retryable
        for words in (request_id, SOMEBODY, "Nothing was charged"):
            assert words in str(caught.value)
        assert world.submits() == 1
        assert world.record().request_id == request_id


class TestCompleted:
    @OWNERS
    def test_same_inputs_are_fetched_and_nothing_is_paid(self, world: World, owner: str) -> None:
        request_id = _completed(world, owner)

        job, poll = world.get_or_submit()

        assert (job.request_id, poll.outcome, job.paid_by_other_task) == (request_id, Outcome.COMPLETED, owner != ME)
        assert world.charged() == 1

    @OWNERS
    def test_other_inputs_give_it_up_with_a_warning(
        self, world: World, owner: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        request_id = _completed(world, owner)
        world.pass_time(STORING_SECONDS)

        job, _ = world.get_or_submit(OTHER_INPUTS)

        assert job.request_id == world.record().request_id == world.emulator.requests()[1].request_id
        assert f"Request {request_id} of {owner} was paid" in caplog.text

    def test_other_inputs_leave_another_task_the_time_to_store_it(self, world: World) -> None:
        request_id = _queued(world, SOMEBODY)
        world.emulator.advance(QUEUE_SECONDS + JOB_SECONDS + 1)

        with pytest.raises(IdeogramTargetBusy, match="is COMPLETED"):
            world.get_or_submit(OTHER_INPUTS)

        assert world.record().request_id == request_id
        assert world.submits() == 1


class TestDead:
    """The record's request failed, was blocked or has expired."""

    @OWNERS
    @INPUTS
    @_states(_failed, _expired)
    def test_a_new_one_is_submitted(self, world: World, state: State, owner: str, request_: GenerationRequest) -> None:
        first = state(world, owner)

        job, poll = world.get_or_submit(request_)

        assert world.charged() == 2
        assert job.request_id == world.record().request_id == poll.request_id != first
        assert (job.paid_by_other_task, poll.outcome) == (False, Outcome.PENDING)
        assert world.record().intent.owner == ME
        assert job.submitted_at == time.time()

    @_states(_failed, _expired)
    def test_the_same_image_is_asked_for_again(self, world: World, state: State) -> None:
        state(world, ME)
        world.get_or_submit()
        first, second = world.emulator.requests()
        assert first.inputs == second.inputs

    @OWNERS
    def test_an_expired_one_is_said_to_be_lost_and_paid(
        self, world: World, owner: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        request_id = _expired(world, owner)
        world.get_or_submit()
        assert f"Request {request_id} was submitted and paid, but the vendor no longer knows it" in caplog.text
        assert "A new request is submitted and charged" in caplog.text

    @OWNERS
    def test_blocked_content_is_not_paid_again(self, world: World, owner: str) -> None:
        request_id = _blocked(world, owner)

        job, poll = world.get_or_submit()

        assert (job.request_id, poll.outcome) == (request_id, Outcome.CONTENT_BLOCKED)
        assert isinstance(poll.failure(), IdeogramContentBlocked)
        assert world.charged() == 1

    @OWNERS
    def test_other_inputs_after_blocked_content_are_submitted(self, world: World, owner: str) -> None:
        _blocked(world, owner)
        world.get_or_submit(OTHER_INPUTS)
        assert world.charged() == 2


class TestStateCannotBeRead:
    """The API does not say what became of the record's request: nothing is given up or paid for that."""

    @OWNERS
    @pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
    def test_same_inputs_are_taken_up(self, world: World, owner: str, status: int) -> None:
        request_id = _processing(world, owner)
        world.emulator.fault("status", "error", status=status, times=None)

        job, poll = world.get_or_submit()

        assert job.request_id == request_id
        assert poll.outcome is (Outcome.REFUSED if status in (401, 403) else Outcome.PENDING)
        assert world.submits() == 1

    @pytest.mark.parametrize("status", [401, 404, 503])
    def test_another_task_s_with_other_inputs_is_left_alone(self, world: World, status: int) -> None:
        _processing(world, SOMEBODY)
        world.emulator.fault("status", "error", status=status, times=None)

        with pytest.raises(IdeogramTargetBusy):
            world.get_or_submit(OTHER_INPUTS)

        assert world.submits() == 1


class TestJustSubmitting:
    """An intent less than a minute old may be somebody's who is at it."""

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
    def test_is_looked_at_again(
        self, world: World, owner: str, request_: GenerationRequest, age: float, delay: float
    ) -> None:
        left = _left_unknown(world, owner, accepted=True)
        world.clock.now += age

        with pytest.raises(RetryLater) as caught:
            world.get_or_submit(request_)

        assert caught.value.delay == pytest.approx(delay, abs=1e-3)
        assert isinstance(caught.value.error, IdeogramTargetBusy)
        assert owner in str(caught.value)
        assert world.submits() == 1
        assert "history" not in world.emulator.stats().calls
        assert world.record() == left


class TestUnknown:
    """Nobody knows whether the record's request was accepted."""

    @OWNERS
    def test_what_the_history_shows_is_adopted(self, world: World, owner: str) -> None:
        _left_unknown(world, owner, accepted=True)
        [charge] = world.emulator.requests()
        world.pass_time(SUBMIT_SECONDS)

        job, poll = world.get_or_submit()

        assert job.request_id == charge.request_id == world.record().request_id
        assert (job.paid_by_other_task, poll.outcome) == (owner != ME, Outcome.PENDING)
        assert world.submits() == 1

    def test_what_the_history_shows_is_adopted_first_and_then_judged(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.emulator.fault("job", "failed")
        _left_unknown(world, ME, accepted=True)
        [charge] = world.emulator.requests()
        world.pass_time(SUBMIT_SECONDS + QUEUE_SECONDS + JOB_SECONDS)

        job, _ = world.get_or_submit()

        assert world.charged() == 2
        assert f"request {charge.request_id} is taken up" in caplog.text
        assert job.request_id != charge.request_id

    def test_an_adopted_one_with_other_inputs_is_given_up_by_name(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        _left_unknown(world, ME, accepted=True)
        [charge] = world.emulator.requests()
        world.pass_time(SUBMIT_SECONDS)

        world.get_or_submit(OTHER_INPUTS)

        assert f"Request {charge.request_id} of {ME} was paid" in caplog.text
        assert world.charged() == 2

    @OWNERS
    @INPUTS
    @pytest.mark.parametrize(
        ("age", "delay"),
        [(SUBMIT_SECONDS, RETRY_SECONDS), (HISTORY_LAG - 10, 10.0), (HISTORY_LAG - 1, 1.0)],
    )
    def test_the_history_is_given_its_time(
        self, world: World, owner: str, request_: GenerationRequest, age: float, delay: float
    ) -> None:
        left = _left_unknown(world, owner)
        world.clock.now += age

        with pytest.raises(RetryLater) as caught:
            world.get_or_submit(request_, resubmit=True, max_tries=9)

        assert caught.value.delay == pytest.approx(delay, abs=1e-3)
        assert isinstance(caught.value.error, IdeogramUnknownSubmit)
        assert world.submits() == 0
        assert world.record() == left

    def test_a_request_that_shows_up_late_is_adopted(self, world: World) -> None:
        world.emulator.configure(history_lag_seconds=90)
        _left_unknown(world, ME, accepted=True)
        world.pass_time(61)
        with pytest.raises(RetryLater):
            world.get_or_submit()
        world.pass_time(30)

        job, _ = world.get_or_submit()

        assert job.request_id == world.emulator.requests()[0].request_id
        assert world.charged() == 1

    @OWNERS
    def test_same_inputs_fail_by_default(self, world: World, owner: str) -> None:
        left = _left_unknown(world, owner)
        world.pass_time(HISTORY_LAG)

        with pytest.raises(IdeogramUnknownSubmit) as caught:
            world.get_or_submit()

        for words in (owner, world.target.uri, "may have been accepted and charged", "Clear the task"):
            assert words in str(caught.value)
        assert world.submits() == 0
        assert world.record() == left

    @OWNERS
    def test_same_inputs_are_paid_again_where_the_user_said_so(
        self, world: World, owner: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        left = _left_unknown(world, owner)
        world.pass_time(HISTORY_LAG)

        job, _ = world.get_or_submit(resubmit=True)

        assert world.submits() == 1
        assert job.request == left.intent.request
        assert "Since on_unknown_submit is 'resubmit', a new request is submitted and charged" in caplog.text

    @pytest.mark.parametrize("max_tries", [3, 1], ids=["same retries", "fewer retries"])
    def test_a_person_who_clears_the_task_consents(
        self, world: World, max_tries: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        left = _left_unknown(world, ME)
        world.pass_time(HISTORY_LAG)

        job, _ = world.get_or_submit(max_tries=max_tries)

        assert world.submits() == 1
        assert job.request == left.intent.request
        assert world.record().intent.max_tries == max_tries
        assert "Since a person cleared the task, a new request is submitted and charged" in caplog.text

    def test_clearing_a_task_is_no_consent_for_another_one_s_submit(self, world: World) -> None:
        _left_unknown(world, SOMEBODY)
        world.pass_time(HISTORY_LAG)
        with pytest.raises(IdeogramUnknownSubmit):
            world.get_or_submit(max_tries=3)
        assert world.submits() == 0

    def test_own_with_other_inputs_is_submitted_anew_with_a_warning(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        _left_unknown(world, ME)
        world.pass_time(HISTORY_LAG)

        job, _ = world.get_or_submit(OTHER_INPUTS)

        assert job.request.prompt == world.emulator.requests()[0].inputs["prompt"] == "a harbour"
        assert "Since the inputs were changed, a new request is submitted and charged" in caplog.text

    def test_another_task_s_with_other_inputs_is_waited_for(self, world: World) -> None:
        _left_unknown(world, SOMEBODY)
        world.pass_time(HISTORY_LAG)
        with pytest.raises(IdeogramUnknownSubmit):
            world.get_or_submit(OTHER_INPUTS)
        assert world.submits() == 0

    @INPUTS
    def test_another_task_s_blocks_nobody_after_the_hour(self, world: World, request_: GenerationRequest) -> None:
        _left_unknown(world, SOMEBODY)
        world.pass_time(HOUR)
        with pytest.raises(IdeogramUnknownSubmit):
            world.get_or_submit(request_)
        world.pass_time(1)

        world.get_or_submit(request_)

        assert world.submits() == 1

    def test_own_needs_a_person_however_late(self, world: World) -> None:
        _left_unknown(world, ME)
        world.pass_time(30 * HOUR)
        with pytest.raises(IdeogramUnknownSubmit):
            world.get_or_submit()
        assert world.submits() == 0


class TestHistory:
    """What the account's history settles, and what it does not."""

    def _unsettled(self, world: World, why: str = "history shows no requests with its inputs") -> None:
        submits = world.submits()
        with pytest.raises(IdeogramUnknownSubmit, match=why):
            world.get_or_submit()
        assert world.submits() == submits
        assert world.record().request_id is None

    def test_other_inputs_prove_nothing(self, world: World) -> None:
        left = _left_unknown(world, ME)
        sent = left.intent.request
        for other in (replace(sent, seed=sent.seed + 1), replace(sent, prompt="a harbour")):
            world.hook.submit(other)
        world.pass_time(HISTORY_LAG)
        self._unsettled(world)

    def test_another_time_proves_nothing(self, world: World) -> None:
        world.hook.submit(ASKED.with_seed(random.Random(7)))
        world.pass_time(1000)
        _left_unknown(world, ME)
        world.pass_time(1000)
        world.hook.submit(ASKED.with_seed(random.Random(7)))
        self._unsettled(world)

    @pytest.mark.parametrize("accepted", [False, True])
    def test_a_request_that_failed_before_is_not_taken_for_the_one_after_it(self, world: World, accepted: bool) -> None:
        world.emulator.configure(queue_seconds=0.0, job_seconds=0.0)
        world.emulator.fault("job", "failed")
        failed = world.get_or_submit()[0].request_id
        world.emulator.fault("submit", "reset", when="after" if accepted else "before")

        if accepted:
            job, _ = world.get_or_submit()
            assert job.request_id == world.emulator.requests()[1].request_id
        else:
            with pytest.raises(RetryLater, match="shows no requests"):
                world.get_or_submit()
            assert world.record().intent.excluded_request_ids == (failed,)
            assert world.record().request_id is None

    def test_several_matches_do_not_tell(self, world: World) -> None:
        left = _left_unknown(world, ME, accepted=True)
        world.hook.submit(left.intent.request)
        world.pass_time(HISTORY_LAG)

        with pytest.raises(IdeogramUnknownSubmit, match="shows 2 requests"):
            world.get_or_submit()

    @pytest.mark.parametrize(
        ("fault", "why"),
        [
            ({"kind": "error", "status": 503}, "The API failed .HTTP 503"),
            ({"kind": "reset"}, "The API did not answer"),
            ({"kind": "truncated"}, "The API did not answer"),
        ],
    )
    def test_a_history_that_cannot_be_read_does_not_tell(self, world: World, fault: dict[str, Any], why: str) -> None:
        _left_unknown(world, ME, accepted=True)
        world.pass_time(HISTORY_LAG)
        world.emulator.fault("history", **fault, times=None)
        self._unsettled(world, f"the account's request history can't be read .{why}")

        world.emulator.clear_faults()
        job, _ = world.get_or_submit()
        assert job.request_id == world.emulator.requests()[0].request_id


class TestSubmit:
    """What the submit's answer means."""

    UNANSWERED = pytest.mark.parametrize(
        "fault", [{"kind": "reset"}, {"kind": "error", "status": 500}, {"kind": "error", "status": 504, "body": "html"}]
    )

    @UNANSWERED
    def test_accepted_and_not_answered_is_found_at_once(self, world: World, fault: dict[str, Any]) -> None:
        world.emulator.fault("submit", **fault, when="after")

        job, poll = world.get_or_submit()

        [charge] = world.emulator.requests()
        assert job.request_id == poll.request_id == charge.request_id == world.record().request_id
        assert (poll.outcome, job.paid_by_other_task) == (Outcome.PENDING, False)
        assert world.submits() == 1

    @UNANSWERED
    @pytest.mark.parametrize("resubmit", [False, True])
    def test_not_accepted_and_not_answered_is_looked_up_later(
        self, world: World, fault: dict[str, Any], resubmit: bool
    ) -> None:
        world.emulator.fault("submit", **fault)

        with pytest.raises(RetryLater) as caught:
            world.get_or_submit(resubmit=resubmit)

        assert caught.value.delay == RETRY_SECONDS
        assert isinstance(caught.value.error, IdeogramUnknownSubmit)
        assert world.submits() == 1
        assert world.record().request_id is None

    def test_an_answer_that_names_no_request_is_looked_up(self, world: World) -> None:
        world.emulator.fault("submit", "not_image")
        job, _ = world.get_or_submit()
        assert job.request_id == world.emulator.requests()[0].request_id
        assert world.submits() == 1

    def test_the_rate_limit_frees_the_target(self, world: World) -> None:
        world.emulator.fault("submit", "error", status=429, retry_after=30)

        with pytest.raises(RetryLater) as caught:
            world.get_or_submit()

        assert 30 <= caught.value.delay <= 45
        assert isinstance(caught.value.error, IdeogramRateLimited)
        assert world.record() is None
        assert world.get_or_submit(owner=SOMEBODY)[0].paid_by_other_task is False
        assert world.charged() == 1

    @pytest.mark.parametrize("status", [302, 400, 401, 402, 403, 404, 405, 406, 418, 422])
    def test_a_refusal_frees_the_target(self, world: World, status: int) -> None:
        world.emulator.fault("submit", "error", status=status)

        with pytest.raises(IdeogramNotCharged, match="Nothing was charged"):
            world.get_or_submit()

        assert world.record() is None
        assert (world.submits(), world.charged()) == (1, 0)

    @pytest.mark.parametrize("request_", [ASKED, OTHER_INPUTS], ids=["same inputs", "other inputs"])
    @pytest.mark.parametrize("owner", [ME, SOMEBODY], ids=["own", "another task's"])
    @pytest.mark.parametrize("status", [406, 429])
    def test_a_refusal_frees_the_target_where_nothing_can_be_removed(
        self, world: World, status: int, owner: str, request_: GenerationRequest
    ) -> None:
        world.emulator.fault("submit", "error", status=status, retry_after=30)
        with _s3_answers(world.client, "DeleteObject", 403):
            with pytest.raises((IdeogramNotCharged, RetryLater)):
                world.get_or_submit(owner=owner)
            assert world.record().not_submitted

            job, _ = world.get_or_submit(request_)

        assert (job.request_id, job.paid_by_other_task) == (world.record().request_id, False)
        assert (world.charged(), world.record().intent.owner, world.record().not_submitted) == (1, ME, False)
        assert "history" not in world.emulator.stats().calls

    def test_an_image_that_was_stored_since_a_refusal_is_found(self, world: World) -> None:
        with _s3_answers(world.client, "DeleteObject", 403):
            world.ledger.cancel_intent(_left_unknown(world, ME))
        stored = {"ideogram-fingerprint": ASKED.fingerprint, "ideogram-request-id": "r-1"}
        world.client.put_object(Bucket=world.bucket, Key=KEY, Body=b"image", Metadata=stored)

        found = world.submitter().get_or_submit(ASKED, absent=True)

        assert isinstance(found, ImageRecord)
        assert (found.request_id, world.submits(), world.record()) == ("r-1", 0, None)

    def test_an_api_that_is_not_there_frees_the_target(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", connection_to("http://127.0.0.1:9", "a-key-of-some-length"))
        with pytest.raises(IdeogramServerUnavailable, match="Nothing was sent or charged"):
            world.get_or_submit()
        assert world.record() is None

    @pytest.mark.parametrize("status", [403, 500])
    def test_an_id_that_cannot_be_recorded_is_shouted_and_the_request_continues(
        self, world: World, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        put = world.hook.submit

        def submit(request: GenerationRequest) -> Any:
            submission = put(request)
            refusing.__enter__()
            return submission

        refusing = _s3_answers(world.client, "PutObject", status)
        with mock.patch.object(world.hook, "submit", submit):
            job, _ = world.get_or_submit()
        refusing.__exit__(None, None, None)

        [charge] = world.emulator.requests()
        assert job.request_id == charge.request_id
        [error] = [record for record in caplog.records if record.levelname == "ERROR"]
        for words in (job.request_id, "submitted and paid", "the account's history", "one hour"):
            assert words in error.message
        assert world.record().request_id is None

        world.pass_time(SUBMIT_SECONDS)
        assert world.get_or_submit()[0].request_id == job.request_id
        assert world.charged() == 1

    def test_a_record_that_somebody_took_meanwhile_is_left_to_them(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        put = world.hook.submit

        def submit(request: GenerationRequest) -> Any:
            entry = world.record()
            world.ledger.replace(entry, replace(entry.intent, owner=SOMEBODY))
            return put(request)

        with mock.patch.object(world.hook, "submit", submit):
            job, _ = world.get_or_submit()

        assert job.request_id == world.emulator.requests()[0].request_id
        assert f"Request {job.request_id} is submitted and paid" in caplog.text
        assert world.record().intent.owner == SOMEBODY


class TestConcurrentTasks:
    def test_of_two_tasks_one_submits_and_the_other_waits_then_attaches(self, world: World) -> None:
        put = world.hook.submit
        waited = []

        def submit(request: GenerationRequest) -> Any:
            with pytest.raises(RetryLater) as caught:
                world.get_or_submit(owner=SOMEBODY)
            waited.append(caught.value)
            return put(request)

        with mock.patch.object(world.hook, "submit", submit):
            mine, _ = world.get_or_submit()
        theirs, _ = world.get_or_submit(owner=SOMEBODY)

        assert len(waited) == 1
        assert (theirs.request_id, theirs.paid_by_other_task) == (mine.request_id, True)
        assert (mine.paid_by_other_task, theirs.paid_by_other_task) == (False, True)
        assert world.charged() == 1

    def test_a_dead_request_is_replaced_by_one_of_two(self, world: World) -> None:
        _expired(world, SOMEBODY)
        replaced = world.ledger.replace

        def late(entry: LedgerRecord, intent: Intent) -> LedgerRecord:
            with mock.patch.object(world.ledger, "replace", replaced):
                world.get_or_submit(owner="night/run-3/generate/-1")
            return replaced(entry, intent)

        with mock.patch.object(world.ledger, "replace", late), pytest.raises(RetryLater):
            world.get_or_submit()

        assert world.charged() == 2
        assert world.record().intent.owner == "night/run-3/generate/-1"

    def test_a_record_that_vanishes_between_two_looks_is_looked_at_again(self, world: World) -> None:
        _queued(world, SOMEBODY)
        with mock.patch.object(world.ledger, "read", side_effect=[_AnyEntry, None]), pytest.raises(RetryLater):
            world.get_or_submit()
        assert world.submits() == 1


_AnyEntry = LedgerRecord(RECORD_KEY, '"etag"', Intent(ASKED, "", "", 0.0, SOMEBODY, 0))


class TestStored:
    """The target holds an object already."""

    @staticmethod
    def _store(world: World, request_id: str, request: GenerationRequest = ASKED, owner: str = SOMEBODY) -> None:
        metadata = {
            "ideogram-fingerprint": request.fingerprint,
            "ideogram-request-id": request_id,
            "ideogram-attempt-group": attempt_group(owner, 2),
        }
        world.client.put_object(Bucket=world.bucket, Key=KEY, Body=b"an image", Metadata=metadata)

    @pytest.mark.parametrize("if_exists", ["reuse", "overwrite", "fail"])
    def test_own_is_the_result_of_an_attempt_that_died_after_the_upload(self, world: World, if_exists: str) -> None:
        request_id = _completed(world, ME)
        self._store(world, request_id, owner=ME)

        stored = world.submitter(if_exists=if_exists).get_or_submit(ASKED)

        assert isinstance(stored, ImageRecord)
        assert (stored.request_id, stored.cost_usd, stored.reused) == (request_id, 0.05, False)
        assert world.record() is None
        assert world.charged() == 1

    @pytest.mark.parametrize("if_exists", ["reuse", "overwrite", "fail"])
    def test_own_is_the_result_though_the_record_is_gone(self, world: World, if_exists: str) -> None:
        self._store(world, "0b-1", owner=ME)
        stored = world.submitter(if_exists=if_exists).get_or_submit(ASKED)
        assert isinstance(stored, ImageRecord)
        assert (stored.request_id, stored.cost_usd, stored.reused) == ("0b-1", 0.05, False)
        assert world.submits() == 0

    def test_a_person_s_clear_asks_for_another_image_where_it_is_to_be_overwritten(self, world: World) -> None:
        self._store(world, "0b-1", owner=ME)
        world.get_or_submit(if_exists="overwrite", max_tries=3)
        assert world.charged() == 1

    def test_another_task_s_is_reused_for_nothing(self, world: World) -> None:
        request_id = _completed(world, SOMEBODY)
        self._store(world, request_id)

        stored = world.submitter().get_or_submit(ASKED)

        assert isinstance(stored, ImageRecord)
        assert (stored.request_id, stored.cost_usd, stored.reused) == (request_id, 0.0, True)
        assert world.charged() == 1

    def test_a_newer_request_s_record_stays(self, world: World) -> None:
        request_id = _processing(world, ME)
        self._store(world, "an-older-request")

        job, _ = world.get_or_submit(if_exists="overwrite")

        assert job.request_id == request_id
        assert world.charged() == 1

    def test_fail_fails_before_the_ledger_is_touched(self, world: World) -> None:
        self._store(world, "a-request")
        with pytest.raises(IdeogramObjectExists):
            world.submitter(if_exists="fail").get_or_submit(ASKED)
        assert (world.record(), world.submits()) == (None, 0)

    def test_an_image_that_was_stored_while_the_intent_was_written_is_taken(self, world: World) -> None:
        """Airflow gave up a part of this task that was still at it, and started the next attempt."""
        opened = world.ledger.write_intent

        def late(key: str, intent: Intent) -> LedgerRecord:
            self._store(world, "stored-meanwhile")
            return opened(key, intent)

        with mock.patch.object(world.ledger, "write_intent", late):
            stored = world.submitter(if_exists="overwrite").get_or_submit(ASKED)

        assert isinstance(stored, ImageRecord)
        assert stored.request_id == "stored-meanwhile"
        assert (world.record(), world.submits()) == (None, 0)


class TestPrefix:
    def test_each_task_instance_pays_its_own_image(self, world: World) -> None:
        world.target = Target(world.bucket, "images/")
        first, _ = world.get_or_submit()
        second, _ = world.get_or_submit(owner=SOMEBODY)
        again, _ = world.get_or_submit()
        assert first.request_id == again.request_id != second.request_id
        assert world.charged() == 2


class TestNoLedger:
    """``durable=False``: a job lives in its execution only."""

    @pytest.fixture(autouse=True)
    def _forgetful(self, world: World) -> None:
        world.ledger = NoLedger()

    def test_nothing_is_written(self, world: World) -> None:
        world.get_or_submit()
        assert "Contents" not in world.client.list_objects_v2(Bucket=world.bucket)

    def test_the_next_attempt_pays_again(self, world: World) -> None:
        assert world.get_or_submit()[0].request_id != world.get_or_submit()[0].request_id
        assert world.charged() == 2

    def test_an_unanswered_submit_is_still_looked_up(self, world: World) -> None:
        world.emulator.fault("submit", "reset", when="after")
        job, _ = world.get_or_submit()
        assert job.request_id == world.emulator.requests()[0].request_id
        assert world.submits() == 1

    def test_an_unanswered_submit_that_is_not_found_fails(self, world: World) -> None:
        world.emulator.fault("submit", "reset")
        with pytest.raises(IdeogramUnknownSubmit):
            world.get_or_submit()
        assert world.submits() == 1

    def test_a_user_who_would_rather_pay_twice_pays_twice_at_most(self, world: World) -> None:
        world.emulator.configure(history_lag_seconds=60)
        world.emulator.fault("submit", "error", status=503, when="after", times=None)

        with pytest.raises(IdeogramUnknownSubmit):
            world.get_or_submit(resubmit=True)

        assert world.submits() == world.charged() == 2


def test_no_error_of_a_submit_names_the_key(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for status in (400, 401, 429, 503):
        text = f"key {world.emulator.api_key} at {HISTORY_PATH}"
        world.emulator.fault("submit", "error", status=status, text=text, retry_after=60)
        with pytest.raises((IdeogramError, RetryLater)) as caught:
            world.get_or_submit(owner=f"owner-{status}")
        assert world.emulator.api_key not in str(caught.value)
    assert world.emulator.api_key not in caplog.text
