"""A submitted request's status, and the way of its image to S3."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import pytest

from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.parsing import GenerationResult
from airflow_provider_ideogram.api.polling import Outcome, RequestPoll
from airflow_provider_ideogram.exceptions import (
    IdeogramImageGone,
    IdeogramInvalidImage,
    IdeogramJobUnreachable,
    IdeogramResultExpired,
    IdeogramServerUnavailable,
    IdeogramStorageError,
)
from airflow_provider_ideogram.jobs.completion import fetch_and_store
from airflow_provider_ideogram.jobs.recovery import recover
from airflow_provider_ideogram.storage.image_record import ImageRecord
from airflow_provider_ideogram.storage.target import Target
from tests.support.s3 import answered
from tests.unit.jobs.world import ASKED, DAY, HOUR, JOB_SECONDS, KEY, QUEUE_SECONDS, World

DONE_SECONDS = QUEUE_SECONDS + JOB_SECONDS + 1


@pytest.fixture(autouse=True)
def _retries_do_not_wait() -> Iterator[None]:
    with mock.patch("airflow_provider_ideogram.hooks.download.time.sleep"):
        yield


def _completed(world: World, age: float = DONE_SECONDS) -> tuple[Job, RequestPoll]:
    """Return a completed request of this age, recovered if its record is gone."""
    job, _ = world.get_or_submit()
    world.pass_time(age)
    poll = world.polled(job)
    if poll.outcome is Outcome.RECORD_GONE:
        recover(world.hook, poll, job.request)
    assert poll.outcome is Outcome.COMPLETED
    return job, poll


def _stored(world: World, job: Job, poll: RequestPoll) -> ImageRecord:
    """Store the image, which must be the request's."""
    record = fetch_and_store(world.hook, world.store, job, poll)
    body = world.client.get_object(Bucket=world.bucket, Key=KEY)["Body"].read()
    assert body == world.emulator.image_bytes(job.request_id)
    return record


class TestPoll:
    def test_status_is_recorded(self, world: World) -> None:
        job, _ = world.get_or_submit()
        assert (world.polled(job).outcome, world.polled(job).state) == (Outcome.PENDING, "QUEUED")
        world.pass_time(DONE_SECONDS)
        poll = world.polled(job)
        assert (poll.outcome, poll.cost_usd, poll.inference_seconds) == (Outcome.COMPLETED, 0.05, JOB_SECONDS)
        assert poll.remaining_credits == pytest.approx(999.95)

    def test_error_is_recorded_and_not_retried(self, world: World) -> None:
        job, _ = world.get_or_submit()
        world.emulator.fault("status", "error", status=503, times=None)
        poll = world.polled(job)
        assert (poll.outcome, poll.consecutive_errors) == (Outcome.PENDING, 1)
        assert world.emulator.stats().calls["status"] == 1

    @pytest.mark.parametrize("kind", ["failed", "blocked"])
    def test_failed_request_is_not_charged(self, world: World, kind: str) -> None:
        world.emulator.fault("job", kind)
        job, _ = world.get_or_submit()
        world.pass_time(DONE_SECONDS)
        failure = world.polled(job).failure()
        assert failure.charged is False
        assert "It was not charged" in failure.advice
        assert world.emulator.stats().charged_usd == 0.0

    def test_late_validation_is_a_refused_parameter(self, world: World) -> None:
        world.emulator.fault("job", "invalid")
        job, _ = world.get_or_submit()
        world.emulator.advance(0.5)
        poll = world.polled(job)
        assert poll.outcome is Outcome.FAILED
        assert "the model refused its parameters: style_type" in poll.failure().reason


class TestStore:
    def test_image_is_stored_with_its_cost(self, world: World) -> None:
        record = _stored(world, *_completed(world))

        assert (record.cost_usd, record.original_cost_usd, record.cost_is_estimate) == (0.05, 0.05, False)
        assert record.inference_seconds == JOB_SECONDS
        reused = world.find_image(owner="another/task/0/-1")
        assert (reused.cost_usd, reused.original_cost_usd, reused.reused) == (0.0, 0.05, True)

    @pytest.mark.parametrize("price", [0.0421, 0.111, 0.0])
    def test_cost_is_what_the_vendor_charged(self, world: World, price: float) -> None:
        world.emulator.configure(price=price)
        record = _stored(world, *_completed(world))
        assert record.cost_usd == world.emulator.stats().charged_usd == price
        assert record.cost_is_estimate is False

    def test_unknown_cost_is_estimated(self, world: World) -> None:
        job, poll = _completed(world)
        poll.cost_usd = None
        result = GenerationResult(world.hook.get_result(job.request_id).image)
        with mock.patch.object(world.hook, "get_result", return_value=result):
            record = _stored(world, job, poll)
        assert (record.cost_usd, record.cost_is_estimate) == (0.05, True)

    @pytest.mark.parametrize("age", [HOUR + 60, 6 * DAY], ids=["61 min", "6 d"])
    def test_image_is_fetched_after_the_hour(self, world: World, age: float) -> None:
        job, poll = _completed(world, age)

        record = _stored(world, job, poll)

        assert (record.request_id, record.cost_usd, world.submits()) == (job.request_id, 0.05, 1)
        assert "result" not in world.emulator.stats().calls

    def test_images_are_stored_between_61_minutes_and_6_days(self, world: World) -> None:
        jobs = []
        for number in range(10):
            world.target = Target(world.bucket, f"images/{number}.png")
            jobs.append(world.get_or_submit()[0])
        world.pass_time(HOUR + 60)
        step = (6 * DAY - HOUR - 60) / len(jobs)

        costs = []
        for number, job in enumerate(jobs):
            world.target = Target(world.bucket, f"images/{number}.png")
            reattached, poll = world.get_or_submit()
            assert reattached.request_id == job.request_id
            costs.append(fetch_and_store(world.hook, world.store, reattached, poll).cost_usd)
            world.pass_time(step)

        assert (world.submits(), costs) == (10, [0.05] * 10)
        assert world.emulator.stats().charged_usd == pytest.approx(0.5, abs=1e-4)
        stored = world.client.list_objects_v2(Bucket=world.bucket, Prefix="images/")["Contents"]
        assert len(stored) == 10

    def test_hour_that_ends_between_status_and_result(self, world: World) -> None:
        job, poll = _completed(world, HOUR - 1)
        world.pass_time(2)
        assert _stored(world, job, poll).cost_usd == 0.05

    def test_metrics_count_the_true_cost(self, world: World) -> None:
        world.emulator.configure(price=0.0235)
        with mock.patch("airflow_provider_ideogram.metrics.Stats") as stats:
            _stored(world, *_completed(world))
        assert mock.call.incr("ideogram.cost_micros", 23_500, tags={"model": ASKED.model}) in stats.mock_calls
        [(gauge,)] = [call.args[1:] for call in stats.gauge.mock_calls]
        assert gauge == pytest.approx(999.9765)


