"""A submit that is answered 429: the task waits in the triggerer as long as the server says, and pays once."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.world import MINUTE, assert_error, assert_succeeded

if TYPE_CHECKING:
    from tests.support.world import ImageTask, World


@pytest.fixture
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker that sleeps fail."""

    def sleep(seconds: float) -> None:
        raise AssertionError(f"a worker slept {seconds} s")

    monkeypatch.setattr(time, "sleep", sleep)


def test_waits_in_the_triggerer_and_pays_once(no_sleep: None, image_task: ImageTask, world: World) -> None:
    world.emulator.fault("submit", "error", status=429, retry_after="40")
    run = image_task()
    before = world.clock()

    first = run.execute()

    assert first.state == "deferred"
    assert run.deferral is not None
    assert run.deferral["trigger_kwargs"]["deadline"] >= before + 40
    assert "request_id" not in run.xcoms
    assert world.accepted == 0
    world.clock.advance(120)
    assert run.resume(run.fire()).state == "deferred"
    assert world.accepted == 1
    assert_succeeded(run.resume(run.fire()))
    assert world.submits == 2


def test_task_that_is_not_deferrable_waits_there_too(no_sleep: None, image_task: ImageTask, world: World) -> None:
    world.emulator.fault("submit", "error", status=429, retry_after="40")

    assert image_task(deferrable=False).execute().state == "deferred"


@pytest.mark.parametrize("form", ["iso", "iso_no_zone", "epoch", "retry_after"])
def test_submits_within_5_seconds_of_the_reset(form: str, image_task: ImageTask, world: World) -> None:
    world.emulator.configure(rate_limit=1, rate_limit_header=form)
    world.run(image_task("first", s3_key="images/first.png"))
    [first] = world.emulator.requests()
    reset_at = math.ceil(first.accepted_at + MINUTE)  # the header has whole seconds
    run = image_task("second")

    result = run.execute()

    assert result.state == "deferred"
    assert run.deferral is not None
    assert reset_at <= run.deferral["trigger_kwargs"]["deadline"] <= reset_at + 5
    assert_succeeded(world.to_end(run, result))
    assert world.emulator.stats().rate_limited == 1
    assert world.accepted == 2


def test_limit_without_a_reset_is_waited_for_a_minute(image_task: ImageTask, world: World) -> None:
    world.emulator.configure(rate_limit=1, rate_limit_header="none")
    world.run(image_task("first", s3_key="images/first.png"))
    run = image_task("second")
    before = world.clock()

    result = run.execute()

    assert run.deferral is not None
    assert run.deferral["trigger_kwargs"]["deadline"] >= before + MINUTE
    assert_succeeded(world.to_end(run, result))


def test_limit_that_stays_ends_the_task_unpaid(image_task: ImageTask, world: World) -> None:
    world.emulator.fault("submit", "error", status=429, retry_after="600", times=None)

    result = world.run(image_task(retries=1))

    assert result.state == "up_for_retry"
    assert_error(result, "rate limit", "Nothing was charged", "requests_per_minute")
    assert world.accepted == 0


def test_tasks_share_the_limit_of_a_minute(image_task: ImageTask, world: World) -> None:
    world.emulator.configure(rate_limit=2)
    first, second, third = [image_task(task_id=f"t{n}", s3_key=f"images/{n}.png") for n in range(3)]
    states = [first.to_end().state, second.to_end().state, third.execute().state]
    assert states == ["success", "success", "deferred"]
    world.pass_time(2 * MINUTE)

    assert third.resume(third.fire()).state == "deferred"

    assert world.accepted == 3
    assert_succeeded(third.resume(third.fire()))
