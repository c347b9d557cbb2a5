"""A task that a person ends: its request continues, the log says so, and the next attempt reattaches to it."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.jobs import completion
from tests.support.task_logs import captured_logs
from tests.support.world import RECORD_KEY, assert_succeeded

if TYPE_CHECKING:
    from tests.support.world import Generate, ImageTask, World


def _terminate(*_: Any) -> None:
    """Do what Airflow does: send SIGTERM, which calls ``on_kill``, and end the process after some time."""
    signal.raise_signal(signal.SIGTERM)
    raise KeyboardInterrupt


@pytest.mark.parametrize("deferrable", [True, False])
def test_operator_that_is_ended_leaves_its_request_to_the_next(
    deferrable: bool, image_task: ImageTask, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = image_task(deferrable=deferrable, retries=1)
    with monkeypatch.context() as patch:
        patch.setattr(completion, "fetch_and_store" if deferrable else "poll_once", _terminate)
        result = run.execute()
        if deferrable:
            result = run.resume(run.fire())

    assert result.state not in ("success", "deferred")
    [request] = world.emulator.requests()
    assert f"Request {request.request_id} continues at the vendor" in result.log_text
    assert world.object_keys() == [RECORD_KEY]
    assert_succeeded(world.to_end(run, run.retry()))
    assert run.xcom()["request_id"] == request.request_id
    assert world.accepted == 1


def test_nothing_is_logged_before_a_submit(generate: Generate) -> None:
    lines: list[str] = []
    with captured_logs(lines):
        generate().on_kill()

    assert lines == []


def test_deferred_task_that_is_ended_leaves_its_request_too(image_task: ImageTask, world: World) -> None:
    run = image_task()
    run.execute()
    request_id = run.xcom("request_id")

    lines: list[str] = []
    with captured_logs(lines):
        asyncio.run(run.trigger().on_kill())

    assert f"Request {request_id} continues at the vendor" in "".join(lines)
    assert_succeeded(world.to_end(run, run.clear()))
    assert run.xcom()["request_id"] == request_id
    assert world.accepted == 1
