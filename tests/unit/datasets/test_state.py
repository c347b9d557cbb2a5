from __future__ import annotations

import pytest

from airflow_provider_ideogram.datasets.state import UnsettledRequest
from tests.unit.datasets.examples import make_in_flight, make_item, make_state

ITEM = make_item("cat")


def test_run_without_a_request_was_not_charged() -> None:
    assert make_state().charged is False


@pytest.mark.parametrize(("estimate", "charged"), [(0.05, None), (None, None), (0.0, False)])
def test_unsettled_request_may_be_charged(estimate: float | None, charged: bool | None) -> None:
    state = make_state()
    state.unsettled_requests = {ITEM.key: UnsettledRequest("r-1", 0.0, estimate, ITEM.fingerprint)}
    assert state.charged is charged
    state.cost_usd = 0.05
    assert state.charged is True


def test_request_in_flight_may_be_charged_if_it_is_own() -> None:
    state = make_state()
    state.in_flight = [make_in_flight(ITEM, paid_by_other_task=True)]
    assert (state.charged, state.charged_text) == (False, "0.00 USD were charged")
    state.in_flight = [make_in_flight(ITEM)]
    assert state.charged is None


def test_request_that_no_item_waits_for_may_be_charged() -> None:
    state = make_state()
    state.abandoned_usd = 0.05
    assert state.charged is None


def test_image_without_a_cost_was_charged() -> None:
    state = make_state()
    state.images_without_cost = 2
    assert state.charged is True
    assert state.charged_text == "0.00 USD were charged, and an unknown amount for 2 images"


def test_attempt_group_is_kept_once() -> None:
    state = make_state()
    for group in ("first", "second", "first"):
        state.add_attempt_group(group)
    assert state.attempt_groups == ["first", "second"]
