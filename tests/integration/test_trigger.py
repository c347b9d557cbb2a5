"""The trigger against the emulator: it only reads, reports each request, and leaves no task and no connection."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.api import back_off
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.polling import RESULT_LIFETIME
from airflow_provider_ideogram.hooks import IdeogramHook
from airflow_provider_ideogram.hooks.shared_client import _shared_clients
from airflow_provider_ideogram.triggers import IdeogramTrigger
from airflow_provider_ideogram.triggers import request as request_module
from tests.support.task_logs import captured_logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from tests.support.world import Clock

    Submit = Callable[..., str]

ARGUMENTS: dict[str, Any] = {
    "requests": {"request-1": 1.5},
    "deadline": 2.5,
    "ideogram_conn_id": "ideogram_other",
    "poll_interval": 3.5,
    "payload": {"request": {"prompt": "ein Turm, 灯台", "seed": 7, "model_params": {"a": [1, None]}}},
}


@pytest.fixture
def submit(ideogram_connection: str) -> Submit:
    """Submit a job and return its request id."""

    def submit(prompt: str = "a lighthouse") -> str:
        with IdeogramHook(ideogram_connection) as hook:
            return hook.submit(GenerationRequest(prompt)).request_id

    return submit


def watching(*request_ids: str, seconds: float = 60, **arguments: Any) -> IdeogramTrigger:
    """Return a trigger that watches jobs which were submitted just now."""
    now = time.time()
    return IdeogramTrigger(requests=dict.fromkeys(request_ids, now), deadline=now + seconds, **arguments)


async def event_of(trigger: IdeogramTrigger) -> dict[str, Any]:
    """Run the trigger to its end, and return the payload of its only event as Airflow stores it."""
    [event] = [event async for event in trigger.run()]
    payload: dict[str, Any] = json.loads(json.dumps(event.payload))
    assert payload == event.payload
    return payload


async def polled_twice(emulator: RunningEmulator) -> None:
    """Return when two polls have arrived."""
    async with asyncio.timeout(30):
        while emulator.stats().calls.get("status", 0) < 2:  # noqa: ASYNC110 - it is counted in another thread
            await asyncio.sleep(0.01)


def is_idle() -> bool:
    """Return whether the loop has no task except the test's, and no connection."""
    return asyncio.all_tasks() == {asyncio.current_task()} and not _shared_clients.get(asyncio.get_running_loop())


@pytest.mark.parametrize("name", list(ARGUMENTS))
def test_every_argument_survives_storage(name: str) -> None:
    required = {"requests": {}, "deadline": 1.0}
    trigger = IdeogramTrigger(**{**required, name: ARGUMENTS[name]})

    path, kwargs = trigger.serialize()

    assert path == "airflow_provider_ideogram.triggers.request.IdeogramTrigger"
    assert kwargs[name] == ARGUMENTS[name]
    stored = json.loads(json.dumps(kwargs))
    assert IdeogramTrigger(**stored).serialize() == (path, kwargs)


def test_all_arguments_are_stored() -> None:
    _, kwargs = IdeogramTrigger(requests={}, deadline=1.0).serialize()

    assert set(kwargs) == set(inspect.signature(IdeogramTrigger).parameters)


async def test_event_has_the_outcome_of_each_request(submit: Submit, ideogram_emulator: RunningEmulator) -> None:
    ids = {
        "completed": submit(),
        "failed": submit("x [[fault:failed]]"),
        "content_blocked": submit("x [[fault:blocked]]"),
        "record_gone": "unknown-request",
    }
    trigger = watching(*ids.values(), poll_interval=0.05, payload={"for": "later"})
    trigger.requests = {**trigger.requests, ids["record_gone"]: time.time() - RESULT_LIFETIME}

    event = await event_of(trigger)

    assert {name: event["requests"][request_id]["outcome"] for name, request_id in ids.items()} == {
        name: name for name in ids
    }
    assert event["payload"] == {"for": "later"}
    assert event["error"] is None
    assert event["requests"][ids["completed"]]["inference_seconds"] == 0.15
    [charge] = ideogram_emulator.charges()
    assert event["requests"][ids["completed"]]["cost_usd"] == charge.cost_usd > 0
    assert "ran out of memory" in event["requests"][ids["failed"]]["error"]
    assert is_idle()


async def test_two_copies_at_once_change_nothing(submit: Submit, ideogram_emulator: RunningEmulator) -> None:
    request_id = submit()
    _, kwargs = watching(request_id).serialize()
    copies = [IdeogramTrigger(**kwargs) for _ in range(2)]

    first, second = await asyncio.gather(*map(event_of, copies))

    for event in (first, second):
        assert event["requests"][request_id]["outcome"] == "completed"
    stats = ideogram_emulator.stats()
    assert (stats.accepted, stats.calls["submit"]) == (1, 1)
    assert set(stats.calls) == {"submit", "status"}
    assert is_idle()


async def test_copy_that_starts_after_the_end_reports_the_same(
    submit: Submit, ideogram_emulator: RunningEmulator
) -> None:
    trigger = watching(submit())
    first = await event_of(trigger)

    again = await event_of(IdeogramTrigger(**trigger.serialize()[1]))

    [before], [after] = (list(event["requests"].values()) for event in (first, again))
    assert before["outcome"] == after["outcome"] == "completed"


