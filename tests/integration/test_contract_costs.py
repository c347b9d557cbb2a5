"""``cost_usd`` is what the vendor charged, for every model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator
    from tests.support.task_runner import TaskRunner

    Generate = Callable[..., IdeogramGenerateImageOperator]

# Not the list prices: the cost must come from the vendor's response.
PRICES = {"ideogram-2a-txt-2-img": 0.0513, "ideogram-3": 0.0671, "ideogram-4": 0.1234}


def test_costs_are_the_charges_and_a_failed_request_adds_none(
    generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
) -> None:
    ideogram_emulator.configure(price=PRICES["ideogram-2a-txt-2-img"], prices=PRICES)
    ideogram_emulator.fault("job", "failed", prompt="broken")
    costs = {}
    for number, model in enumerate(PRICES):
        run = task_runner(generate(task_id=f"t{number}", s3_key=f"images/{number}.png", model=model))
        result = run.to_end()
        assert result.state == "success", result.log_text
        assert run.xcom()["cost_is_estimate"] is False
        costs[run.xcom()["request_id"]] = run.xcom()["cost_usd"]

    failed = task_runner(generate(task_id="failed", s3_key="images/failed.png", prompt="broken"))
    assert failed.to_end().state == "failed"
    assert failed.xcom("failure")["charged"] is False

    charges = {charge.request_id: charge.cost_usd for charge in ideogram_emulator.charges()}
    assert costs == pytest.approx(charges, abs=1e-4)
    assert list(costs.values()) == pytest.approx(list(PRICES.values()), abs=1e-4)
