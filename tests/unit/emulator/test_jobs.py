from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL
from airflow_provider_ideogram.emulator.clock import Clock
from airflow_provider_ideogram.emulator.errors import ApiError
from airflow_provider_ideogram.emulator.jobs import Job, JobStore, Outcome
from airflow_provider_ideogram.emulator.settings import EmulatorSettings


def accept(store: JobStore, settings: EmulatorSettings, now: float = 0.0, outcome: Outcome | None = None) -> Job:
    return store.accept(settings, now, DEFAULT_MODEL, {"prompt": "a lighthouse"}, outcome or Outcome())


def test_job_is_charged_once_when_it_completes() -> None:
    settings = EmulatorSettings(credits=0.1, queue_seconds=0, job_seconds=10)
    store = JobStore(settings)
    job = accept(store, settings)
    for now, charges, balance in ((9.9, 0, 0.1), (10.0, 1, 0.05), (10_000.0, 1, 0.05)):
        store.settle(now)
        assert (store.charges, store.balance) == (charges, balance)
        assert store.charged_usd == job.cost(now) == charges * 0.05


def test_expired_records_stay_in_the_requests() -> None:
    settings = EmulatorSettings()
    store = JobStore(settings)
    job = accept(store, settings)
    assert store.find(job.request_id, 3599.9) is job
    with pytest.raises(ApiError, match="expired"):
        store.find(job.request_id, 3600.0)
    [request] = store.requests(3600.0)
    assert (request.request_id, request.cost_usd, request.state) == (job.request_id, 0.05, "COMPLETED")


def test_failed_jobs_cost_nothing() -> None:
    settings = EmulatorSettings()
    store = JobStore(settings)
    job = accept(store, settings, outcome=Outcome(error="lost"))
    store.settle(100.0)
    assert job.state(100.0) == "FAILED"
    assert (store.failed, store.charges, store.charged_usd, job.cost(100.0)) == (1, 0, 0.0, 0.0)


def test_sums_of_money_are_exact() -> None:
    settings = EmulatorSettings()
    store = JobStore(settings)
    for _ in range(1000):
        accept(store, settings)
    store.settle(100.0)
    assert (store.charged_usd, store.balance) == (50.0, 950.0)


def test_charges_are_made_in_the_order_of_completion() -> None:
    settings = EmulatorSettings(credits=1.0)
    store = JobStore(settings)
    jobs = [accept(store, settings, outcome=Outcome(seconds=seconds)) for seconds in (30.0, 10.0, 20.0)]
    store.settle(100.0)
    assert [job.remaining_credits for job in jobs] == [0.85, 0.95, 0.9]


def test_price_is_that_of_the_submit() -> None:
    settings = EmulatorSettings()
    store = JobStore(settings)
    accept(store, settings)
    accept(store, settings.changed({"price": 0.5}))
    store.settle(100.0)
    assert store.charged_usd == 0.55


def test_in_flight() -> None:
    settings = EmulatorSettings(queue_seconds=0, job_seconds=10)
    store = JobStore(settings)
    for now in (0.0, 1.0, 2.0):
        accept(store, settings, now)
    for now, in_flight in ((9.9, 3), (10.0, 2), (11.5, 1), (12.0, 0)):
        store.settle(now)
        assert store.in_flight == in_flight
    accept(store, settings, 20.0)
    accept(store, settings, 40.0)
    assert (store.in_flight, store.max_in_flight) == (1, 3)


def test_jitter_is_reproducible_and_bounded() -> None:
    def durations(random_seed: int) -> list[float]:
        settings = EmulatorSettings(queue_seconds=0, job_seconds=10, jitter=0.5, random_seed=random_seed)
        store = JobStore(settings)
        return [accept(store, settings).done_at for _ in range(200)]

    assert durations(1) == durations(1) != durations(2)
    assert 5 <= min(durations(1)) < 6
    assert 14 < max(durations(1)) <= 15


def test_clock_cannot_go_back() -> None:
    clock = Clock()
    before = clock.now()
    clock.advance(100)
    assert clock.now() >= before + 100
    with pytest.raises(ValueError, match="seconds"):
        clock.advance(-1)


def test_speed_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    real = 0.0
    monkeypatch.setattr("time.monotonic", lambda: real)
    clock = Clock(speed=60)
    start = clock.now()
    for elapsed, speed, seconds in ((10.0, 60, 600), (20.0, 0, 1200), (30.0, 1, 1200), (40.0, 1, 1210)):
        real = elapsed
        assert clock.now() == pytest.approx(start + seconds, abs=0.001)
        clock.set_speed(speed)


@pytest.mark.parametrize(
    "wrong",
    [
        {"job_seconds": -1},
        {"job_seconds": "12"},
        {"job_seconds": float("inf")},
        {"jitter": 1.5},
        {"rate_limit": 1.5},
        {"rate_limit": True},
        {"rate_limit_polls": 1},
        {"rate_limit_header": "date"},
        {"prices": {"ideogram-3": -1}},
        {"prices": {"ideogram-3": "0.1"}},
        {"prices": 0.1},
        {"outputs": 0},
        {"keys": "key"},
        {"keys": ()},
        {"keys": (1,)},
        {"host": None},
        {"port": 70_000},
        {"image_format": "gif"},
    ],
)
def test_invalid_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EmulatorSettings(**wrong)


def test_settings_change() -> None:
    settings = EmulatorSettings().changed({"keys": ["one", "two"], "job_seconds": 1})
    assert (settings.keys, settings.job_seconds) == (("one", "two"), 1)
    for name in ("host", "port", "no_such_setting"):
        with pytest.raises(ValueError, match=name):
            settings.changed({name: 1})
