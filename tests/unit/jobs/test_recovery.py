"""A request whose record at the vendor is gone, and what the account's history shows of it."""

from __future__ import annotations

import pytest

from airflow_provider_ideogram.api.history import HISTORY_LAG_MAX
from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.polling import FILE_LIFETIME, Outcome, RequestPoll
from airflow_provider_ideogram.exceptions import (
    IdeogramContentBlocked,
    IdeogramJobFailed,
    IdeogramJobUnreachable,
    IdeogramResultExpired,
)
from airflow_provider_ideogram.jobs.recovery import recover
from tests.unit.jobs.world import DAY, HOUR, QUEUE_SECONDS, UNREADABLE, World

AGES = pytest.mark.parametrize("age", [HOUR + 60, 2 * HOUR, DAY, 6 * DAY], ids=["61 min", "2 h", "1 d", "6 d"])


def _submitted(world: World, age: float, *faults: str, **settings: float) -> Job:
    """Return a request of this age whose record is gone."""
    for kind in faults:
        world.emulator.fault("job", kind)
    world.emulator.configure(**settings)
    job, _ = world.get_or_submit()
    world.pass_time(age)
    return job


def _recovered(world: World, job: Job) -> RequestPoll:
    poll = world.polled(job)
    assert poll.outcome is Outcome.RECORD_GONE
    recover(world.hook, poll, job.request)
    return poll


@AGES
def test_completed_request_has_address_and_cost(world: World, age: float) -> None:
    poll = _recovered(world, _submitted(world, age))
    assert (poll.outcome, poll.cost_usd, poll.settled) == (Outcome.COMPLETED, 0.05, True)
    assert poll.image_url is not None
    assert poll.image_url.startswith(world.emulator.url)
    assert poll.completed_at == world.clock.now


@pytest.mark.parametrize(("kind", "error"), [("failed", IdeogramJobFailed), ("blocked", IdeogramContentBlocked)])
def test_failed_request_was_not_charged(world: World, kind: str, error: type[IdeogramJobFailed]) -> None:
    poll = _recovered(world, _submitted(world, 2 * HOUR, kind))
    failure = poll.failure()
    assert poll.is_terminal_failure
    assert type(failure) is error
    assert failure.charged is False
    assert "It was not charged" in failure.advice


def test_pending_request_is_waited_for(world: World) -> None:
    job = _submitted(world, 2 * HOUR, job_seconds=DAY)
    assert _recovered(world, job).outcome is Outcome.PENDING
    world.pass_time(DAY)
    assert _recovered(world, job).outcome is Outcome.COMPLETED


def test_pending_request_older_than_its_file_is_expired(world: World) -> None:
    job = _submitted(world, FILE_LIFETIME + 1, job_seconds=30 * DAY)
    assert _recovered(world, job).outcome is Outcome.EXPIRED


def test_missing_row_is_no_proof_before_the_longest_delay(world: World) -> None:
    job = _submitted(world, HOUR + 60, history_lag_seconds=DAY)
    poll = world.polled(job)

    with pytest.raises(IdeogramJobUnreachable) as caught:
        recover(world.hook, poll, job.request)

    assert "whose rows may be late, does not show it" in caught.value.reason
    assert (caught.value.request_id, caught.value.retryable, poll.is_terminal_failure) == (job.request_id, True, False)


def test_row_missing_after_the_longest_delay_is_lost(world: World) -> None:
    job = _submitted(world, HISTORY_LAG_MAX + QUEUE_SECONDS, history_lag_seconds=DAY)
    poll = _recovered(world, job)
    assert poll.outcome is Outcome.EXPIRED
    assert isinstance(poll.failure(), IdeogramResultExpired)


def test_row_that_only_the_list_shows_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job = _submitted(world, 2 * HOUR)
    monkeypatch.setattr(world.hook, "find_in_history", lambda _: None)
    assert _recovered(world, job).outcome is Outcome.COMPLETED


def test_request_with_unknown_inputs_is_found_by_its_id(world: World) -> None:
    job = _submitted(world, DAY)
    poll = world.polled(job)
    recover(world.hook, poll, None)
    assert poll.outcome is Outcome.COMPLETED


@UNREADABLE
def test_unreadable_history_is_no_proof_at_any_age(world: World, fault: dict[str, str], why: str) -> None:
    job = _submitted(world, 8 * DAY)
    poll = world.polled(job)
    world.emulator.fault("history", **fault, times=None)

    with pytest.raises(IdeogramJobUnreachable, match=f"history can't be read .{why}"):
        recover(world.hook, poll, job.request)

    assert not poll.is_terminal_failure


def test_connection_without_history_cannot_recover(gateway: World) -> None:
    job = _submitted(gateway, HOUR + 60)
    assert _recovered(gateway, job).outcome is Outcome.EXPIRED
