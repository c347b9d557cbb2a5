from __future__ import annotations

from airflow_provider_ideogram.emulator.running import RunningEmulator
from tests.support.emulator_client import EmulatorClient


def test_generate_waits_for_the_job(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    response = api.generate(resolution="RESOLUTION_512_1536", seed=7)
    [charge] = ideogram_emulator.charges()
    assert response.content == ideogram_emulator.image_bytes(charge.request_id)
    assert {name: value for name, value in response.headers.items() if name.startswith("x-")} == {
        "x-request-id": charge.request_id,
        "x-cost": "0.05",
        "x-remaining-credits": "999.95",
        "x-generation-time": "0.15",
        "x-seed-value": "7",
    }


def test_generate_can_return_json(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    response = api.generate("[[result:url]]")
    assert response.json()["output"].startswith(f"{ideogram_emulator.url}/images/")


def test_generate_fails(api: EmulatorClient) -> None:
    response = api.generate("[[fault:blocked]]")
    assert response.status_code == 422
    assert "RAI" in response.json()["error"]
    assert "x-cost" not in response.headers
