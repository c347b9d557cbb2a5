"""What happens to a task whose submitted request fails, is blocked, is slow, or can't be polled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.exceptions import IdeogramTimeout
from tests.support.world import HOUR, KEY, MINUTE, RECORD_KEY, assert_error, assert_succeeded

if TYPE_CHECKING:
    from tests.support.world import ImageTask, World


class TestFailedRequest:
    def test_is_not_charged_and_may_be_retried(self, image_task: ImageTask, world: World) -> None:
        world.emulator.fault("job", "failed")
        run = image_task(retries=1)

        result = run.to_end()

        [request] = world.emulator.requests()
        assert result.state == "up_for_retry"
        assert_error(result, request.request_id, "ran out of memory", "It was not charged", "A retry")
        assert run.xcom("failure")["charged"] is False
        assert world.emulator.charges() == []
        assert_succeeded(world.to_end(run, run.retry()))

    def test_with_refused_parameters_says_so(self, image_task: ImageTask, world: World) -> None:
        world.emulator.fault("job", "invalid")
        run = image_task()
        run.execute()
        world.pass_time(MINUTE)

        result = run.resume(run.fire())

        assert result.state == "failed"
        assert_error(result, "the model refused its parameters", "style_type", "It was not charged")

    def test_is_not_skipped(self, image_task: ImageTask, world: World) -> None:
        world.emulator.fault("job", "failed")

        assert image_task(on_content_blocked="skip").to_end().state == "failed"


@pytest.mark.parametrize("deferrable", [True, False])
class TestBlockedContent:
    def test_fails_without_a_retry(self, deferrable: bool, image_task: ImageTask, world: World) -> None:
        world.emulator.fault("job", "blocked")
        run = image_task(retries=3, deferrable=deferrable)

        result = run.to_end()

        assert result.state == "failed"
        failure = run.xcom("failure")
        assert set(failure) == {"reason", "error", "advice", "charged", "request_id"}
        assert (failure["reason"], failure["charged"]) == ("content_blocked", False)
        assert_error(result, "safety filter", "It was not charged", "Change the prompt")
        assert world.emulator.charges() == []

    def test_is_not_submitted_again_by_a_retry(self, deferrable: bool, image_task: ImageTask, world: World) -> None:
        """The process may end after the record is deleted, before Airflow knows that the task failed."""
        world.emulator.fault("job", "blocked")
        run = image_task(retries=3, deferrable=deferrable)
        run.to_end()

        assert world.to_end(run, run.retry()).state == "failed"

        assert run.xcom("failure")["reason"] == "content_blocked"
        assert world.accepted == 1
        assert_succeeded(world.to_end(run, run.clear()))
        assert (world.accepted, world.object_keys()) == (2, [KEY])

    def test_leaves_no_record_without_retries(self, deferrable: bool, image_task: ImageTask, world: World) -> None:
        world.emulator.fault("job", "blocked")
        image_task(retries=0, deferrable=deferrable).to_end()
        assert world.object_keys() == []

    def test_skips_the_task_if_the_user_says_so(self, deferrable: bool, image_task: ImageTask, world: World) -> None:
        world.emulator.fault("job", "blocked")

        result = image_task(on_content_blocked="skip", deferrable=deferrable).to_end()

        assert result.state == "skipped"
        assert "safety filter" in result.log_text


class TestTimeout:
    def test_counts_from_the_submission_and_names_the_request(self, image_task: ImageTask, world: World) -> None:
        world.emulator.configure(job_seconds=10_000.0)
        run = image_task(retries=3, timeout=300)
        before = world.clock()
        run.execute()
        assert run.deferral is not None
        assert before + 300 <= run.deferral["trigger_kwargs"]["deadline"] <= world.clock() + 300
        world.clock.advance(301)

        result = run.resume(run.fire())

        [request] = world.emulator.requests()
        assert result.state == "up_for_retry"
        assert isinstance(result.error, IdeogramTimeout)
        assert_error(result, request.request_id, "not done in time", "charged if it completes", "timeout")

    def test_ends_the_wait_on_a_worker_too(self, image_task: ImageTask, world: World) -> None:
        world.emulator.configure(job_seconds=10_000.0)

        result = image_task(timeout=0.2, deferrable=False).execute()

        assert result.state == "failed"
        assert_error(result, "not done in time")

    def test_may_be_longer_than_the_hour(self, image_task: ImageTask, world: World) -> None:
        run = image_task(timeout=10 * HOUR)
        before = world.clock()
        run.execute()

        assert run.deferral is not None
        assert before + 10 * HOUR <= run.deferral["trigger_kwargs"]["deadline"] <= world.clock() + 10 * HOUR


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "error", "status": 500},
        {"kind": "error", "status": 502, "body": "html"},
        {"kind": "error", "status": 503, "body": "empty"},
        {"kind": "error", "status": 504, "body": "binary"},
        {"kind": "error", "status": 429, "retry_after": "0"},
        {"kind": "reset"},
        {"kind": "truncated"},
        {"kind": "not_image"},
    ],
    ids=lambda fault: f"{fault['kind']}{fault.get('status', '')}",
)
def test_errors_of_single_polls_do_not_fail_the_task(
    fault: dict[str, Any], deferrable: bool, image_task: ImageTask, world: World
) -> None:
    world.emulator.fault("status", times=3, **fault)

    assert_succeeded(image_task(deferrable=deferrable).to_end())

    stats = world.emulator.stats()
    assert stats.accepted == 1
    assert stats.faults == {f"status:{fault['kind']}": 3}


def test_key_that_is_withdrawn_ends_the_wait(image_task: ImageTask, world: World) -> None:
    run = image_task(retries=1)
    run.execute()
    world.emulator.configure(keys=["another-key"])

    result = run.resume(run.fire())

    assert result.state == "up_for_retry"
    [request] = world.emulator.requests()
    assert_error(result, request.request_id, "is not lost", "rejected the key of connection")
    assert world.emulator.stats().calls["status"] == 1
    assert world.object_keys() == [RECORD_KEY]


def test_result_without_an_image_shows_what_was_received(image_task: ImageTask, world: World) -> None:
    world.emulator.fault("job", "result_form", form="none")
    run = image_task(retries=1)

    result = run.to_end()

    assert run.retry().state == "failed"
    [request] = world.emulator.requests()
    assert_error(result, request.request_id, "no image", "It was charged", "for an hour")
