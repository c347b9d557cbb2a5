from __future__ import annotations

import inspect
import json
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import pytest
from airflow.providers.common.compat.module_loading import import_string

from airflow_provider_ideogram.api import poll_schedule
from airflow_provider_ideogram.api.calls import Call
from airflow_provider_ideogram.api.polling import RESULT_LIFETIME
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.hooks import shared_client
from airflow_provider_ideogram.triggers import IdeogramTrigger

_VALUES: dict[str, Any] = {
    "requests": {"r-1": 1795392000.25, "r-2": 1795392001.0},
    "deadline": 1795392600.25,
    "ideogram_conn_id": "my_conn",
    "poll_interval": 2.5,
    "model": "ideogram-3",
    "min_settled": 1,
    "not_before": 1_800_000_000.0,
    "payload": {"request": {"seed": 7}, "target": "s3://bucket/cat.png"},
}
ARGUMENTS = {name: _VALUES[name] for name in inspect.signature(IdeogramTrigger).parameters}


def test_serialization_keeps_every_argument() -> None:
    path, arguments = IdeogramTrigger(**ARGUMENTS).serialize()
    assert arguments == ARGUMENTS
    copy = import_string(path)(**json.loads(json.dumps(arguments)))
    assert type(copy) is IdeogramTrigger
    assert copy.serialize() == (path, ARGUMENTS)


def test_serialization_keeps_the_defaults() -> None:
    path, arguments = IdeogramTrigger(requests={}, deadline=0.0).serialize()
    assert IdeogramTrigger(**arguments).serialize() == (path, arguments)
    assert arguments["ideogram_conn_id"] == "ideogram_default"


def test_payload_is_copied() -> None:
    payload = {"a": 1}
    trigger = IdeogramTrigger(requests={}, deadline=0.0, payload=payload)
    payload["a"] = 2
    assert trigger.serialize()[1]["payload"] == {"a": 1}


Run: TypeAlias = Callable[..., Coroutine[Any, Any, dict[str, Any]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Run:
    """Return a function that polls a request of some age, with scripted responses, and returns its report."""
    monkeypatch.setattr(poll_schedule, "MIN_FIRST_POLL", 0.001)
    monkeypatch.setattr(IdeogramTrigger, "log", logging.getLogger("trigger"))  # Airflow's logger differs by version
    monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", '{"conn_type": "ideogram", "password": "SG_0123456789abcdef"}')
    caplog.set_level(logging.INFO)

    async def run(*responses: tuple[int, dict[str, Any]], age: float = 0.0) -> dict[str, Any]:
        transport = ScriptedTransport(*responses)

        async def new_transport(_: object) -> ScriptedTransport:
            return transport

        monkeypatch.setattr(shared_client, "new_transport", new_transport)
        now = time.time()
        trigger = IdeogramTrigger(requests={"r-1": now - age}, deadline=now + 60, poll_interval=0.001)
        [event] = [event async for event in trigger.run()]
        assert transport.responses == []
        assert event.payload["error"] is None
        report: dict[str, Any] = event.payload["requests"]["r-1"]
        return report

    return run


class ScriptedTransport:
    """Answers each call with the next response."""

    def __init__(self, *responses: tuple[int, dict[str, Any]]) -> None:
        self.responses = list(responses)

    async def send(self, _: Call[Any]) -> ApiResponse:
        status, body = self.responses.pop(0)
        return ApiResponse(status, {}, json.dumps(body).encode())

    async def aclose(self) -> None:
        """Nothing to close."""


async def test_report_has_the_cost_and_the_balance(run: Run) -> None:
    metrics = {"inference_time": 12.4, "cost": 0.065, "remaining_credits": 9.5}

    report = await run((200, {"status": "PROCESSING"}), (200, {"status": "COMPLETED", "metrics": metrics}))

    assert (report["outcome"], report["polls"], report["inference_seconds"]) == ("completed", 2, 12.4)
    assert (report["cost_usd"], report["remaining_credits"]) == (0.065, 9.5)


async def test_polling_continues_after_the_hour(run: Run) -> None:
    running, done = (200, {"status": "PROCESSING"}), (200, {"status": "COMPLETED"})

    report = await run(running, running, done, age=2 * RESULT_LIFETIME)

    assert (report["outcome"], report["polls"]) == ("completed", 3)


async def test_404_after_the_hour_is_reported_as_record_gone(run: Run) -> None:
    report = await run((200, {"status": "PROCESSING"}), (404, {"error": "Not found"}), age=RESULT_LIFETIME)

    assert (report["outcome"], report["polls"]) == ("record_gone", 2)


async def test_synonym_of_completed_is_reported_at_once(run: Run) -> None:
    report = await run((200, {"status": "succeeded"}))

    assert (report["outcome"], report["state"]) == ("completed", "COMPLETED")


async def test_unknown_state_is_logged_once_and_counts_as_running(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    unknown = (200, {"status": "warming_up"})

    report = await run(unknown, unknown, (200, {"status": "COMPLETED"}))

    assert report["outcome"] == "completed"
    assert caplog.text.count("Request r-1 has the unknown state WARMING_UP, which counts as running") == 1


async def test_kill_logs_that_the_requests_continue(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IdeogramTrigger, "log", logging.getLogger("trigger"))  # Airflow's logger differs by version
    await IdeogramTrigger(**ARGUMENTS).on_kill()
    assert "Request r-1 continues at the vendor" in caplog.text
    assert "Request r-2 continues at the vendor" in caplog.text
