"""What a dataset costs: budgets, true costs, and requests that are recovered instead of paid again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.datasets.world import ROWS

if TYPE_CHECKING:
    from tests.integration.datasets.world import Make, World
    from tests.support.task_runner import TaskRunner


def test_cost_is_bounded_before_and_while(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(max_cost_usd=0.2))
    assert "5 images would cost about 0.25 USD" in str(run.execute().error)
    assert world.accepted() == 0

    world.emulator.fault("job", "failed", times=1)
    run = task_runner(make(max_cost_usd=0.25, max_in_flight=1), run_id="retried")
    assert world.run_to_end(run, run.execute()).state == "up_for_retry"
    xcom = world.assert_stats_agree(run, world.run_to_end(run, run.retry()))
    assert (xcom["cost_usd"], world.accepted()) == (0.25, 6)  # a failed request is free


@pytest.mark.parametrize("price_usd", [None, 0.07])
def test_unknown_price_is_bounded_too(
    price_usd: float | None, make: Make, task_runner: TaskRunner, world: World
) -> None:
    world.emulator.configure(prices={"brand-new": 0.07})
    run = task_runner(make(model="brand-new", max_cost_usd=0.25 if price_usd is None else 0.36, price_usd=price_usd))

    result = world.run_to_end(run, run.execute())

    assert result.state == ("failed" if price_usd is None else "success")
    assert world.emulator.stats().charged_usd == pytest.approx(0.21 if price_usd is None else 0.35)


def test_resumed_after_the_hour(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(prompts=ROWS[:1]))
    run.execute()
    event = run.fire()
    world.advance(3700)

    world.assert_stats_agree(run, world.run_to_end(run, run.resume(event)), total=1)
    assert world.accepted() == 1


def test_resumed_after_the_files_lifetime(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(prompts=ROWS[:1]))
    run.execute()
    event = run.fire()
    world.advance(8 * 86400)

    assert world.run_to_end(run, run.resume(event)).state == "up_for_retry"
    assert [line["status"] for line in world.manifest()] == ["expired"]

    assert world.run_to_end(run, run.retry()).state == "success"
    assert world.accepted() == 2
