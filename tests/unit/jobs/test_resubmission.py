"""A submit in place of another one: the first stays known until it is settled, and comes back if the new one fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from airflow_provider_ideogram.api.polling import Outcome
from airflow_provider_ideogram.exceptions import IdeogramNotCharged, IdeogramUnknownSubmit
from airflow_provider_ideogram.jobs.reconciliation import HISTORY_LAG, RetryLater
from airflow_provider_ideogram.jobs.submission import STORING_SECONDS
from tests.support.s3 import answered
from tests.unit.jobs.world import (
    DAY,
    HOUR,
    ME,
    OTHER_INPUTS,
    OTHER_TASK,
    World,
    completed,
    failed,
    left_unknown,
    processing,
)

REFUSALS = pytest.mark.parametrize(
    "fault",
    [{"kind": "error", "status": 429, "retry_after": 30}, {"kind": "credits_402"}, {"kind": "parameter_refused"}],
    ids=["429", "402", "406"],
)


def _refused(world: World, fault: dict[str, Any], *arguments: Any, **changes: Any) -> None:
    """Submit, which is refused."""
    submits = world.submits()
    world.emulator.fault("submit", **fault)
    with pytest.raises((RetryLater, IdeogramNotCharged)):
        world.get_or_submit(*arguments, **changes)
    assert world.submits() == submits + 1


class TestRefused:
    """A refused submit leaves the record as it was."""

    @REFUSALS
    def test_unknown_submit_stays_after_a_clear(self, world: World, fault: dict[str, Any]) -> None:
        world.emulator.configure(history_lag_seconds=HOUR)
        left = left_unknown(world, ME, accepted=True)
        world.pass_time(HISTORY_LAG)

        _refused(world, fault, max_tries=3)

        assert world.existing_record() == replace(left, etag=world.existing_record().etag)
        world.pass_time(HOUR)
        assert world.get_or_submit(max_tries=3)[0].request_id == world.emulator.requests()[0].request_id

    @REFUSALS
    @pytest.mark.parametrize("owner", [ME, OTHER_TASK])
    def test_abandoned_request_stays(self, world: World, fault: dict[str, Any], owner: str) -> None:
        (processing if owner == ME else completed)(world, owner)
        before = world.existing_record()
        world.pass_time(STORING_SECONDS)

        _refused(world, fault, OTHER_INPUTS)

        assert world.existing_record() == replace(before, etag=world.existing_record().etag)
        assert world.get_or_submit(owner=owner)[0].request_id == before.request_id

    @REFUSALS
    def test_failed_request_frees_the_target(self, world: World, fault: dict[str, Any]) -> None:
        failed(world, ME)
        _refused(world, fault)
        assert world.record() is None

    def test_record_that_cannot_be_written_back_is_unknown(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        left = left_unknown(world, ME)
        world.pass_time(HISTORY_LAG)
        world.emulator.fault("submit", "credits_402")
        world.ledger.check_store()
        with answered(world.client, "PutObject", 403, from_call=3), pytest.raises(IdeogramNotCharged):
            world.get_or_submit(max_tries=3)
        assert "The later record stays in its place" in caplog.text
        assert world.existing_record().intent.first_submit_at == left.intent.intent_at

    def test_error_before_the_submit_leaves_it_as_it_was(self, world: World) -> None:
        left = left_unknown(world, ME)
        world.pass_time(HISTORY_LAG)
        with mock.patch.object(world.hook, "submit", side_effect=KeyError), pytest.raises(KeyError):
            world.get_or_submit(max_tries=3)
        assert world.existing_record() == replace(left, etag=world.existing_record().etag)


class TestSeveralSubmits:
    """All submits of a request that may have been accepted are searched for."""

    def _submit_twice(self, world: World, *, accepted: bool) -> None:
        """Leave an accepted submit that the history does not show, then one more, after a clear."""
        world.emulator.configure(history_lag_seconds=HOUR)
        left_unknown(world, ME, accepted=True)
        world.pass_time(2 * HISTORY_LAG + 300)
        world.emulator.fault("submit", "reset", when="after" if accepted else "before")
        with pytest.raises(RetryLater):
            world.get_or_submit(max_tries=3)
        assert world.accepted() == 1 + accepted

    def test_first_one_is_found_after_the_second(self, world: World) -> None:
        self._submit_twice(world, accepted=False)
        first = world.emulator.requests()[0].request_id
        world.pass_time(HOUR)

        job, poll = world.get_or_submit(max_tries=3)

        assert (job.request_id, poll.outcome, world.submits()) == (first, Outcome.COMPLETED, 2)
        assert job.submitted_at < world.clock.now - HOUR - HISTORY_LAG

    def test_second_one_is_found_days_after_the_first(self, world: World) -> None:
        left_unknown(world, ME)
        world.pass_time(3 * DAY)
        world.emulator.fault("submit", "reset", when="after")

        job, _ = world.get_or_submit(max_tries=3)

        assert job.request_id == world.emulator.requests()[0].request_id
        assert world.accepted() == 1

    def test_one_of_two_that_were_accepted_is_taken(self, world: World) -> None:
        self._submit_twice(world, accepted=True)
        first = world.emulator.requests()[0].request_id
        world.pass_time(2 * HOUR)
        assert world.get_or_submit(max_tries=3)[0].request_id == first
        assert world.accepted() == 2

    def test_failure_of_one_does_not_settle_the_other(self, world: World) -> None:
        world.emulator.fault("job", "failed")
        self._submit_twice(world, accepted=True)
        second = world.emulator.requests()[1].request_id
        world.pass_time(2 * HOUR)
        assert world.get_or_submit(max_tries=3)[0].request_id == second

    def test_consent_is_for_one_submit(self, world: World) -> None:
        self._submit_twice(world, accepted=False)
        world.pass_time(HISTORY_LAG)
        with pytest.raises(IdeogramUnknownSubmit):
            world.get_or_submit(max_tries=3)
        assert world.submits() == 2

    def test_failed_submit_that_appears_late_is_found(self, world: World) -> None:
        world.emulator.configure(history_lag_seconds=HOUR)
        world.emulator.fault("submit", "error", status=502, when="after")
        with pytest.raises(RetryLater) as caught:
            world.get_or_submit()
        world.pass_time(caught.value.delay + 600)
        world.emulator.fault("submit", "error", status=502)
        with pytest.raises(RetryLater):
            world.get_or_submit()
        world.pass_time(HOUR)

        assert world.get_or_submit()[0].request_id == world.emulator.requests()[0].request_id
