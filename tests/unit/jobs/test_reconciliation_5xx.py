"""A submit that was *answered* 500, 502 or 503: it is repeated if the account's history does not show it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_ideogram.api.polling import Outcome
from airflow_provider_ideogram.exceptions import (
    IdeogramInsufficientCredits,
    IdeogramRateLimited,
    IdeogramSubmitFailed,
    IdeogramUnknownSubmit,
)
from airflow_provider_ideogram.jobs.reconciliation import HISTORY_LAG, MAX_SUBMITS, RETRY_SECONDS, RetryLater
from tests.support.s3 import answered
from tests.unit.jobs.world import DAY, HOUR, ME, OTHER_INPUTS, OTHER_TASK, UNREADABLE, World, left_unknown

STATUSES = pytest.mark.parametrize("status", [500, 502, 503])


def _submit(world: World, status: int = 502, **changes: Any) -> RetryLater:
    """Submit once, which is answered with the status, and return what the task waits for."""
    world.emulator.fault("submit", "error", status=status)
    with pytest.raises(RetryLater) as caught:
        world.get_or_submit(**changes)
    return caught.value


@STATUSES
def test_submit_is_repeated_after_two_minutes(world: World, status: int) -> None:
    later = _submit(world, status)

    assert HISTORY_LAG <= later.delay <= HISTORY_LAG + RETRY_SECONDS
    assert isinstance(later.error, IdeogramSubmitFailed)
    assert f"HTTP {status}" in later.error.reason
    assert later.error.status_code == status
    record = world.existing_record()
    assert (record.request_id, record.intent.submit_attempts) == (None, 1)
    world.pass_time(HISTORY_LAG - 1)
    with pytest.raises(RetryLater):
        world.get_or_submit()
    assert world.submits() == 1
    world.pass_time(1)

    job, poll = world.get_or_submit()

    assert (job.request, poll.outcome) == (record.intent.request, Outcome.PENDING)
    assert (world.submits(), world.accepted()) == (2, 1)


@STATUSES
def test_accepted_submit_is_found_at_once(world: World, status: int) -> None:
    world.emulator.fault("submit", "error", status=status, when="after")
    job, _ = world.get_or_submit()
    assert job.request_id == world.emulator.requests()[0].request_id
    assert world.submits() == 1


def test_accepted_submit_that_appears_late_is_adopted(world: World) -> None:
    world.emulator.configure(history_lag_seconds=100)
    world.emulator.fault("submit", "error", status=502, when="after")
    with pytest.raises(RetryLater) as caught:
        world.get_or_submit()
    world.pass_time(caught.value.delay)

    job, _ = world.get_or_submit()

    assert job.request_id == world.emulator.requests()[0].request_id
    assert world.submits() == 1


@pytest.mark.parametrize("resubmit", [False, True])
def test_submits_are_limited_to_three(world: World, resubmit: bool) -> None:
    for _ in range(MAX_SUBMITS):
        world.pass_time(_submit(world, resubmit=resubmit).delay)
    for _ in range(2):
        with pytest.raises(IdeogramSubmitFailed, match=r"answered by an error of the server \(3 submits\)"):
            world.get_or_submit(resubmit=resubmit)
        world.pass_time(HOUR)
    assert world.submits() == MAX_SUBMITS


def test_clear_by_a_person_begins_a_new_count(world: World) -> None:
    for _ in range(MAX_SUBMITS):
        world.pass_time(_submit(world).delay)

    world.pass_time(_submit(world, max_tries=5).delay)

    assert world.existing_record().intent.submit_attempts == 1
    assert world.get_or_submit(max_tries=5)[0].request_id == world.emulator.requests()[0].request_id


def test_rate_limit_between_submits_keeps_the_count(world: World) -> None:
    world.pass_time(_submit(world).delay)
    world.emulator.fault("submit", "error", status=429, retry_after=30)
    with pytest.raises(RetryLater) as caught:
        world.get_or_submit()
    assert isinstance(caught.value.error, IdeogramRateLimited)
    assert world.existing_record().intent.submit_attempts == 1
    world.pass_time(HISTORY_LAG)

    job, _ = world.get_or_submit()

    assert job.request_id == world.emulator.requests()[0].request_id


def test_refusal_after_a_failed_submit_keeps_that_one(world: World) -> None:
    world.pass_time(_submit(world).delay)
    before = world.existing_record()
    world.emulator.fault("submit", "credits_402")
    with pytest.raises(IdeogramInsufficientCredits):
        world.get_or_submit()
    assert world.existing_record() == replace(before, etag=world.existing_record().etag)


def test_user_can_leave_it_to_a_person(world: World) -> None:
    later = _submit(world, resubmit_on_5xx=False)
    world.pass_time(later.delay)
    with pytest.raises(IdeogramSubmitFailed, match="shows no requests"):
        world.get_or_submit(resubmit_on_5xx=False)
    assert world.submits() == 1


@UNREADABLE
def test_history_that_does_not_respond_delays_it(world: World, fault: dict[str, Any], why: str) -> None:
    world.pass_time(_submit(world).delay)
    world.emulator.fault("history", **fault, times=None)
    with pytest.raises(RetryLater, match=why):
        world.get_or_submit()
    assert world.submits() == 1
    world.emulator.clear_faults()

    world.get_or_submit()

    assert world.submits() == 2


def test_connection_without_history_does_not_repeat_it(gateway: World) -> None:
    gateway.pass_time(_submit(gateway).delay)
    with pytest.raises(IdeogramSubmitFailed, match="has no history_url"):
        gateway.get_or_submit()
    assert gateway.submits() == 1


def test_several_matches_do_not_repeat_it(world: World) -> None:
    left = left_unknown(world, ME, accepted=True, submit_attempts=1)
    world.hook.submit(left.intent.request)
    world.pass_time(HISTORY_LAG)
    with pytest.raises(IdeogramSubmitFailed, match="shows 2 requests"):
        world.get_or_submit()
    assert world.submits() == 2


def test_another_task_with_the_same_inputs_repeats_it(world: World) -> None:
    left_unknown(world, OTHER_TASK, submit_attempts=1)
    world.pass_time(HISTORY_LAG)

    job, _ = world.get_or_submit()

    record = world.existing_record()
    assert (job.paid_by_other_task, record.intent.owner, record.intent.submit_attempts) == (False, ME, 1)


def test_other_inputs_leave_another_task_its_target(world: World) -> None:
    left_unknown(world, OTHER_TASK, submit_attempts=1)
    world.pass_time(HISTORY_LAG)
    with pytest.raises(IdeogramSubmitFailed):
        world.get_or_submit(OTHER_INPUTS)
    assert world.submits() == 0


def test_lost_response_after_an_answered_submit_is_unknown(world: World) -> None:
    world.emulator.configure(history_lag_seconds=HOUR)
    world.pass_time(_submit(world).delay)
    world.emulator.fault("submit", "reset", when="after")
    with pytest.raises(RetryLater):
        world.get_or_submit()

    world.pass_time(HISTORY_LAG)
    with pytest.raises(IdeogramUnknownSubmit, match=r"has no response \(2 submits\)") as caught:
        world.get_or_submit()

    assert not isinstance(caught.value, IdeogramSubmitFailed)
    assert (world.submits(), world.accepted()) == (2, 1)
    world.pass_time(HOUR)
    assert world.get_or_submit()[0].request_id == world.emulator.requests()[0].request_id


def test_failed_submit_that_cannot_be_recorded_is_unknown(world: World) -> None:
    world.emulator.fault("submit", "error", status=502)
    with answered(world.client, "PutObject", 403, from_call=2), pytest.raises(RetryLater):
        world.get_or_submit()
    assert world.existing_record().intent.submit_attempts == 0
    world.pass_time(DAY)
    with pytest.raises(IdeogramUnknownSubmit):
        world.get_or_submit()
    assert world.submits() == 1
