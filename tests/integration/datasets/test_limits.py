"""The limits of a run: its cost and the rate limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.datasets.results import Make, assert_results_agree

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRunner
    from tests.support.world import World


def test_cost_is_bounded_before_and_while(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(max_cost_usd=0.2))
    assert "5 images would cost about 0.25 USD" in str(run.execute().error)
    assert world.accepted == 0

    world.emulator.fault("job", "failed", times=1)
    run = task_runner(make(max_cost_usd=0.25, max_in_flight=1), run_id="retried")
    assert world.to_end(run, run.execute()).state == "up_for_retry"
    xcom = assert_results_agree(world, run, world.to_end(run, run.retry()))
    assert (xcom["cost_usd"], world.accepted) == (0.25, 6)  # a failed request is free


@pytest.mark.parametrize("price_usd", [None, 0.07])
def test_unknown_price_is_bounded_too(
    price_usd: float | None, make: Make, task_runner: TaskRunner, world: World
) -> None:
    world.emulator.configure(prices={"brand-new": 0.07})
    run = task_runner(make(model="brand-new", max_cost_usd=0.25 if price_usd is None else 0.36, price_usd=price_usd))

    result = world.to_end(run, run.execute())

    assert result.state == ("failed" if price_usd is None else "success")
    assert world.emulator.stats().charged_usd == pytest.approx(0.21 if price_usd is None else 0.35)


@pytest.mark.parametrize("named", [6, 0])
def test_rate_limit(named: float, make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.configure(rate_limit=6)
    rows = [f"p {number}" for number in range(15)]
    run = task_runner(make(prompts=rows, requests_per_minute=named))
    start = world.clock()

    assert_results_agree(world, run, world.to_end(run, run.execute()), total=15)

    rejected = world.emulator.stats().rate_limited
    assert rejected == 0 if named else 0 < rejected < 30
    assert world.clock() - start > 60
