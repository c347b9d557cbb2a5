"""The admission of a task: its amount in the object of the day, checked against the ledger."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.account.account import Account, SubmittingTask, is_shared
from airflow_provider_ideogram.account.admission import AccountAdmission
from airflow_provider_ideogram.account.budget import HOLD_SECONDS
from airflow_provider_ideogram.account.reservations import Settlement, settle
from airflow_provider_ideogram.account.store import AccountStore
from airflow_provider_ideogram.exceptions import IdeogramBudgetReached, IdeogramRateLimited
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from airflow_provider_ideogram.storage.objects import ObjectStore
from tests.support.s3 import answered

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MODEL = "ideogram-2a-txt-2-img"
PRICE = 0.05
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()


class Setup:
    """Admissions of one account at a time that a test sets."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self.client, self.bucket = client, bucket
        self.objects = ObjectStore(client)
        self.now = NOW

    def admission(self, **settings: Any) -> AccountAdmission:
        """Make the admission of a task."""
        known = ConnectionSettings("a-key-of-tests", **settings)
        return AccountAdmission(
            Account(self.objects, f"s3://{self.bucket}/x/", "a/b", known, SubmittingTask("dag", "run", "task"))
        )

    def url(self, record: str) -> str:
        """Return the address of a record."""
        return f"s3://{self.bucket}/{record}"

    def object_keys(self) -> list[str]:
        """Return the keys of the account's objects."""
        return [item.key for item in self.objects.list(self.bucket, "x/_account/")]


@pytest.fixture
def account(client: S3Client, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """Return the account of a fresh bucket."""
    setup = Setup(client, bucket)
    monkeypatch.setattr(time, "time", lambda: setup.now)
    return setup


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


def test_reservation_names_its_day(account: Setup) -> None:
    reservation = account.admission().admit(MODEL, account.url("record"))
    assert reservation is not None
    assert reservation.startswith(account.url("x/_account/a%2Fb/2026-11-25-1of1.json#"))


def test_reservation_of_a_dead_holder_is_released(account: Setup) -> None:
    assert account.admission(max_cost_usd_per_day=PRICE).admit(MODEL, account.url("record"))
    account.now += HOLD_SECONDS - 1
    with pytest.raises(IdeogramBudgetReached):
        account.admission(max_cost_usd_per_day=PRICE).admit(MODEL, account.url("other"))
    account.now += 1
    assert account.admission(max_cost_usd_per_day=PRICE).admit(MODEL, account.url("other"))


def test_reservation_with_a_record_is_kept(account: Setup) -> None:
    account.admission(max_cost_usd_per_day=PRICE).admit(MODEL, account.url("record"))
    account.client.put_object(Bucket=account.bucket, Key="record", Body=b"{}")
    account.now += HOLD_SECONDS
    with pytest.raises(IdeogramBudgetReached):
        account.admission(max_cost_usd_per_day=PRICE).admit(MODEL, account.url("other"))


def test_record_that_cannot_be_read_keeps_the_reservation(account: Setup) -> None:
    account.admission(max_cost_usd_per_day=PRICE).admit(MODEL, "s3://no-such-bucket/record")
    account.now += HOLD_SECONDS
    with pytest.raises(IdeogramBudgetReached):
        account.admission(max_cost_usd_per_day=PRICE).admit(MODEL, account.url("other"))


def test_month_counts_the_objects_of_its_days(account: Setup) -> None:
    first = account.admission(max_cost_usd_per_month=2 * PRICE).admit(MODEL, None)
    assert settle(account.objects, [Settlement(first, PRICE)])
    account.now += 86_400
    account.admission(max_cost_usd_per_month=2 * PRICE).admit(MODEL, None)
    with pytest.raises(IdeogramBudgetReached, match=r"max_cost_usd_per_month .* 0\.05 USD are spent and 0\.05"):
        account.admission(max_cost_usd_per_month=2 * PRICE).admit(MODEL, None)
    account.now += 6 * 86_400
    assert account.admission(max_cost_usd_per_month=2 * PRICE).admit(MODEL, None)


def test_high_limit_divides_state_and_budget(account: Setup) -> None:
    settings = {"requests_per_minute": 400.0, "max_cost_usd_per_day": 8 * PRICE}
    for _ in range(8):
        assert account.admission(**settings).admit(MODEL, None)
    with pytest.raises(IdeogramBudgetReached, match=r"of 0\.40 USD, 0\.00 USD are spent and 0\.40 USD"):
        account.admission(**settings).admit(MODEL, None)
    assert [key for key in account.object_keys() if "2026" in key] == [
        f"x/_account/a%2Fb/2026-11-25-{number}of4.json" for number in range(1, 5)
    ]


def test_admission_that_is_too_old_does_not_submit(account: Setup) -> None:
    admission = account.admission()
    admission.admit(MODEL, account.url("record"))
    account.now += HOLD_SECONDS / 2 + 1
    with pytest.raises(IdeogramRateLimited, match="held up"):
        admission.check()


def test_cancelled_reservation_is_free(account: Setup) -> None:
    admission = account.admission(max_cost_usd_per_day=PRICE)
    for _ in range(3):
        admission.cancel(admission.admit(MODEL, account.url("record")))


def test_failure_to_cancel_is_only_logged(account: Setup, caplog: pytest.LogCaptureFixture) -> None:
    admission = account.admission()
    reservation = admission.admit(MODEL, account.url("record"))
    with answered(account.client, "PutObject", 403):
        admission.cancel(reservation)
    assert "released in a minute" in caplog.text


def test_429_reaches_all_parts(account: Setup) -> None:
    admission = account.admission(requests_per_minute=400.0)
    admission.limited(30.0)
    assert len(account.object_keys()) == 4
    states = [AccountStore(account.objects, account.bucket).read(key, dict) for key in account.object_keys()]
    assert all(state and state["rate"]["blocked_until"] == NOW + 30 for state in states)
