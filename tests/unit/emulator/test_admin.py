from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from airflow_provider_ideogram.emulator.running import RunningEmulator
from tests.support.emulator_client import EmulatorClient


@pytest.fixture
def admin(ideogram_emulator: RunningEmulator) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{ideogram_emulator.url}/_emulator", trust_env=False) as client:
        yield client


def test_stats(api: EmulatorClient, admin: httpx.Client) -> None:
    admin.post("/settings", json={"clock_speed": 0})
    request_id = api.done()
    api.status(request_id)
    api.image(request_id)
    api.done("[[fault:failed]]")
    api.submitted()
    assert admin.get("/stats").json() == {
        "accepted": 3,
        "charges": 1,
        "failed": 1,
        "charged_usd": 0.05,
        "credits": 999.95,
        "calls": {"submit": 3, "status": 1, "result": 1, "image": 1},
        "rate_limited": 0,
        "key_leaks": 0,
        "jobs_in_flight": 1,
        "max_jobs_in_flight": 1,
        "faults": {"job:failed": 1},
    }


def test_requests_and_charges(api: EmulatorClient, admin: httpx.Client) -> None:
    request_id = api.done(seed=7)
    api.status(request_id)
    [charge] = admin.get("/charges").json()["charges"]
    assert admin.get("/requests").json()["requests"] == [charge]
    assert charge["done_at"] - charge["accepted_at"] == pytest.approx(0.2, abs=0.001)
    assert charge["first_seen_done_at"] >= charge["done_at"]
    for time in ("accepted_at", "done_at", "first_seen_done_at"):
        del charge[time]
    assert charge == {
        "request_id": request_id,
        "model": "ideogram-2a-txt-2-img",
        "inputs": {"prompt": "a lighthouse", "seed": 7},
        "seed": 7,
        "cost_usd": 0.05,
        "state": "COMPLETED",
        "status_calls": 1,
    }


def test_unfinished_and_failed_requests_cost_nothing(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(clock_speed=0)
    failed = api.done("[[fault:failed]]")
    running = api.submitted()
    requests = ideogram_emulator.requests()
    assert [(one.request_id, one.cost_usd) for one in requests] == [(failed, 0.0), (running, 0.0)]
    assert ideogram_emulator.charges() == []
    ideogram_emulator.advance(60)
    [charge] = ideogram_emulator.charges()
    assert (charge.request_id, charge.state, charge.cost_usd) == (running, "COMPLETED", 0.05)


def test_teammate_request(api: EmulatorClient, admin: httpx.Client) -> None:
    response = admin.post("/teammate-requests", json={"inputs": {"prompt": "a lighthouse"}, "model": "ideogram-3"})
    [row] = api.history().json()["data"]
    assert (row["request_id"], row["model_name"]) == (response.json()["request_id"], "ideogram-3")
    assert admin.get("/requests").json() == {"requests": []}


def test_first_seen_done_is_recorded_once(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(job_seconds=100)
    request_id = api.submitted()
    api.status(request_id)
    assert ideogram_emulator.requests()[0].first_seen_done_at is None
    ideogram_emulator.advance(200)
    api.status(request_id)
    first_seen = ideogram_emulator.charges()[0].first_seen_done_at
    ideogram_emulator.advance(10)
    api.status(request_id)
    [charge] = ideogram_emulator.charges()
    assert (charge.first_seen_done_at, charge.status_calls) == (first_seen, 3)


def test_faults(api: EmulatorClient, admin: httpx.Client) -> None:
    assert admin.post("/faults", json={"on": "submit", "kind": "error", "times": None}).status_code == 200
    assert api.submit().status_code == 503
    assert admin.delete("/faults").status_code == 200
    assert api.submit().status_code == 200


def test_settings_and_clock(api: EmulatorClient, admin: httpx.Client) -> None:
    admin.post("/settings", json={"job_seconds": 500, "rate_limit": 1, "credits": 0.07})
    request_id = api.submitted()
    assert api.submit().status_code == 429
    admin.post("/advance", json={"seconds": 499})
    assert api.status(request_id).json()["status"] == "PROCESSING"
    admin.post("/advance", json={"seconds": 2})
    assert api.status(request_id).json()["status"] == "COMPLETED"
    assert api.submit().status_code == 402


def test_settings_keep_the_balance(api: EmulatorClient, admin: httpx.Client) -> None:
    api.done()
    admin.post("/settings", json={"job_seconds": 500})
    assert admin.get("/stats").json()["credits"] == 999.95


@pytest.mark.parametrize("by", ["admin call", "Python"])
def test_reset(api: EmulatorClient, admin: httpx.Client, ideogram_emulator: RunningEmulator, by: str) -> None:
    ideogram_emulator.fault("status", "error", times=None)
    request_id = api.submitted()
    if by == "Python":
        ideogram_emulator.reset()
    else:
        assert admin.post("/reset").status_code == 200
    assert api.status(request_id).status_code == 404
    stats = admin.get("/stats").json()
    assert (stats["accepted"], stats["credits"], stats["calls"]) == (0, 1000.0, {"status": 1})


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("/faults", {"on": "status"}),
        ("/faults", {"on": "status", "kind": "none"}),
        ("/faults", {"on": "status", "kind": "error", "colour": "red"}),
        ("/faults", {"on": "status", "kind": "error", "headers": {"x-rate-limit-remaining": 0}}),
        ("/settings", {"port": 1}),
        ("/settings", {"job_seconds": "long"}),
        ("/teammate-requests", {"inputs": "a lighthouse"}),
        ("/teammate-requests", {"inputs": {}, "model": "no-such-model"}),
        ("/advance", {"seconds": -1}),
        ("/advance", {"seconds": "x"}),
        ("/advance", {}),
        ("/advance", []),
    ],
)
def test_invalid_commands_are_400(admin: httpx.Client, path: str, command: Any) -> None:
    response = admin.post(path, json=command)
    assert response.status_code == 400
    assert response.json()["error"]