class TestNotStored:
    def test_file_older_than_seven_days_is_gone(self, world: World) -> None:
        job, poll = _completed(world, 8 * DAY)

        with pytest.raises(IdeogramResultExpired) as caught:
            fetch_and_store(world.hook, world.store, job, poll)

        assert poll.outcome is Outcome.EXPIRED
        assert poll.is_terminal_failure
        assert isinstance(caught.value.__cause__, IdeogramImageGone)

    @pytest.mark.parametrize("status", [404, 410])
    def test_file_gone_after_the_hour_is_expired(self, world: World, status: int) -> None:
        job, poll = _completed(world, DAY)
        world.emulator.fault("image", "error", status=status, times=None)
        with pytest.raises(IdeogramResultExpired):
            fetch_and_store(world.hook, world.store, job, poll)
        assert poll.outcome is Outcome.EXPIRED

    @pytest.mark.parametrize(("age", "status"), [(DAY, 403), (DONE_SECONDS, 404), (DONE_SECONDS, 403)])
    def test_file_that_a_proxy_or_lag_hides_is_tried_again(self, world: World, age: float, status: int) -> None:
        job, poll = _completed(world, age)
        world.emulator.fault("image", "error", status=status, times=None)

        with pytest.raises(IdeogramServerUnavailable) as caught:
            fetch_and_store(world.hook, world.store, job, poll)

        assert caught.value.charged is True
        assert poll.outcome is Outcome.COMPLETED
        world.emulator.clear_faults()
        assert _stored(world, job, poll).request_id == job.request_id

    def test_result_missing_within_the_hour_is_tried_again(self, world: World) -> None:
        job, poll = _completed(world)
        world.emulator.fault("result", "error", status=404, times=None)
        with pytest.raises(IdeogramServerUnavailable, match="is not there yet"):
            fetch_and_store(world.hook, world.store, job, poll)

    def test_result_without_history_row_is_no_proof(self, world: World) -> None:
        world.emulator.configure(history_lag_seconds=DAY)
        job, poll = _completed(world, HOUR - 1)
        world.pass_time(2)
        with pytest.raises(IdeogramJobUnreachable, match="rows may be late"):
            fetch_and_store(world.hook, world.store, job, poll)

    def test_completed_request_pending_in_the_history_is_tried_again(self, world: World) -> None:
        job, poll = _completed(world, HOUR - 1)
        row = world.hook.find_in_history(job.request_id)
        assert row is not None
        pending = replace(row, state="PENDING", image_url=None)
        world.pass_time(2)
        with (
            mock.patch.object(world.hook, "find_in_history", return_value=pending),
            pytest.raises(IdeogramServerUnavailable, match="does not show the image of request"),
        ):
            fetch_and_store(world.hook, world.store, job, poll)

    @pytest.mark.parametrize("status", [401, 403])
    def test_refused_key_does_not_lose_the_request(self, world: World, status: int) -> None:
        job, poll = _completed(world)
        world.emulator.fault("result", "error", status=status, times=None)
        with pytest.raises(IdeogramJobUnreachable) as caught:
            fetch_and_store(world.hook, world.store, job, poll)
        assert caught.value.request_id == job.request_id

    def test_response_that_is_no_image_is_charged(self, world: World) -> None:
        job, poll = _completed(world)
        world.emulator.fault("image", "not_image", times=None)
        with pytest.raises(IdeogramInvalidImage) as caught:
            fetch_and_store(world.hook, world.store, job, poll)
        assert (caught.value.charged, caught.value.request_id) == (True, job.request_id)
        assert job.request_id in caught.value.reason

    def test_refused_upload_says_that_the_image_is_paid(self, world: World) -> None:
        job, poll = _completed(world)
        with (
            answered(world.client, "PutObject", 403),
            pytest.raises(IdeogramStorageError, match=f"{job.request_id} is completed and paid"),
        ):
            fetch_and_store(world.hook, world.store, job, poll)
        assert time.time() == poll.completed_at
