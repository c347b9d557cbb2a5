from __future__ import annotations

import time

import pytest

from airflow_provider_ideogram.api.back_off import PATIENCE_SECONDS
from airflow_provider_ideogram.datasets.slice import SliceProgress
from airflow_provider_ideogram.datasets.state import UnsettledRequest
from airflow_provider_ideogram.datasets.waiting import next_wait, raise_if_stopped
from airflow_provider_ideogram.exceptions import IdeogramDatasetFailed, IdeogramDatasetStopped
from tests.unit.datasets.examples import make_context, make_item

UNKNOWN = UnsettledRequest(None, counted_usd=0.0, estimate_usd=0.05, fingerprint="")


@pytest.mark.parametrize("durable", [True, False])
def test_end_of_an_outage_promises_a_search_only_with_a_ledger(durable: bool) -> None:
    context = make_context()
    context.ledger.is_durable = durable
    context.state.unsettled_requests = {make_item("cat").key: UNKNOWN}
    context.state.outage.on_failure(time.time() - 2 * PATIENCE_SECONDS, "HTTP 502")

    with pytest.raises(IdeogramDatasetFailed) as caught:
        raise_if_stopped(context)

    assert ("history" in caught.value.advice) is durable
    assert caught.value.charged is None


@pytest.mark.parametrize(
    ("price_usd", "reason"), [(None, "can't be kept: the vendor's responses have no cost"), (0.05, "is reached")]
)
def test_end_without_costs_names_price_usd_until_it_is_given(price_usd: float | None, reason: str) -> None:
    context = make_context(max_cost_usd=0.1, price_usd=price_usd)
    context.state.images_without_cost = 2

    with pytest.raises(IdeogramDatasetStopped) as caught:
        next_wait(context, SliceProgress(budget_reached=True))

    assert reason in caught.value.reason
    assert ("price_usd" in caught.value.advice) is (price_usd is None)
    assert caught.value.charged is True
