"""The objects of the days: no cap is exceeded, however they are divided and whenever a day ends."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from airflow_provider_ideogram.account.budget import HOLD_SECONDS, Spender, Total
from airflow_provider_ideogram.account.reservations import Settlement, settle
from airflow_provider_ideogram.exceptions import IdeogramBudgetReached
from tests.unit.account.conftest import MODEL, PRICE, Setup

DAY = 86_400
MIDNIGHT = datetime(2026, 11, 26, tzinfo=UTC).timestamp()
SPENDER = Spender("dag", "task", MODEL)


def test_reservation_names_its_day(account: Setup) -> None:
    reservation = account.admission().admit(MODEL, account.url("record"))
    assert reservation is not None
    assert reservation.startswith(account.url("x/_account/a%2Fb/2026-11-25-1.json#"))


def test_reservation_of_a_dead_holder_is_released(account: Setup) -> None:
    assert account.admission(max_cost_usd_per_day=PRICE).admit(MODEL, account.url("record"))
    account.now += HOLD_SECONDS - 1
    with pytest.raises(IdeogramBudgetReached):
        account.admission(max_cost_usd_per_day=PRICE).admit(MODEL, account.url("other"))
    account.now += 1
    assert account.admission(max_cost_usd_per_day=PRICE).admit(MODEL, account.url("other"))


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        ({}, True),
        ({"not_submitted": True}, False),
        ({"reservation": "s3://bucket/2026-11-25-1.json#of-a-later-attempt"}, False),
        ({"reservation": None}, False),
        ([], True),
    ],
)
def test_record_proves_its_own_reservation_only(account: Setup, record: Any, kept: bool) -> None:
    reservation = account.admission(max_cost_usd_per_day=PRICE).admit(MODEL, account.url("record"))
    written = {"reservation": reservation} | record if isinstance(record, dict) else record
    account.client.put_object(Bucket=account.bucket, Key="record", Body=json.dumps(written).encode())
    account.now += HOLD_SECONDS
    other = account.admission(max_cost_usd_per_day=PRICE)
    if kept:
        with pytest.raises(IdeogramBudgetReached):
            other.admit(MODEL, account.url("other"))
    else:
        assert other.admit(MODEL, account.url("other"))


def test_record_that_cannot_be_read_keeps_the_reservation(account: Setup) -> None:
    account.admission(max_cost_usd_per_day=PRICE).admit(MODEL, "s3://no-such-bucket/record")
    account.now += HOLD_SECONDS
    with pytest.raises(IdeogramBudgetReached):
        account.admission(max_cost_usd_per_day=PRICE).admit(MODEL, account.url("other"))


def test_month_counts_the_objects_of_its_days(account: Setup) -> None:
    first = account.admission(max_cost_usd_per_month=2 * PRICE).admit(MODEL, None)
    assert settle(account.objects, [Settlement(first, PRICE)])
    account.now += DAY
    account.admission(max_cost_usd_per_month=2 * PRICE).admit(MODEL, None)
    with pytest.raises(IdeogramBudgetReached, match=r"max_cost_usd_per_month .* 0\.05 USD are spent and 0\.05"):
        account.admission(max_cost_usd_per_month=2 * PRICE).admit(MODEL, None)
    account.now += 6 * DAY
    assert account.admission(max_cost_usd_per_month=2 * PRICE).admit(MODEL, None)


class TestEndOfADay:
    CAP: ClassVar = {"max_cost_usd_per_month": 3 * PRICE}

    @pytest.mark.parametrize("earlier", [0, 1])
    def test_clock_that_is_behind_does_not_exceed_the_month(self, account: Setup, earlier: int) -> None:
        account.now = MIDNIGHT - 1
        for _ in range(earlier):
            account.admission(**self.CAP).admit(MODEL, None)
        account.now = MIDNIGHT + 1
        account.admission(**self.CAP).admit(MODEL, None)
        account.now = MIDNIGHT - 1
        late = [account.admission(**self.CAP).admit(MODEL, None) for _ in range(2 - earlier)]
        assert all("2026-11-26-1.json" in each for each in late)
        for now in (MIDNIGHT - 1, MIDNIGHT + 1):
            account.now = now
            with pytest.raises(IdeogramBudgetReached, match=r"of 0\.15 USD, "):
                account.admission(**self.CAP).admit(MODEL, None)

    def test_month_begins_without_the_last_one(self, account: Setup) -> None:
        account.now = MIDNIGHT + 5 * DAY - 1  # 30 November
        for _ in range(3):
            account.admission(**self.CAP).admit(MODEL, None)
        account.now += 2
        assert account.admission(**self.CAP).admit(MODEL, None)
        assert not account.day("2026-11-30-1.json").is_closed

    def test_hold_of_a_dead_holder_ends_after_its_day(self, account: Setup) -> None:
        account.admission().admit(MODEL, account.url("never-written"))
        submitted = account.admission().admit(MODEL, None)
        account.now += DAY
        settle(account.objects, [Settlement(submitted, PRICE)])
        day = account.day("2026-11-25-1.json")
        assert (day.totals, day.reservations) == ({SPENDER: Total(images=1, micros=50_000)}, {})

    def test_closed_day_is_settled(self, account: Setup) -> None:
        account.now = MIDNIGHT - 1
        reservation = account.admission().admit(MODEL, None)
        account.now = MIDNIGHT + 1
        account.admission().admit(MODEL, None)
        assert account.day("2026-11-25-1.json").is_closed
        settle(account.objects, [Settlement(reservation, 0.04)])
        assert account.day("2026-11-25-1.json").totals == {SPENDER: Total(images=1, micros=40_000)}


class TestParts:
    def test_high_limit_divides_the_day(self, account: Setup) -> None:
        settings = {"requests_per_minute": 400.0, "max_cost_usd_per_day": 40.0, "max_cost_usd_per_month": 50.0}
        account.admission(**settings).admit(MODEL, None)
        assert account.day_names() == [f"2026-11-25-{number}.json" for number in range(1, 5)]
        for name in account.day_names():
            day = account.day(name)
            day.totals[SPENDER] = Total(images=199, micros=9_950_000)
            account.write(name, day)
        for _ in range(3):  # one amount is reserved already
            account.admission(**settings).admit(MODEL, None)
        with pytest.raises(IdeogramBudgetReached, match=r"_per_day .* of 40\.00 USD, 39\.80 USD are .* and 0\.20 USD"):
            account.admission(**settings).admit(MODEL, None)

    def test_cap_of_a_few_images_is_not_divided(self, account: Setup) -> None:
        settings = {"requests_per_minute": 500.0, "max_cost_usd_per_dag_and_day": 4 * PRICE}
        for _ in range(4):
            account.admission(**settings).admit(MODEL, None)
        with pytest.raises(IdeogramBudgetReached, match=r"of 0\.20 USD, 0\.00 USD are spent and 0\.20 USD"):
            account.admission(**settings).admit(MODEL, None)
        assert account.day_names() == ["2026-11-25-1.json"]

    @pytest.mark.parametrize(("before", "after"), [(100.0, 400.0), (400.0, 100.0)])
    def test_changed_limit_keeps_the_spend_of_the_day(self, account: Setup, before: float, after: float) -> None:
        account.admission(requests_per_minute=before, max_cost_usd_per_day=40.0).admit(MODEL, None)
        names = account.day_names()
        for name in names:
            day = account.day(name)
            day.totals[SPENDER] = Total(images=800 // len(names), micros=40_000_000 // len(names))
            day.reservations.clear()
            account.write(name, day)
        with pytest.raises(IdeogramBudgetReached, match=r"of 40\.00 USD, 40\.00 USD are spent and 0\.00 USD"):
            account.admission(requests_per_minute=after, max_cost_usd_per_day=40.0).admit(MODEL, None)
        assert account.day_names() == names

    def test_removed_part_is_made_again(self, account: Setup) -> None:
        settings = {"requests_per_minute": 400.0}
        account.admission(**settings).admit(MODEL, None)
        for name in account.day_names()[1:]:
            account.client.delete_object(Bucket=account.bucket, Key=f"{account.prefix}{name}")
        for _ in range(20):
            account.admission(**settings).admit(MODEL, None)
        assert len(account.day_names()) == 4


def test_cancelled_reservation_is_free(account: Setup) -> None:
    admission = account.admission(max_cost_usd_per_day=PRICE)
    for _ in range(3):
        admission.cancel(admission.admit(MODEL, account.url("record")))
