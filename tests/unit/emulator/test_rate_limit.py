from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from airflow_provider_ideogram.emulator.rate_limit import HEADER_FORMS, RateLimiter, reset_headers
from airflow_provider_ideogram.emulator.running import RunningEmulator
from tests.support.emulator_client import EmulatorClient


def test_window_slides() -> None:
    limiter = RateLimiter()
    assert [limiter.reset_at(2, now) for now in (0.0, 10.0, 20.0)] == [None, None, 60.0]
    assert limiter.reset_at(2, 59.5) == 60.0
    assert [limiter.reset_at(2, now) for now in (60.0, 60.1, 70.0)] == [None, 70.0, None]


def test_lower_limit_counts_earlier_calls() -> None:
    limiter = RateLimiter()
    for now in (0.0, 1.0, 2.0):
        limiter.reset_at(0, now)
    assert limiter.reset_at(2, 2.0) == 61.0
    assert limiter.reset_at(2, 61.0) is None


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ("iso", {"x-rate-limit-reset-at-utc": "2026-11-25T10:00:08Z", "x-rate-limit-remaining": "0"}),
        ("iso_no_zone", {"x-rate-limit-reset-at-utc": "2026-11-25T10:00:08", "x-rate-limit-remaining": "0"}),
        ("epoch", {"x-rate-limit-reset-at-utc": "1795600808", "x-rate-limit-remaining": "0"}),
        ("retry_after", {"Retry-After": "6"}),
        ("none", {}),
    ],
)
def test_header_forms(form: str, headers: dict[str, str]) -> None:
    now = datetime(2026, 11, 25, 10, 0, 2, tzinfo=UTC).timestamp()
    assert form in HEADER_FORMS
    assert reset_headers(form, now + 5.5, now) == headers


def test_paid_calls_are_limited(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(rate_limit=2)
    request_id = api.submitted()
    assert api.generate().status_code == 200
    limited = api.submit()
    assert (limited.status_code, limited.json()) == (429, {"error": "rate_limit_exceeded"})
    assert "retry-after" not in limited.headers
    reset_at = datetime.fromisoformat(limited.headers["x-rate-limit-reset-at-utc"]).timestamp()
    [first, _] = ideogram_emulator.requests()
    assert reset_at == math.ceil(first.accepted_at + 60)
    assert {api.status(request_id).status_code, api.result(request_id).status_code} == {200}
    stats = ideogram_emulator.stats()
    assert (stats.rate_limited, stats.accepted) == (1, 2)
    ideogram_emulator.advance(60)
    assert api.submit().status_code == 200


def test_polls_can_be_limited(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(rate_limit=3, rate_limit_polls=True, rate_limit_header="retry_after", clock_speed=0)
    request_id = api.submitted()
    responses = [api.status(request_id), api.result(request_id), api.status(request_id), api.submit()]
    assert [response.status_code for response in responses] == [200, 202, 429, 429]
    assert 1 <= int(responses[2].headers["retry-after"]) <= 60
    assert api.history().status_code == 200
