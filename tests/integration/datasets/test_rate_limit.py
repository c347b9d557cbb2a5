"""The rate limit of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.datasets.results import Make, assert_results_agree

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRunner
    from tests.support.world import World


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
