"""The admission of a task to a shared account."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_ideogram.account.account import is_shared
from airflow_provider_ideogram.account.budget import HOLD_SECONDS
from airflow_provider_ideogram.account.limiter import AccountLimiter
from airflow_provider_ideogram.account.store import AccountStore
from airflow_provider_ideogram.exceptions import IdeogramRateLimited
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from tests.support.s3 import answered
from tests.unit.account.conftest import MODEL, NOW, Setup


@pytest.mark.parametrize(
    ("settings", "shared"),
    [
        ({}, False),
        ({"requests_per_minute": 1.0}, True),
        ({"max_cost_usd_per_day": 0.0}, True),
        ({"max_cost_usd_per_month": 0.0}, True),
        ({"max_cost_usd_per_dag_and_day": 0.0}, True),
        ({"account_url": "s3://b/"}, True),
    ],
)
def test_limit_budget_or_address_makes_an_account(settings: dict[str, Any], shared: bool) -> None:
    assert is_shared(ConnectionSettings("a-key-of-tests", **settings)) is shared


def test_admission_that_is_too_old_does_not_submit(account: Setup) -> None:
    admission = account.admission()
    admission.admit(MODEL, account.url("record"))
    account.now += HOLD_SECONDS / 2 + 1
    with pytest.raises(IdeogramRateLimited, match="held up"):
        admission.check()


def test_failure_to_cancel_is_only_logged(account: Setup, caplog: pytest.LogCaptureFixture) -> None:
    admission = account.admission()
    reservation = admission.admit(MODEL, account.url("record"))
    with answered(account.client, "PutObject", 403):
        admission.cancel(reservation)
    assert "stays reserved until it is certain" in caplog.text


def test_429_reaches_all_parts(account: Setup) -> None:
    admission = account.admission(requests_per_minute=400.0)
    admission.limited(30.0)
    assert len(account.object_keys()) == 4
    states = [AccountStore(account.objects, account.bucket).read(key, dict) for key in account.object_keys()]
    assert all(state and state["rate"]["blocked_until"] == NOW + 30 for state in states)


@pytest.mark.parametrize(("late", "counts_from"), [(0.4, NOW), (8.0, NOW + 8)])
def test_late_submit_corrects_its_slot(account: Setup, late: float, counts_from: float) -> None:
    admission = account.admission(requests_per_minute=50.0)
    admission.admit(MODEL, account.url("record"))
    account.now += late
    admission.check()
    admission.submitted()
    [limit] = [key for key in account.object_keys() if "limit" in key]
    state = AccountStore(account.objects, account.bucket).read(limit, AccountLimiter.from_json)
    assert state is not None
    assert state.rate.sent == [counts_from]


def test_second_object_is_asked_before_a_task_waits(account: Setup) -> None:
    settings = {"requests_per_minute": 200.0}
    taken = [account.admission(**settings).account.take_slots(1) for _ in range(60)]
    # Each object has 16 slots for now and the next seconds: all are taken before a task waits.
    assert [bool(slots) for slots, _ in taken] == [True] * 32 + [False] * 28
