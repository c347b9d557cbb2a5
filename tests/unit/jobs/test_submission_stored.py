"""A target that has an image already, a target below a prefix, and submits without a ledger."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from airflow_provider_ideogram.exceptions import (
    IdeogramJobUnreachable,
    IdeogramObjectExists,
    IdeogramStorageError,
    IdeogramSubmitFailed,
    IdeogramUnknownSubmit,
)
from airflow_provider_ideogram.jobs.identity import attempt_group
from airflow_provider_ideogram.jobs.ledger import NoLedger
from airflow_provider_ideogram.jobs.reconciliation import HISTORY_LAG, RetryLater
from airflow_provider_ideogram.jobs.record import Intent, LedgerRecord
from airflow_provider_ideogram.storage.image_record import ImageRecord, iso_utc
from airflow_provider_ideogram.storage.image_store import ImageStore
from airflow_provider_ideogram.storage.target import Target
from tests.support.s3 import answered
from tests.unit.jobs.world import (
    ASKED,
    DAY,
    HOUR,
    KEY,
    MAX_TRIES,
    ME,
    OTHER_INPUTS,
    OTHER_TASK,
    World,
    completed,
    left_unknown,
    processing,
    queued,
)

IF_EXISTS = pytest.mark.parametrize("if_exists", ["reuse", "overwrite", "fail"])


class TestStored:
    @IF_EXISTS
    def test_own_image_is_the_result_of_an_ended_attempt(self, world: World, if_exists: str) -> None:
        request_id = completed(world, ME)
        world.store_image(request_id, ME)

        stored = world.find_image(if_exists=if_exists)

        assert (stored.request_id, stored.cost_usd, stored.reused) == (request_id, 0.05, False)
        assert world.record() is None
        assert world.accepted() == 1

    @IF_EXISTS
    def test_own_image_is_the_result_without_a_record(self, world: World, if_exists: str) -> None:
        world.store_image("0b-1", ME)
        stored = world.find_image(if_exists=if_exists)
        assert (stored.request_id, stored.cost_usd, stored.reused) == ("0b-1", 0.05, False)

    def test_clear_replaces_an_image_that_is_to_be_overwritten(self, world: World) -> None:
        world.store_image("0b-1", ME)
        world.get_or_submit(if_exists="overwrite", max_tries=3)
        assert world.accepted() == 1

    def test_image_of_another_task_is_reused(self, world: World) -> None:
        request_id = completed(world, OTHER_TASK)
        world.store_image(request_id)

        stored = world.find_image()

        assert (stored.request_id, stored.cost_usd, stored.reused) == (request_id, 0.0, True)
        assert stored.original_cost_usd == 0.05
        assert world.accepted() == 1

    def test_record_of_a_newer_request_stays(self, world: World) -> None:
        request_id = processing(world, ME)
        world.store_image("an-older-request")

        job, _ = world.get_or_submit(if_exists="overwrite")

        assert job.request_id == request_id
        assert world.accepted() == 1

    def test_fail_raises_before_the_ledger_is_read(self, world: World) -> None:
        world.store_image("a-request")
        with pytest.raises(IdeogramObjectExists) as caught:
            world.get_or_submit(if_exists="fail")
        assert caught.value.advice.startswith("Nothing was charged.")
        assert (world.record(), world.submits()) == (None, 0)

    def test_image_of_other_inputs_is_replaced(self, world: World) -> None:
        world.store_image("a-request")
        job, _ = world.get_or_submit(OTHER_INPUTS)
        assert job.request_id == world.emulator.requests()[0].request_id

    @pytest.mark.parametrize("before", [None, "stored-meanwhile"], ids=["absent", "stored by another task"])
    def test_image_stored_after_the_first_read_is_found(self, before: str | None, world: World) -> None:
        """Airflow failed a slice of this task that was still running, and started the next attempt."""
        write_intent = world.ledger.write_intent
        if before is not None:  # of the request to which this task has reattached
            world.store_image(before)

        def late(key: str, intent: Intent) -> LedgerRecord:
            world.store_image("stored-meanwhile", ME)
            return write_intent(key, intent)

        with mock.patch.object(world.ledger, "write_intent", late):
            stored = world.find_image(if_exists="overwrite")

        assert stored.request_id == "stored-meanwhile"
        assert world.record() is None

    def test_object_that_appeared_is_not_paid_for_twice(self, world: World) -> None:
        world.client.put_object(Bucket=world.bucket, Key=KEY, Body=b"another program's")

        with pytest.raises(IdeogramObjectExists, match="exists and if_exists is 'fail'"):
            world.find_image(absent=True, if_exists="fail")

        assert (world.submits(), world.record()) == (0, None)

    @pytest.mark.parametrize("owner", [ME, OTHER_TASK])
    def test_image_that_appeared_is_used_in_spite_of_a_record(self, owner: str, world: World) -> None:
        left_unknown(world, owner)
        world.store_image("stored-meanwhile")

        stored = world.find_image(absent=True)  # as a listing has shown before

        assert stored.request_id == "stored-meanwhile"
        assert world.record() is not None  # the submit may still be on its way

    @pytest.mark.parametrize("absent", [True, False])
    @pytest.mark.parametrize(("owner", "is_ended"), [(ME, True), (OTHER_TASK, False)])
    def test_past_unknown_submit_ends_with_an_image(
        self, owner: str, is_ended: bool, absent: bool, world: World
    ) -> None:
        left_unknown(world, owner)
        world.pass_time(121.0)
        world.store_image("stored-meanwhile")

        assert world.find_image(absent=absent).request_id == "stored-meanwhile"
        assert (world.record() is None) == is_ended

    def test_unknown_submit_is_kept_where_the_image_is_replaced(self, world: World) -> None:
        left_unknown(world, ME, accepted=True)
        world.pass_time(121.0)
        world.store_image("older")
        assert world.get_or_submit(if_exists="overwrite")[0].request_id == world.emulator.requests()[0].request_id

    def test_intent_is_cancelled_if_the_target_cannot_be_read(self, world: World) -> None:
        with answered(world.client, "HeadObject", 403, from_call=2), pytest.raises(IdeogramStorageError):
            world.get_or_submit()
        assert (world.record(), world.submits()) == (None, 0)

    @pytest.mark.parametrize("error", [ValueError, SystemExit])
    def test_intent_is_cancelled_after_an_error_of_any_class(self, world: World, error: type[BaseException]) -> None:
        with mock.patch.object(ImageStore, "head", side_effect=[None, error]), pytest.raises(error):
            world.get_or_submit()
        assert (world.record(), world.submits()) == (None, 0)


class TestPrefix:
    @pytest.fixture(autouse=True)
    def _prefix(self, world: World) -> None:
        world.target = Target(world.bucket, "images/")

    def test_each_task_instance_submits_its_own_request(self, world: World) -> None:
        first, _ = world.get_or_submit()
        second, _ = world.get_or_submit(owner=OTHER_TASK)
        reattached, _ = world.get_or_submit()
        assert first.request_id == reattached.request_id != second.request_id
        assert world.accepted() == 2

    def test_retry_finds_the_image_of_an_earlier_attempt(self, world: World) -> None:
        world.store_image("r-1", ME)
        stored = world.find_image(tried_since=time.time() - DAY)
        name = f"images/{attempt_group(ME, MAX_TRIES)[:8]}-r-1.png"
        assert (stored.key, stored.request_id, stored.reused) == (name, "r-1", False)

    def test_first_attempt_finds_the_image_of_its_retry(self, world: World) -> None:
        """Airflow failed the attempt while it was on its way to its submit, and the retry has stored the image."""
        started = time.time()
        world.store_image("r-1", ME)
        world.pass_time(10)
        assert world.find_image(tried_since=started).request_id == "r-1"
        assert world.record() is None

    def test_attempt_that_just_began_lists_nothing(self, world: World) -> None:
        with answered(world.client, "ListObjectsV2", 403):
            world.get_or_submit(tried_since=time.time() - 1)
        assert world.accepted() == 1

    def test_attempt_of_unknown_start_finds_its_image(self, world: World) -> None:
        world.store_image("r-1", ME)
        assert world.find_image(tried_since=None).request_id == "r-1"

    def test_other_tasks_find_none(self, world: World) -> None:
        world.store_image("r-1", ME)
        world.get_or_submit(owner=OTHER_TASK, tried_since=time.time() - DAY)
        assert world.accepted() == 1


@pytest.mark.parametrize("key", [KEY, "images/"], ids=["key", "prefix"])
def test_stored_request_is_never_taken_for_a_later_submit(world: World, key: str) -> None:
    """A clear with the user's seed sends the same inputs again; the history is later than its usual lag."""
    world.target = Target(world.bucket, key)
    world.emulator.configure(queue_seconds=0.0, job_seconds=0.0)
    asked = replace(ASKED, seed=7)
    earlier, _ = world.get_or_submit(asked)
    world.client.delete_object(Bucket=world.bucket, Key=str(earlier.record_key))
    world.store_image(earlier.request_id, ME, **{"ideogram-fingerprint": asked.fingerprint})
    world.pass_time(60.0)
    world.emulator.configure(history_lag_seconds=HOUR)
    world.emulator.fault("submit", "reset", when="after")
    cleared: dict[str, Any] = {"if_exists": "overwrite", "max_tries": MAX_TRIES + 1}
    with pytest.raises(RetryLater, match="shows no requests"):
        world.get_or_submit(asked, **cleared)

    world.pass_time(HISTORY_LAG)
    with pytest.raises(IdeogramUnknownSubmit, match="shows no requests"):
        world.get_or_submit(asked, **cleared)

    world.pass_time(HOUR)
    job, _ = world.get_or_submit(asked, **cleared)
    assert [request.request_id for request in world.emulator.requests()] == [earlier.request_id, job.request_id]


