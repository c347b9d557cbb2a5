"""The history as the emulator serves it, by the contract: what the hook finds there of a submit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from airflow_provider_ideogram.api import back_off
from airflow_provider_ideogram.api.history import CLOCK_SKEW, PER_PAGE, SUBMIT_WINDOW
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.emulator.running import RunningEmulator
from airflow_provider_ideogram.exceptions import IdeogramAuthenticationError, IdeogramServerUnavailable
from airflow_provider_ideogram.hooks.ideogram import IdeogramHook

SENT = GenerationRequest("a lighthouse \U0001f30a", seed=7, style_type="ANIME", model_params={"color_palette": "warm"})
OTHERS = [
    replace(SENT, seed=8),
    replace(SENT, prompt="a lighthouse"),
    replace(SENT, style_type="DESIGN"),
    replace(SENT, resolution="1344x768"),
    replace(SENT, model_params={"color_palette": "cold"}),
    replace(SENT, model_params={}),
]
DAY = 86_400.0


@pytest.fixture
def hook(ideogram_connection: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[IdeogramHook]:
    monkeypatch.setattr(back_off, "_BACK_OFF_BASE", 0.0)
    with IdeogramHook(ideogram_connection) as hook:
        yield hook


def test_finds_the_one_with_all_its_inputs(hook: IdeogramHook) -> None:
    at = time.time()
    for other in OTHERS:
        hook.submit(other)
    assert hook.find_submitted(SENT, at) == set()

    accepted = hook.submit(SENT).request_id

    assert hook.find_submitted(SENT, at) == {accepted}


def test_finds_all_that_are_the_same(hook: IdeogramHook) -> None:
    at = time.time()
    accepted = {hook.submit(SENT).request_id for _ in range(3)}
    assert hook.find_submitted(SENT, at) == accepted


def test_finds_a_request_below_newer_ones(hook: IdeogramHook, ideogram_emulator: RunningEmulator) -> None:
    at = time.time()
    accepted = hook.submit(SENT).request_id
    for seed in range(PER_PAGE + 1):
        hook.submit(GenerationRequest("a harbour", seed=seed))

    assert hook.find_submitted(SENT, at) == {accepted}
    assert ideogram_emulator.stats().calls["history"] == 3  # two pages, and the request by its id


def test_finds_it_when_its_result_has_long_expired(hook: IdeogramHook, ideogram_emulator: RunningEmulator) -> None:
    at = time.time()
    accepted = hook.submit(SENT).request_id
    ideogram_emulator.advance(5 * DAY)
    assert hook.find_submitted(SENT, at) == {accepted}


def test_finds_it_only_when_the_history_shows_it(hook: IdeogramHook, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(history_lag_seconds=60.0)
    at = time.time()
    accepted = hook.submit(SENT).request_id
    assert hook.find_submitted(SENT, at) == set()
    ideogram_emulator.advance(60)
    assert hook.find_submitted(SENT, at) == {accepted}


@pytest.mark.parametrize(
    ("intended", "found"),
    [
        (CLOCK_SKEW - 30, True),
        (CLOCK_SKEW + 30, False),
        (-SUBMIT_WINDOW - CLOCK_SKEW + 30, True),
        (-SUBMIT_WINDOW - CLOCK_SKEW - 30, False),
    ],
)
def test_window_allows_for_clock_skew_and_slow_submits(hook: IdeogramHook, intended: float, found: bool) -> None:
    accepted = hook.submit(SENT).request_id
    assert hook.find_submitted(SENT, time.time() + intended) == ({accepted} if found else set())


@pytest.mark.parametrize("status", [500, 503])
def test_a_history_that_fails_is_no_empty_one(
    status: int, hook: IdeogramHook, ideogram_emulator: RunningEmulator
) -> None:
    ideogram_emulator.fault("history", "error", status=status, times=None)
    with pytest.raises(IdeogramServerUnavailable):
        hook.find_submitted(SENT, time.time())


def test_a_page_that_fails_makes_the_whole_fail(hook: IdeogramHook, ideogram_emulator: RunningEmulator) -> None:
    """Half a history could show one match of two."""
    at = time.time()
    hook.submit(SENT)
    for seed in range(PER_PAGE):
        hook.submit(GenerationRequest("a harbour", seed=seed))
    ideogram_emulator.fault("history", "slow", seconds=0.0)  # the first page
    ideogram_emulator.fault("history", "error", status=401)
    with pytest.raises(IdeogramAuthenticationError):
        hook.find_submitted(SENT, at)


def test_temporary_error_is_retried(hook: IdeogramHook, ideogram_emulator: RunningEmulator) -> None:
    at = time.time()
    accepted = hook.submit(SENT).request_id
    ideogram_emulator.fault("history", "reset", times=2)
    assert hook.find_submitted(SENT, at) == {accepted}