async def test_cancelled_trigger_leaves_nothing_on_the_loop(submit: Submit, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(job_seconds=10_000.0)
    running = asyncio.create_task(event_of(watching(submit(), submit())))
    await polled_twice(ideogram_emulator)

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert is_idle()


async def test_cancelled_trigger_keeps_the_client_of_others(submit: Submit, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.fault("job", "job_seconds", seconds=10_000.0)
    slow, quick = submit(), submit()
    cancelled, kept = (asyncio.create_task(event_of(watching(request_id))) for request_id in (slow, quick))
    await polled_twice(ideogram_emulator)

    cancelled.cancel()

    event = await kept
    assert event["requests"][quick]["outcome"] == "completed"
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert is_idle()


async def test_fires_at_the_deadline_with_the_known_states(submit: Submit, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.fault("job", "job_seconds", seconds=10_000.0)
    slow, quick = submit(), submit()
    ideogram_emulator.advance(1)

    event = await event_of(watching(slow, quick, seconds=2.0))

    assert event["requests"][slow]["outcome"] == "pending"
    assert event["requests"][slow]["state"] in ("QUEUED", "PROCESSING")
    assert event["requests"][quick]["outcome"] == "completed"
    assert event["error"] is None
    assert is_idle()


async def test_fires_at_once_after_the_deadline(clock: Clock, submit: Submit) -> None:
    trigger = watching(submit())
    clock.advance(3600)

    event = await event_of(trigger)

    assert [report["outcome"] for report in event["requests"].values()] == ["pending"]


async def test_logs_changes_instead_of_each_poll(submit: Submit, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(job_seconds=1.0)
    request_id, lines = submit(), list[str]()

    with captured_logs(lines):
        event = await event_of(watching(request_id, poll_interval=0.05))

    messages = [line.partition("IdeogramTrigger ")[2] for line in lines if "IdeogramTrigger " in line]
    states = [line.split()[-1] for line in messages if "is" in line.split()]
    assert states[-1] == "COMPLETED"
    assert len(states) == len(set(states))
    assert len(messages) < event["requests"][request_id]["polls"]


async def test_logs_a_heartbeat_while_nothing_changes(
    monkeypatch: pytest.MonkeyPatch, submit: Submit, ideogram_emulator: RunningEmulator
) -> None:
    monkeypatch.setattr(request_module, "HEARTBEAT_SECONDS", 0.0)
    lines: list[str] = []

    with captured_logs(lines):
        await event_of(watching(submit(), submit()))

    assert any("Waiting: " in line for line in lines)


async def test_on_kill_logs_that_the_request_continues() -> None:
    lines: list[str] = []

    with captured_logs(lines):
        await IdeogramTrigger(requests={"request-1": 1.0}, deadline=1.0).on_kill()

    assert all(words in "".join(lines) for words in ("request-1", "continues", "charged"))


async def test_without_requests_waits_for_the_deadline() -> None:
    event = await event_of(IdeogramTrigger(requests={}, deadline=time.time(), payload={"waiting_since": 1.0}))

    assert event == {"requests": {}, "payload": {"waiting_since": 1.0}, "error": None}


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_key_fires_at_once(status: int, submit: Submit, ideogram_emulator: RunningEmulator) -> None:
    request_id = submit()
    ideogram_emulator.fault("status", "error", status=status, times=None)

    event = await event_of(watching(request_id))

    report = event["requests"][request_id]
    assert (report["outcome"], report["polls"]) == ("refused", 1)
    assert str(status) in report["error"]


async def test_unreachable_api_ends_the_wait(
    monkeypatch: pytest.MonkeyPatch, submit: Submit, ideogram_emulator: RunningEmulator
) -> None:
    monkeypatch.setattr(back_off, "_BACK_OFF_MAX", 0.02)
    request_id = submit()
    ideogram_emulator.fault("status", "error", status=503, times=None)

    event = await event_of(watching(request_id))

    report = event["requests"][request_id]
    assert report["outcome"] == "unreachable"
    assert report["polls"] == ideogram_emulator.stats().calls["status"] > 5


async def test_404_within_the_hour_does_not_end_the_wait(submit: Submit, ideogram_emulator: RunningEmulator) -> None:
    request_id = submit()
    ideogram_emulator.fault("status", "error", status=404, times=3)

    event = await event_of(watching(request_id))

    assert event["requests"][request_id]["outcome"] == "completed"


@pytest.mark.parametrize(
    "connection",
    [None, '{"conn_type": "ideogram", "extra": {}}', '{"conn_type": "ideogram", "password": "k", "host": ":"}'],
)
async def test_invalid_connection_is_reported_by_the_event(
    connection: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection is not None:
        monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_GONE", connection)

    event = await event_of(watching("request-1", ideogram_conn_id="ideogram_gone"))

    assert "ideogram_gone" in event["error"]
    assert event["requests"]["request-1"]["outcome"] == "pending"
    assert is_idle()