class TestPreviousRequest:
    """The request of an earlier attempt, for tasks whose inputs are the result of a function."""

    def test_record_has_the_inputs_as_they_were_asked_for(self, world: World) -> None:
        queued(world, ME)
        assert world.submitter().find_previous_request() == ASKED

    def test_seed_of_the_user_is_kept(self, world: World) -> None:
        asked = replace(ASKED, seed=7)
        world.get_or_submit(asked)
        assert world.submitter().find_previous_request() == asked

    def test_other_tasks_and_attempts_before_a_clear_have_none(self, world: World) -> None:
        queued(world, OTHER_TASK)
        assert world.submitter().find_previous_request() is None
        assert world.submitter(OTHER_TASK, max_tries=3).find_previous_request() is None

    def test_nothing_was_asked_for_without_record_and_image(self, world: World) -> None:
        assert world.submitter().find_previous_request() is None

    @pytest.mark.parametrize("age", [60.0, 6 * DAY])
    def test_stored_image_has_its_inputs_in_the_history(self, world: World, age: float) -> None:
        submitted_at = iso_utc(time.time())
        request_id = self._stored(world, submitted_at)
        world.pass_time(age)
        previous = world.submitter().find_previous_request()
        assert previous == ASKED
        assert world.find_image().request_id == request_id

    def test_stored_image_without_history_is_an_error(self, world: World) -> None:
        world.emulator.configure(history_lag_seconds=DAY)
        self._stored(world, iso_utc(time.time()))
        with pytest.raises(IdeogramJobUnreachable, match="history does not show its inputs"):
            world.submitter().find_previous_request()

    def test_connection_without_history_says_that_the_image_is_paid(self, gateway: World) -> None:
        self._stored(gateway, iso_utc(time.time()))
        with pytest.raises(IdeogramJobUnreachable, match="history does not show its inputs") as caught:
            gateway.submitter().find_previous_request()
        assert caught.value.charged is True

    @pytest.mark.parametrize("if_exists", ["reuse", "overwrite", "fail"])
    def test_other_inputs_of_another_slice_join_its_request(self, world: World, if_exists: str) -> None:
        first = queued(world, ME)
        second, _ = world.get_or_submit(OTHER_INPUTS, keeps_first_inputs=True, if_exists=if_exists)
        assert (second.request_id, second.request and second.request.prompt) == (first, ASKED.prompt)
        assert world.accepted() == 1

    def test_other_inputs_after_a_clear_are_submitted(self, world: World) -> None:
        queued(world, ME)
        world.get_or_submit(OTHER_INPUTS, keeps_first_inputs=True, max_tries=5)
        assert world.accepted() == 2

    @pytest.mark.parametrize("late", [False, True])
    @pytest.mark.parametrize("if_exists", ["reuse", "overwrite", "fail"])
    def test_image_of_another_slice_is_the_result(self, world: World, if_exists: str, late: bool) -> None:
        head = ImageStore.head
        request_id = self._stored(world, iso_utc(time.time()))
        unseen = [None] if late else []  # the other slice stores it after the first look

        def look(store: ImageStore, target: Target) -> Any:
            return unseen.pop() if unseen else head(store, target)

        submitter = world.submitter(keeps_first_inputs=True, if_exists=if_exists)
        with mock.patch.object(ImageStore, "head", look):
            stored = submitter.get_or_submit(OTHER_INPUTS)

        assert isinstance(stored, ImageRecord)
        assert (stored.request_id, stored.prompt, stored.cost_usd) == (request_id, ASKED.prompt, 0.05)
        assert (world.accepted(), world.record()) == (1, None)

    @staticmethod
    def _stored(world: World, submitted_at: str) -> str:
        """Leave an image whose record is deleted, as an attempt does that is killed at its end."""
        request_id = queued(world, ME)
        metadata = {"ideogram-model": ASKED.model, "ideogram-submitted-at": submitted_at}
        world.store_image(request_id, ME, **metadata)
        record = world.existing_record()
        world.ledger.delete(record.key, record.etag)
        return request_id


