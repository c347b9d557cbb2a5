from __future__ import annotations

from string import ascii_lowercase
from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.datasets.outcomes import ItemResult, write_outcomes
from airflow_provider_ideogram.exceptions import (
    IdeogramContentBlocked,
    IdeogramInvalidImage,
    IdeogramJobFailed,
    IdeogramResultExpired,
    IdeogramTimeout,
    IdeogramUnknownSubmit,
)
from tests.unit.datasets.examples import make_context, make_item, make_record

if TYPE_CHECKING:
    from collections.abc import Callable

ITEM = make_item("cat")
MODEL = ITEM.request.model
TIMEOUT = IdeogramTimeout("not done in time", request_id="r-1")


def _same_failures(
    reason: Callable[[str, str], str], kind: type[IdeogramJobFailed | IdeogramUnknownSubmit] = IdeogramJobFailed
) -> int:
    """Return how many items count as failed for the same reason, given that of a key and a request."""
    context = make_context()
    for word in ascii_lowercase:
        item, request_id = make_item(f"{word} cat"), f"r-{word}"
        text = reason(item.key, request_id)
        error = kind(text, request_id=request_id if request_id in text else None)
        write_outcomes(context, [ItemResult.of_error(item, error, cost_usd=0.0)])
    return context.state.consecutive_same_failures


@pytest.mark.parametrize(
    "reason",
    [
        lambda key, _: (
            f"A submit of dag/run/make/-1 for s3://my-bucket/{key} at 2026-11-24T10:00:{ord(key[4]) - 90:02} may have "
            "been accepted and charged: it was not answered, and the account's request history shows no requests"
        ),
        lambda key, request: (
            f"Request {request} was paid, but what came, {ord(key[4]) * 100:,} bytes, is not a complete image: "
            f"cannot identify image file <_io.BytesIO object at 0x7f{ord(key[4]):x}f0>"
        ),
        lambda _, request: f"Request {request} failed at the vendor: the worker ran out of memory",
    ],
    ids=["unknown submit", "bad image", "failed job"],
)
def test_same_failures_differ_in_keys_and_numbers_only(reason: Callable[[str, str], str]) -> None:
    assert _same_failures(reason) == len(ascii_lowercase)


def test_different_failures_are_not_the_same() -> None:
    def reason(key: str, request_id: str) -> str:
        return f"Request {request_id} failed at the vendor: {key[4] * 3!r} is not for us"

    assert _same_failures(reason) == 1


def test_blocked_items_do_not_count() -> None:
    assert _same_failures(lambda _, request_id: f"Request {request_id} was blocked", IdeogramContentBlocked) == 0


def test_true_costs_are_counted_and_learned_by_model() -> None:
    context = make_context()
    other = make_item("dog", "ideogram-4")
    write_outcomes(
        context,
        [
            ItemResult.of_record(context, ITEM, make_record(ITEM, 0.05)),
            ItemResult.of_record(context, ITEM, make_record(ITEM, 0.04)),
            ItemResult.of_record(context, other, make_record(other, 0.2)),
        ],
    )

    assert context.state.cost_usd == pytest.approx(0.29)
    assert context.state.original_cost_usd == pytest.approx(0.29)
    assert context.state.observed_costs == {MODEL: 0.05, "ideogram-4": 0.2}
    assert not context.state.cost_is_estimate


def test_reused_image_costs_nothing_and_keeps_its_original_cost() -> None:
    context = make_context()
    record = make_record(ITEM, 0.0, original_cost_usd=0.05, cost_is_estimate=True, reused=True)
    write_outcomes(context, [ItemResult.of_record(context, ITEM, record)])

    assert (context.state.cost_usd, context.state.original_cost_usd) == (0.0, 0.05)
    assert context.state.cost_is_estimate
    assert context.state.observed_costs == {}


def test_unknown_cost_of_an_image_is_noted() -> None:
    context = make_context()
    write_outcomes(context, [ItemResult.of_record(context, ITEM, make_record(ITEM, None))])
    assert (context.state.images_without_cost, context.state.cost_usd) == (1, 0.0)


