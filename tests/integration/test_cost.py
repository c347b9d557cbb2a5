"""What a task says that its image cost is what the vendor charged."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.exceptions import IdeogramInsufficientCredits
from tests.support.world import KEY, assert_succeeded

if TYPE_CHECKING:
    from tests.support.world import ImageTask, World

#: Models with different prices in USD; none is what the list says.
PRICES = {"ideogram-2a-txt-2-img": 0.0513, "ideogram-3": 0.0672, "ideogram-4": 0.1127}


def test_costs_are_the_charges_on_models_of_different_prices(image_task: ImageTask, world: World) -> None:
    world.emulator.configure(prices=PRICES)
    costs: dict[str, float] = {}
    for model, price in PRICES.items():
        run = image_task(model=model, s3_key=f"images/{model}.png", retries=1)
        world.emulator.fault("job", "failed")
        assert world.run(run).state == "up_for_retry"
        assert world.charged_usd == pytest.approx(sum(costs.values()), abs=1e-4)  # FAILED adds nothing

        assert_succeeded(world.to_end(run, run.retry()))

        costs[model] = run.xcom()["cost_usd"]
        assert costs[model] == pytest.approx(price, abs=1e-4)
        assert run.xcom()["cost_is_estimate"] is False
    stats = world.emulator.stats()
    assert stats.charged_usd == pytest.approx(sum(costs.values()), abs=1e-4)
    assert (stats.charges, stats.failed) == (3, 3)


def test_reused_image_shows_what_it_cost_when_it_was_made(image_task: ImageTask, world: World) -> None:
    world.emulator.configure(price=0.0513)
    assert_succeeded(world.run(image_task()))

    later = image_task("later")
    assert_succeeded(world.run(later))

    assert (later.xcom()["cost_usd"], later.xcom()["original_cost_usd"]) == (0.0, 0.0513)
    assert world.charged_usd == pytest.approx(0.0513)


def test_retries_of_a_failed_request_pay_for_the_last_one(image_task: ImageTask, world: World) -> None:
    world.emulator.fault("job", "failed", times=2)
    run = image_task(retries=2, retry_delay=timedelta(0))
    result = world.run(run)
    for failed in (1, 2):
        assert (result.state, world.emulator.stats().failed) == ("up_for_retry", failed)
        assert world.object_keys() == []
        assert run.xcom("failure")["charged"] is False
        result = world.to_end(run, run.retry())
    assert_succeeded(result)
    assert (world.accepted, world.charged_usd) == (3, 0.05)
    assert world.object_keys() == [KEY]


def test_insufficient_credits_leave_no_record(image_task: ImageTask, world: World) -> None:
    world.emulator.configure(credits=0.0)
    run = image_task(retries=1)

    result = run.execute()

    assert result.state == "failed"
    assert result.error is not None
    assert isinstance(result.error.__context__, IdeogramInsufficientCredits)
    assert world.object_keys() == []
    world.emulator.configure(credits=1.0)
    assert_succeeded(world.to_end(run, run.clear()))
    assert world.accepted == 1