class TestNoLedger:
    """``durable=False``: a request is known in its execution only."""

    @pytest.fixture(autouse=True)
    def _no_ledger(self, world: World) -> None:
        world.ledger = NoLedger()

    def test_nothing_is_written(self, world: World) -> None:
        world.get_or_submit()
        assert "Contents" not in world.client.list_objects_v2(Bucket=world.bucket)

    def test_next_attempt_pays_again(self, world: World) -> None:
        assert world.get_or_submit()[0].request_id != world.get_or_submit()[0].request_id
        assert world.accepted() == 2

    def test_unknown_submit_is_found_in_the_history(self, world: World) -> None:
        world.emulator.fault("submit", "reset", when="after")
        job, _ = world.get_or_submit()
        assert job.request_id == world.emulator.requests()[0].request_id
        assert world.submits() == 1

    def test_unknown_submit_that_is_not_found_fails(self, world: World) -> None:
        world.emulator.fault("submit", "reset")
        with pytest.raises(IdeogramUnknownSubmit):
            world.get_or_submit()
        assert world.submits() == 1

    def test_second_unknown_submit_announces_no_third(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        world.emulator.fault("submit", "reset", times=None)
        with pytest.raises(IdeogramUnknownSubmit, match="the account's request history shows no requests"):
            world.get_or_submit(resubmit=True)
        assert world.submits() == 2
        assert caplog.text.count("a new request is submitted") == 1

    @pytest.mark.parametrize("status", [500, 502, 503])
    def test_answered_5xx_is_not_repeated_without_a_wait(self, world: World, status: int) -> None:
        world.emulator.configure(history_lag_seconds=60)
        world.emulator.fault("submit", "error", status=status, when="after")
        with pytest.raises(IdeogramSubmitFailed):
            world.get_or_submit()
        assert world.submits() == 1

    def test_user_who_accepts_to_pay_twice_pays_twice_at_most(self, world: World) -> None:
        world.emulator.configure(history_lag_seconds=60)
        world.emulator.fault("submit", "error", status=503, when="after", times=None)

        with pytest.raises(IdeogramUnknownSubmit):
            world.get_or_submit(resubmit=True)

        assert world.submits() == world.accepted() == 2