def test_price_usd_stands_for_an_unknown_cost() -> None:
    context = make_context(price_usd=0.06)
    result = ItemResult.of_record(context, ITEM, make_record(ITEM, None))
    write_outcomes(context, [result])

    assert (result.line["cost_usd"], result.line["original_cost_usd"], result.line["cost_is_estimate"]) == (
        0.06,
        0.06,
        True,
    )
    assert (context.state.images_without_cost, context.state.cost_usd) == (0, 0.06)
    assert context.state.cost_is_estimate
    assert context.state.observed_costs == {}  # an estimate teaches nothing


def test_failed_request_costs_nothing() -> None:
    context = make_context()
    error = IdeogramJobFailed("failed", request_id="r-1")
    write_outcomes(context, [ItemResult.of_error(ITEM, error, cost_usd=0.0)])

    assert (context.state.cost_usd, context.state.unsettled_requests) == (0.0, {})


def test_request_that_may_be_charged_reserves_the_estimate() -> None:
    context = make_context()
    result = ItemResult.of_unsettled(context, ITEM, IdeogramUnknownSubmit("no response"))
    write_outcomes(context, [result])

    assert result.line["cost_usd"] is None
    [request] = context.state.unsettled_requests.values()
    assert (request.request_id, request.counted_usd, request.estimate_usd) == (None, 0.0, 0.05)
    assert context.state.charged_text == "0.00 USD were charged; 1 more requests were or may be charged"


def test_charged_image_that_can_not_be_stored_has_its_cost() -> None:
    context = make_context()
    error = IdeogramInvalidImage("no image", request_id="r-1")
    result = ItemResult.of_unsettled(context, ITEM, error, cost_usd=0.05)
    write_outcomes(context, [result])

    assert result.line["cost_usd"] == 0.05
    assert context.state.cost_usd == 0.05
    assert context.state.unsettled_requests[ITEM.key].estimate_usd == 0.0


@pytest.mark.parametrize("counted", [None, 0.05])
def test_request_that_a_later_attempt_completes_is_counted_once(counted: float | None) -> None:
    context = make_context()
    write_outcomes(context, [ItemResult.of_unsettled(context, ITEM, TIMEOUT, cost_usd=counted)])
    write_outcomes(context, [ItemResult.of_record(context, ITEM, make_record(ITEM, 0.05))])

    assert context.state.cost_usd == pytest.approx(0.05)
    assert context.state.unsettled_requests == {}


def test_lost_request_that_is_met_again_is_counted_once() -> None:
    context = make_context()
    lost = IdeogramResultExpired("lost", request_id="r-1")
    for _ in range(2):  # its record could not be deleted
        write_outcomes(context, [ItemResult.of_error(ITEM, lost, cost_usd=0.05)])
        assert context.state.cost_usd == pytest.approx(0.05)
    write_outcomes(context, [ItemResult.of_record(context, ITEM, make_record(ITEM, 0.05, request_id="r-2"))])

    assert context.state.cost_usd == pytest.approx(0.1)


def test_request_that_replaces_a_charged_one_is_counted_too() -> None:
    context = make_context()
    write_outcomes(context, [ItemResult.of_unsettled(context, ITEM, TIMEOUT, cost_usd=0.05)])
    write_outcomes(context, [ItemResult.of_record(context, ITEM, make_record(ITEM, 0.05, request_id="r-2"))])

    assert context.state.cost_usd == pytest.approx(0.1)


def test_request_that_later_failed_is_no_longer_reserved() -> None:
    context = make_context()
    write_outcomes(context, [ItemResult.of_unsettled(context, ITEM, TIMEOUT)])
    failed = IdeogramJobFailed("failed", request_id="r-1")
    write_outcomes(context, [ItemResult.of_error(ITEM, failed, cost_usd=0.0)])

    assert (context.state.cost_usd, context.state.unsettled_requests) == (0.0, {})
