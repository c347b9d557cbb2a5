from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_ideogram.datasets.budget import Budget, SecondChargeRefused, estimated_cost
from airflow_provider_ideogram.datasets.outcomes import unsettled_request
from airflow_provider_ideogram.datasets.slice import SliceProgress
from airflow_provider_ideogram.datasets.state import DatasetState, DelayedItem, UnsettledRequest
from airflow_provider_ideogram.datasets.submitting import take_items
from tests.unit.datasets.examples import NOW, OPTIONS, make_context, make_in_flight, make_item, make_state

UNKNOWN = UnsettledRequest(None, counted_usd=0.0, estimate_usd=0.05, fingerprint="")
CHEAP, DEAR, UNPRICED = "ideogram-2a-txt-2-img", "ideogram-4", "brand-new"


def admitted(models: list[str], state: DatasetState | None = None, **options: Any) -> int:
    """Return how many items of these models the budget covers, in this order."""
    context = make_context(state, **options)
    budget = Budget(context.options, context.state)
    return sum(budget.admits(make_item(f"{row}", model)) for row, model in enumerate(models))


def test_everything_is_covered_without_a_limit() -> None:
    assert admitted([UNPRICED] * 9) == 9


@pytest.mark.parametrize(
    ("models", "limit", "count"),
    [([CHEAP] * 9, 0.15, 3), ([CHEAP] * 9, 0.149, 2), ([DEAR] * 9, 0.25, 2), ([CHEAP, DEAR, CHEAP], 0.1, 2)],
)
def test_each_model_has_its_own_price(models: list[str], limit: float, count: int) -> None:
    assert admitted(models, max_cost_usd=limit) == count


def test_unknown_price_admits_one_request_at_a_time() -> None:
    assert admitted([UNPRICED] * 9, max_cost_usd=100.0) == 1
    state = make_state()
    state.in_flight = [make_in_flight(make_item("running", UNPRICED))]
    assert admitted([UNPRICED], state, max_cost_usd=100.0) == 0


def test_unknown_price_is_not_admitted_without_budget() -> None:
    state = make_state()
    state.cost_usd = 1.0
    assert admitted([UNPRICED], state, max_cost_usd=1.0) == 0


def test_true_cost_replaces_every_estimate() -> None:
    state = make_state()
    state.observed_costs = {CHEAP: 0.08, UNPRICED: 0.3}
    assert estimated_cost(OPTIONS, state, CHEAP) == 0.08
    assert estimated_cost(OPTIONS, state, UNPRICED) == 0.3
    assert estimated_cost(OPTIONS, state, DEAR) == 0.111
    assert estimated_cost(OPTIONS, None, UNPRICED) is None
    assert admitted([UNPRICED] * 9, state, max_cost_usd=0.7) == 2


def test_price_usd_is_the_estimate_until_a_true_cost_is_known() -> None:
    assert admitted([UNPRICED] * 9, max_cost_usd=0.7, price_usd=0.1) == 7
    state = make_state()
    state.observed_costs = {UNPRICED: 0.35}
    assert admitted([UNPRICED] * 9, state, max_cost_usd=0.7, price_usd=0.1) == 2


def test_running_and_unsettled_requests_reserve_their_estimate() -> None:
    state = make_state()
    state.cost_usd = 0.1
    state.in_flight = [make_in_flight(make_item("running"))]
    state.unsettled_requests = {"set/unknown.png": UNKNOWN}
    assert admitted([CHEAP] * 9, state, max_cost_usd=0.3) == 2


def test_request_that_is_unsettled_and_running_is_reserved_once() -> None:
    state = make_state()
    item = make_item("unknown")
    state.in_flight = [make_in_flight(item)]
    state.unsettled_requests = {item.key: UNKNOWN}
    assert admitted([CHEAP] * 9, state, max_cost_usd=0.15) == 2


def test_request_of_another_task_reserves_nothing() -> None:
    state = make_state()
    state.in_flight = [make_in_flight(make_item("theirs"), paid_by_other_task=True)]
    assert admitted([CHEAP] * 9, state, max_cost_usd=0.15) == 3


