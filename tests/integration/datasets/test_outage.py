"""Outages of submits: few items are in doubt, and a run ends with one charge an image without a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.datasets import outage, waiting
from airflow_provider_ideogram.datasets.outage import MAX_IN_DOUBT
from tests.integration.datasets.results import Make, assert_results_agree

if TYPE_CHECKING:
    from tests.support.task_runner import Slice, TaskRun, TaskRunner
    from tests.support.world import World


def _run_through_outage(world: World, run: TaskRun, seconds: float, *, after: int, when: str = "before") -> Slice:
    """Run an attempt to its end; between two slices, submits begin to be answered 502 for some seconds."""
    result, end = None, None
    while result is None or result.state == "deferred":
        if end is None and world.accepted >= after:
            world.emulator.fault("submit", "error", status=502, when=when, times=None)
            end = world.clock() + seconds
        if end is not None and world.clock() >= end:
            world.emulator.clear_faults()
        if result is None:
            result = run.execute()
            continue
        trigger = run.trigger()
        if not trigger.requests:  # type: ignore[attr-defined]
            world.pass_time(max(0.0, trigger.deadline - world.clock()))  # type: ignore[attr-defined]
        result = run.resume(run.fire())
    return result


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("rows", "after", "seconds", "when"),
    [(50, 0, 8, "before"), (60, 30, 45, "after"), (120, 100, 180, "before")],
)
def test_run_survives_an_outage_of_submits(
    rows: int, after: int, seconds: float, when: str, make: Make, task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(make(prompts=[f"p {number}" for number in range(rows)]))

    result = _run_through_outage(world, run, seconds, after=after, when=when)

    xcom = assert_results_agree(world, run, result, total=rows)
    assert (xcom["generated"], world.accepted) == (rows, rows)
    assert world.submits <= rows + 3 * MAX_IN_DOUBT


def test_endless_outage_ends_the_attempt_and_not_the_run(
    make: Make, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (outage, waiting):
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 600.0)
    rows = [f"p {number}" for number in range(60)]
    run = task_runner(make(prompts=rows, resubmit_on_5xx=False, max_failures=59, max_in_flight=10))

    result = _run_through_outage(world, run, 3600, after=10)

    assert result.state == "up_for_retry"
    assert "The API accepted no submit for 10 minutes" in str(result.error)
    assert "A retry reattaches to running requests" in str(result.error)
    world.emulator.clear_faults()
    assert world.to_end(run, run.retry()).state == "success"
    assert run.xcom()["generated"] == world.accepted > 20
