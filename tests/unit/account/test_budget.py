"""The budget of a day: never exceeded, settled by true costs, and released only by proof."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from airflow_provider_ideogram.account.budget import (
    FRESH_SECONDS,
    HOLD_SECONDS,
    MAX_LOST,
    MAX_OPEN,
    Caps,
    DayBudget,
    Spender,
    Total,
    Window,
    day_of,
)

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
PRICE = 0.05
MODEL = "ideogram-2a-txt-2-img"
SPENDER = Spender("dag", "task", MODEL)
OTHER = Spender("other", "task", MODEL)
RECORD = "s3://bucket/_ideogram/image.png.json"


def day(**values: Any) -> DayBudget:
    """Make a day without spend."""
    return DayBudget(day_of(NOW), **values)


def reserve(budget: DayBudget, key: str, caps: Caps, spender: Spender = SPENDER) -> Window | None:
    """Reserve the price of an image."""
    return budget.reserve(key, spender, PRICE, caps, now=NOW, record=RECORD)


def test_lost_requests_are_named_the_last_ones_only() -> None:
    budget = day()
    for number in range(MAX_LOST + 2):
        assert reserve(budget, f"{number}", Caps()) is None
        budget.settle(f"{number}", None, lost_request_id=f"request-{number}")
    restored = DayBudget.from_json(json.loads(json.dumps(budget.to_json())))
    assert restored == budget
    assert next(iter(restored.lost)) == "request-2"
    assert (len(restored.lost), set(restored.lost.values())) == (MAX_LOST, {SPENDER})
    assert restored.totals[SPENDER].unknown == MAX_LOST + 2


class TestCaps:
    @pytest.mark.parametrize(
        ("caps", "cap", "ends_at"),
        [
            (Caps(per_day=0.10), "max_cost_usd_per_day", datetime(2026, 12, 1, tzinfo=UTC)),
            (Caps(per_month=0.10), "max_cost_usd_per_month", datetime(2026, 12, 1, tzinfo=UTC)),
            (Caps(per_dag_and_day=0.10), "max_cost_usd_per_dag_and_day", datetime(2026, 12, 1, tzinfo=UTC)),
        ],
    )
    def test_refusal_names_the_cap_and_its_window(self, caps: Caps, cap: str, ends_at: datetime) -> None:
        budget = day()
        assert reserve(budget, "a", caps) is None
        budget.settle("a", 0.04)
        assert reserve(budget, "b", caps) is None
        assert reserve(budget, "c", caps) == Window(cap, 0.10, 0.04, PRICE, ends_at.timestamp())

    def test_window_of_a_month_ends_with_it(self) -> None:
        refusal = reserve(DayBudget("2026-11-02"), "a", Caps(per_month=0))
        assert refusal is not None
        assert refusal.ends_at == datetime(2026, 12, 1, tzinfo=UTC).timestamp()

    def test_cap_of_a_dag_is_its_own(self) -> None:
        budget, caps = day(), Caps(per_dag_and_day=PRICE)
        assert reserve(budget, "a", caps) is None
        assert reserve(budget, "b", caps, OTHER) is None
        assert reserve(budget, "c", caps) is not None

    def test_earlier_days_count_for_the_month(self) -> None:
        assert reserve(day(before_micros=60_000), "a", Caps(per_month=0.10)) is not None
        assert reserve(day(before_micros=50_000), "a", Caps(per_month=0.10)) is None

    def test_cap_can_be_used_to_the_cent(self) -> None:
        budget, caps = day(), Caps(per_day=10.0)
        accepted = [reserve(budget, str(number), caps) for number in range(201)]
        assert accepted.count(None) == 200

    def test_without_caps_nothing_is_refused(self) -> None:
        assert reserve(day(before_micros=10**12), "a", Caps()) is None


class TestReservations:
    def test_second_call_reserves_nothing_more(self) -> None:
        budget, caps = day(), Caps(per_day=PRICE)
        assert reserve(budget, "a", caps) is None
        assert reserve(budget, "a", caps) is None
        assert budget.used_micros == 50_000

    @pytest.mark.parametrize(
        ("usd", "failed", "total"),
        [
            (0.04, False, Total(images=1, micros=40_000)),
            (None, False, Total(unknown=1, micros=50_000)),
            (None, True, Total(failed=1)),
            (0.04, True, Total(failed=1, micros=40_000)),
        ],
    )
    def test_true_cost_replaces_it_once(self, usd: float | None, failed: bool, total: Total) -> None:
        budget = day()
        reserve(budget, "a", Caps())
        for _ in range(2):
            budget.settle("a", usd, failed=failed)
        assert budget.totals == {SPENDER: total}
        assert not budget.reservations

    def test_hold_is_proven_by_its_record(self) -> None:
        budget = day()
        for key in ("kept", "released"):
            reserve(budget, key, Caps())
        assert list(budget.unproven(NOW + FRESH_SECONDS)) == []
        assert list(budget.unproven(NOW + HOLD_SECONDS)) == [("kept", RECORD), ("released", RECORD)]
        budget.keep("kept")
        budget.release("released")
        assert list(budget.unproven(NOW + 86_400)) == []
        assert list(budget.reservations) == ["kept"]

    def test_without_a_record_it_stays_until_it_is_settled(self) -> None:
        budget = day()
        budget.reserve("a", SPENDER, PRICE, Caps(), now=NOW, record=None)
        assert list(budget.unproven(NOW + 86_400)) == []
        assert budget.used_micros == 50_000

    def test_number_is_bounded_and_the_oldest_counts_as_spent(self) -> None:
        budget = day()
        for number in range(MAX_OPEN + 3):
            reserve(budget, str(number), Caps())
        assert len(budget.reservations) == MAX_OPEN
        assert budget.totals[SPENDER] == Total(unknown=3, micros=150_000)
        assert len(json.dumps(budget.to_json())) < 200_000

    def test_state_survives_json(self) -> None:
        budget = day(before_micros=7)
        for key in ("held", "kept", "done"):
            reserve(budget, key, Caps())
        budget.keep("kept")
        budget.settle("done", 0.04)
        assert DayBudget.from_json(json.loads(json.dumps(budget.to_json()))) == budget


class TestEstimate:
    def test_list_price_at_first(self) -> None:
        assert day().estimate(MODEL) == PRICE

    def test_higher_cost_of_the_day(self) -> None:
        budget = day()
        reserve(budget, "a", Caps())
        budget.settle("a", 0.07)
        assert budget.estimate(MODEL) == 0.07

    def test_unknown_costs_do_not_raise_it(self) -> None:
        budget = day()
        for number in range(21):
            reserve(budget, f"{number}", Caps())
            budget.settle(f"{number}", PRICE if number == 0 else None)
        assert budget.estimate(MODEL) == PRICE

    def test_model_without_a_list_price_counts_as_the_dearest(self) -> None:
        assert day().estimate("another-model") == 0.111


class Spending(RuleBasedStateMachine):
    """Holders that die at any point of a submit, with a vendor and a ledger that outlive them."""

    CAPS = Caps(per_day=0.50, per_month=0.60, per_dag_and_day=0.35)

    def __init__(self) -> None:
        super().__init__()
        self.budget = day(before_micros=100_000)
        self.now = NOW
        self.number = 0
        self.alive: dict[str, tuple[Spender, float]] = {}  # reserved, record not written
        self.recorded: dict[str, tuple[Spender, float]] = {}  # record written; the submit may have been sent
        self.sent: dict[str, Spender] = {}
        self.charged: dict[str, tuple[Spender, float]] = {}

    @rule(spender=st.sampled_from([SPENDER, OTHER]))
    def reserve(self, spender: Spender) -> None:
        """Reserve, after the holds of dead holders were checked."""
        for key, _ in list(self.budget.unproven(self.now)):
            has_record = key in self.recorded or key in self.sent
            self.budget.keep(key) if has_record else self.budget.release(key)
        self.number += 1
        key = str(self.number)
        record = f"s3://bucket/{key}"
        if self.budget.reserve(key, spender, PRICE, self.CAPS, now=self.now, record=record) is None:
            self.alive[key] = spender, self.now

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def write_record(self, data: st.DataObject) -> None:
        """Write the intent, and give up if the hold is no longer fresh."""
        key = data.draw(st.sampled_from(sorted(self.alive)))
        spender, held_at = self.alive.pop(key)
        if self.now <= held_at + FRESH_SECONDS:
            self.recorded[key] = spender, held_at

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        """Die between the reservation and the record."""
        del self.alive[data.draw(st.sampled_from(sorted(self.alive)))]

    @precondition(lambda self: self.recorded)
    @rule(data=st.data())
    def submit(self, data: st.DataObject) -> None:
        """Send the request of a record, however late."""
        key = data.draw(st.sampled_from(sorted(self.recorded)))
        self.sent[key], _ = self.recorded.pop(key)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), outcome=st.sampled_from(["completed", "failed", "never settled"]))
    def end(self, data: st.DataObject, outcome: str) -> None:
        """End a job: it is charged, and settled unless its task is gone."""
        key = data.draw(st.sampled_from(sorted(self.sent)))
        if outcome != "failed":
            self.charged[key] = self.sent[key], PRICE
        if outcome == "never settled":
            return
        del self.sent[key]
        self.budget.settle(key, PRICE if outcome == "completed" else None, failed=outcome == "failed")

    @rule(seconds=st.sampled_from([1.0, 20.0, 70.0]))
    def pass_time(self, seconds: float) -> None:
        """Let time pass, and the state go through S3."""
        self.now += seconds
        self.budget = DayBudget.from_json(json.loads(json.dumps(self.budget.to_json())))

    @invariant()
    def caps_hold(self) -> None:
        """Charged and possible charges stay within the caps."""
        open_spenders = [*self.sent.values(), *(spender for spender, _ in self.recorded.values())]
        spent = {key: who for key, (who, _) in self.charged.items()}
        possible = len({*spent, *self.sent, *self.recorded}) * PRICE
        assert possible <= 0.50 + 1e-9
        of_dag = {key for key, who in spent.items() if who == SPENDER}
        of_dag |= {key for key, who in self.sent.items() if who == SPENDER}
        of_dag |= {key for key, (who, _) in self.recorded.items() if who == SPENDER}
        assert len(of_dag) * PRICE <= 0.35 + 1e-9
        assert len(open_spenders) <= len(self.budget.reservations)

    @invariant()
    def nothing_is_lost(self) -> None:
        """Each request that may be charged is reserved or counted."""
        for key in (*self.recorded, *self.sent):
            assert key in self.budget.reservations


TestSpending = pytest.mark.slow(Spending.TestCase)
TestSpending.settings = settings(max_examples=150, stateful_step_count=40)