def test_item_of_an_unsettled_request_needs_no_further_budget() -> None:
    context = make_context(max_cost_usd=0.0)
    item = make_item("unknown")
    context.state.unsettled_requests = {item.key: UNKNOWN}
    budget = Budget(context.options, context.state)
    assert budget.admits(item)
    assert not budget.admits(make_item("other"))


def test_second_request_of_an_item_needs_room_of_its_own() -> None:
    context = make_context(max_cost_usd=0.1)
    item = make_item("unknown")
    context.state.unsettled_requests = {item.key: UNKNOWN}
    budget = Budget(context.options, context.state)
    assert budget.admits(item)
    budget.reserve_second(item)
    assert budget.second_usd == {item.key: 0.05}
    with pytest.raises(SecondChargeRefused):
        budget.reserve_second(item)


def test_request_after_a_charged_one_without_a_record_needs_room() -> None:
    context = make_context(max_cost_usd=0.05)
    charged, unknown = make_item("charged"), make_item("unknown")
    lost = UnsettledRequest("r-1", counted_usd=0.05, estimate_usd=0.0, fingerprint=charged.fingerprint)
    context.state.cost_usd = 0.05
    context.state.unsettled_requests = {charged.key: lost}
    budget = Budget(context.options, context.state)
    assert budget.admits(charged)  # it may reattach, which is free
    with pytest.raises(SecondChargeRefused):
        budget.reserve_after_charge(charged)
    assert unsettled_request(context, charged, None) is lost  # the refusal changes nothing that is known
    context.state.unsettled_requests = {unknown.key: UNKNOWN}
    budget.reserve_after_charge(unknown)  # it has its reservation
    assert budget.second_usd == {}


@pytest.mark.parametrize(
    ("durable", "limit", "taken", "abandoned"), [(True, 0.05, 1, 0.0), (False, 0.05, 0, 0.05), (False, 0.1, 1, 0.05)]
)
def test_item_without_ledger_is_paid_again(durable: bool, limit: float, taken: int, abandoned: float) -> None:
    context = make_context(max_cost_usd=limit)
    item = make_item("lost")
    context.ledger.is_durable = durable
    context.state.todo_chunks = 0
    context.state.unsettled_requests = {item.key: UNKNOWN}
    context.state.delayed = [DelayedItem(item, NOW, NOW)]

    budget = Budget(context.options, context.state)
    items = take_items(context, SliceProgress(), budget, 5, NOW)

    assert (len(items), context.state.abandoned_usd) == (taken, abandoned)


def test_nothing_is_admitted_after_a_cost_that_stays_unknown() -> None:
    state = make_state()
    state.images_without_cost = 1
    assert admitted([CHEAP] * 9, state, max_cost_usd=100.0) == 0
    assert admitted([CHEAP] * 9, state) == 9


def test_images_without_a_cost_count_with_price_usd() -> None:
    state = make_state()
    state.images_without_cost = 2
    assert admitted([CHEAP] * 9, state, max_cost_usd=0.3, price_usd=0.05) == 4


@pytest.mark.parametrize(("price", "count", "unpriced"), [(None, 0, UNPRICED), (0.1, 2, None)])
def test_unsettled_request_counts_with_price_usd(price: float | None, count: int, unpriced: str | None) -> None:
    context = make_context(max_cost_usd=0.3, price_usd=price)
    context.state.unsettled_requests = {"set/unknown.png": replace(UNKNOWN, estimate_usd=None)}
    budget = Budget(context.options, context.state)
    assert sum(budget.admits(make_item(f"{row}", UNPRICED)) for row in range(9)) == count
    assert budget.unpriced_model == unpriced


def test_abandoned_requests_reserve_their_estimate() -> None:
    state = make_state()
    state.abandoned_usd = 0.1
    assert admitted([CHEAP] * 9, state, max_cost_usd=0.3) == 4
