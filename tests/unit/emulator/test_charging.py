from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL
from airflow_provider_ideogram.api.prices import LIST_PRICES
from airflow_provider_ideogram.emulator.running import RunningEmulator
from tests.support.emulator_client import EmulatorClient


def test_too_low_a_balance(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(credits=0.1, clock_speed=0)
    assert [api.submit().status_code for _ in range(3)] == [200, 200, 200]
    ideogram_emulator.advance(60)
    text = "Insufficient credits: the balance is -0.05 USD, the request needs 0.05 USD"
    for response, status in ((api.submit(), 402), (api.generate(), 406)):
        assert (response.status_code, response.json()) == (status, {"error": text})
    assert api.http.get("/v1/get-user-credits").json() == {"credits": -0.05, "free-credits": 0.0}
    stats = ideogram_emulator.stats()
    assert (stats.charges, stats.charged_usd, stats.credits) == (3, 0.15, -0.05)


def test_account_without_a_balance_record(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(balance_record=False)
    response = api.http.get("/v1/get-user-credits")
    assert (response.status_code, response.json()) == (404, {"error": "No credits found for the user"})


def test_metrics_follow_the_order_of_completion(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    slow, failed, quick = (api.submitted(f"[[{mark}]]") for mark in ("slow:30", "fault:failed", "slow:10"))
    ideogram_emulator.advance(60)
    slow_metrics, failed_metrics, quick_metrics = (
        api.status(request_id).json()["metrics"] for request_id in (slow, failed, quick)
    )
    assert (quick_metrics["remaining_credits"], slow_metrics["remaining_credits"]) == (999.95, 999.9)
    assert {"cost", "remaining_credits"}.isdisjoint(failed_metrics)


def test_new_balance_is_set_after_earlier_charges(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    api.done()
    ideogram_emulator.configure(credits=5)
    assert ideogram_emulator.stats().credits == 5


@pytest.mark.parametrize(("model", "price"), LIST_PRICES.items())
def test_models_and_their_prices(
    api: EmulatorClient, ideogram_emulator: RunningEmulator, model: str, price: float
) -> None:
    request_id = api.http.post(f"/v2/{model}", json={"prompt": "a lighthouse"}).json()["request_id"]
    ideogram_emulator.advance(60)
    assert api.result(request_id).json()["metrics"]["cost"] == price
    [charge] = ideogram_emulator.charges()
    assert charge.cost_usd == ideogram_emulator.stats().charged_usd == price


def test_documented_prices() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "image-operator.md").read_text()
    rows = re.findall(r"^\| `(ideogram-[a-z0-9-]+)` \| ([0-9.]+) \|", page, re.MULTILINE)
    assert {model: float(price) for model, price in rows} == LIST_PRICES


def test_other_prices(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(price=0.06, prices={"ideogram-3": 0.2, "a-new-model": 0.3})
    for model in (DEFAULT_MODEL, "ideogram-3", "a-new-model", "ideogram-4"):
        assert api.http.post(f"/v2/{model}", json={"prompt": "a lighthouse"}).status_code == 200
    ideogram_emulator.configure(price=9.0)
    ideogram_emulator.advance(60)
    assert [charge.cost_usd for charge in ideogram_emulator.charges()] == [0.06, 0.2, 0.3, 0.111]
