from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_ideogram.emulator.clock import Clock
from airflow_provider_ideogram.emulator.errors import ApiError
from airflow_provider_ideogram.emulator.jobs import Job, JobStore, Outcome
from airflow_provider_ideogram.emulator.rate_limit import RateLimiter
from airflow_provider_ideogram.emulator.settings import EmulatorSettings


def accept(store: JobStore, settings: EmulatorSettings, now: float = 0.0, outcome: Outcome | None = None) -> Job:
    return store.accept(settings, now, "a-model", {"prompt": "a lighthouse"}, outcome or Outcome(), synchronous=False)


def test_expired_jobs_stay_in_the_charges() -> None:
    settings = EmulatorSettings(credits=0.1)
    store = JobStore(settings)
    job = accept(store, settings)
    assert store.find(job.request_id, 3599.9) is job
    with pytest.raises(ApiError, match="expired"):
        store.find(job.request_id, 3600.0)
    [charge] = store.charges(3600.0)
    assert (charge.request_id, charge.cost_usd, charge.state) == (job.request_id, 0.05, "COMPLETED")
    assert store.balance == 0.05


def test_failed_jobs_are_not_refunded() -> None:
    settings = EmulatorSettings()
    store = JobStore(settings)
    job = accept(store, settings, outcome=Outcome(error="lost"))
    assert job.state(100.0) == "FAILED"
    assert store.charged == 0.05


def test_sums_of_money_are_exact() -> None:
    settings = EmulatorSettings()
    store = JobStore(settings)
    for _ in range(1000):
        accept(store, settings)
    assert (store.charged, store.balance) == (50.0, 950.0)


def test_in_flight() -> None:
    settings = EmulatorSettings(queue_seconds=0, job_seconds=10)
    store = JobStore(settings)
    for now in (0.0, 1.0, 2.0):
        accept(store, settings, now)
    assert [store.in_flight(now) for now in (9.9, 10.0, 11.5, 12.0)] == [3, 2, 1, 0]
    accept(store, settings, 20.0)
    assert store.max_in_flight == 3


def test_jitter_is_reproducible_and_bounded() -> None:
    def durations(random_seed: int) -> list[float]:
        settings = EmulatorSettings(queue_seconds=0, job_seconds=10, jitter=0.5, random_seed=random_seed)
        store = JobStore(settings)
        return [accept(store, settings).done_at for _ in range(200)]

    assert durations(1) == durations(1) != durations(2)
    assert 5 <= min(durations(1)) < 6
    assert 14 < max(durations(1)) <= 15


def test_rate_limit_window_slides() -> None:
    limiter = RateLimiter()
    assert [limiter.seconds_to_wait(2, now) for now in (0.0, 10.0, 20.0)] == [0, 0, 40]
    assert limiter.seconds_to_wait(2, 59.5) == 1
    assert [limiter.seconds_to_wait(2, now) for now in (60.0, 60.1, 70.0)] == [0, 10, 0]


def test_lower_limit_counts_earlier_calls() -> None:
    limiter = RateLimiter()
    for now in (0.0, 1.0, 2.0):
        limiter.seconds_to_wait(0, now)
    assert limiter.seconds_to_wait(2, 2.0) == 59
    assert limiter.seconds_to_wait(2, 61.0) == 0


def test_clock_cannot_go_back() -> None:
    clock = Clock()
    before = clock.now()
    clock.advance(100)
    assert clock.now() >= before + 100
    with pytest.raises(ValueError, match="seconds"):
        clock.advance(-1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"job_seconds": -1},
        {"job_seconds": "12"},
        {"job_seconds": float("inf")},
        {"jitter": 1.5},
        {"rate_limit": 1.5},
        {"rate_limit": True},
        {"retry_after": 1},
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
