"""What a submitter does with the account's answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_ideogram.api.polling import Outcome, RequestPoll
from airflow_provider_ideogram.exceptions import IdeogramRateLimited, IdeogramStorageError
from airflow_provider_ideogram.jobs.admission import Unlimited, settle_abandoned
from airflow_provider_ideogram.jobs.reconciliation import RetryLater
from tests.unit.jobs.world import ASKED, ME, OTHER_INPUTS, World, failed, left_unknown, queued


@dataclass
class Account(Unlimited):
    """An account that records what is settled, and can settle nothing if it is not ``available``."""

    available: bool = True
    settled: list[tuple[Any, ...]] = field(default_factory=list)

    def settle(
        self, reservation: str | None, usd: float | None, *, failed: bool = False, lost_request_id: str | None = None
    ) -> bool:
        """Record the end of a reservation."""
        self.settled.append((reservation, usd, failed, lost_request_id))
        return self.available


class LateAccount(Unlimited):
    """An account whose slot has passed."""

    is_shared = True

    def admit(self, model: str, record: str | None) -> None:
        """Refuse."""
        raise IdeogramRateLimited("The task was held up", "Nothing was submitted.", retry_after=0.0)


@pytest.mark.parametrize(
    ("outcome", "cost", "expected"),
    [
        (Outcome.COMPLETED, 0.04, (0.04, False, None)),
        (Outcome.COMPLETED, None, (None, False, None)),
        (Outcome.PENDING, 0.04, (None, False, None)),
        (Outcome.FAILED, 0.04, (None, True, None)),
        (Outcome.EXPIRED, None, (None, False, "r-1")),
    ],
)
def test_abandoned_request_is_settled_by_what_is_known(
    outcome: Outcome, cost: float | None, expected: tuple[Any, ...]
) -> None:
    account, poll = Account(), RequestPoll("r-1", 0.0, outcome=outcome, cost_usd=cost)
    settle_abandoned(account, "a-reservation", poll)
    assert account.settled == [("a-reservation", *expected)]


@pytest.mark.parametrize("state", [queued, failed, left_unknown])
def test_record_stays_if_its_cost_cannot_be_recorded(world: World, state: Any) -> None:
    state(world, ME)
    before, submits = world.existing_record(), world.submits()
    world.pass_time(120)
    request = ASKED if state is failed else OTHER_INPUTS

    with pytest.raises(IdeogramStorageError, match="can't be recorded in the account"):
        world.get_or_submit(request, admission=Account(available=False), resubmit=True)

    assert world.existing_record() == before
    assert world.submits() == submits


def test_slot_that_has_passed_is_no_failure(world: World) -> None:
    with pytest.raises(RetryLater, match="held up"):
        world.get_or_submit(admission=LateAccount())
    assert world.record() is None
