"""A review of a dataset's images: what people decide is the result, whatever ends the task in between."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import Asset

from airflow_provider_ideogram.operators.review import IdeogramReviewOperator
from airflow_provider_ideogram.reviews import trigger
from airflow_provider_ideogram.reviews.review import Entry, Review
from airflow_provider_ideogram.reviews.store import ReviewStore
from airflow_provider_ideogram.storage.image_record import iso_utc
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target
from tests.integration.datasets.results import ROWS, Make, manifest
from tests.support.airflow_version import need_airflow

need_airflow("3.1", "pages of plugins as tabs in its UI")


if TYPE_CHECKING:
    from tests.support.task_runner import Slice, TaskRun, TaskRunner
    from tests.support.world import World


@pytest.fixture(autouse=True)
def _short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger, "POLL_SECONDS", 0.01)


@pytest.fixture
def dataset(make: Make, task_runner: TaskRunner, world: World) -> dict[str, Any]:
    """The result of a dataset, and its images."""
    run = task_runner(make())
    world.to_end(run, run.execute())
    result: dict[str, Any] = run.xcom()
    return result


def _review(dataset: Any, **arguments: Any) -> IdeogramReviewOperator:
    return IdeogramReviewOperator(**{"task_id": "review", "images": dataset, **arguments})


def _store(world: World, run: TaskRun) -> ReviewStore:
    uri = run.xcom("review")["uri"]
    prefix = Target.parse(uri.removesuffix("review.json"))
    return ReviewStore(ObjectStore(world.s3), prefix)


def _decide(world: World, run: TaskRun, **decisions: str | None) -> None:
    """Decide on images by the ids of their rows, and end the review."""
    images = {line["id"]: line["request_id"] for line in manifest(world)}
    now = iso_utc(time.time())
    entries = [
        Entry(images[row], said, "bluer" if said == "redo" else None, "alice", now) for row, said in decisions.items()
    ]

    def change(review: Review | None) -> Review:
        assert review is not None
        review.add(entries)
        review.finished_by = "alice"
        return review

    _store(world, run).update(change)


def _end(run: TaskRun) -> Slice:
    return run.resume(run.fire())


def test_result_is_what_people_approved(dataset: dict[str, Any], task_runner: TaskRunner, world: World) -> None:
    run = task_runner(_review(dataset, outlets=[Asset("approved")]))
    paid = world.accepted
    assert run.execute().state == "deferred"
    first, second, *_ = [row["id"] for row in ROWS]
    _decide(world, run, **{first: "approve", second: "reject"})

    assert _end(run).state == "success"

    lines = {line["id"]: line for line in manifest(world)}
    [approved] = run.xcom()
    assert approved == {name: lines[first][name] for name in approved}
    assert run.xcom("review")["undecided"] == len(ROWS) - 2
    [event] = run.asset_events
    assert [(one["decision"], one["by"]) for one in event["decisions"]] == [("approve", "alice"), ("reject", "alice")]
    assert event["review_uri"] == run.xcom("review")["uri"]
    assert world.accepted == paid


def test_image_to_make_again_is_paid_once(
    dataset: dict[str, Any], make: Make, task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(_review(dataset))
    run.execute()
    first = ROWS[0]["id"]
    _decide(world, run, **{first: "redo"})
    _end(run)
    [row] = run.xcom("redo")
    old = {line["id"]: line for line in manifest(world)}[first]
    assert (row["prompt"], row["note"]) == (old["prompt"], "bluer")
    assert row["seed"] != old["seed"]

    paid = world.accepted
    for attempt in ("first", "cleared", "of another run"):
        again = task_runner(
            make(task_id="redo", prompts=run.xcom("redo"), s3_prefix=world.uri("redo/"), max_cost_usd=0.06),
            run_id=attempt,
        )
        assert world.to_end(again, again.execute()).state == "success"
        assert world.accepted == paid + 1

    new = task_runner(_review(again.xcom(), task_id="second_review"))
    new.execute()
    assert new.xcom("review")["undecided"] == 1


def test_too_few_approved_images_fail_without_a_retry(
    dataset: dict[str, Any], task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(_review(dataset, min_approved=2, retries=3))
    run.execute()
    _decide(world, run, **{ROWS[0]["id"]: "approve"})

    assert _end(run).state == "failed"

    assert run.xcom("failure")["reason"] == "not_approved"
    assert run.clear().state == "deferred"
    _decide(world, run, **{ROWS[1]["id"]: "approve"})
    assert _end(run).state == "success"
    assert len(run.xcom()) == 2


def test_retry_keeps_the_decisions_and_the_result(
    dataset: dict[str, Any], task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(_review([dataset, dataset], retries=3))
    run.execute()
    assert (run.xcom("review")["total"], run.xcom("review")["undecided"]) == (2 * len(ROWS), len(ROWS))
    _decide(world, run, **{ROWS[0]["id"]: "approve"})
    run.time_out()
    # The decisions have ended the review while no attempt was there.
    assert run.retry().state == "success"
    assert len(run.xcom()) == 2  # an image and its copy


def test_result_of_a_deleted_run_is_not_taken(dataset: dict[str, Any], task_runner: TaskRunner, world: World) -> None:
    run = task_runner(_review(dataset))
    run.execute()
    _decide(world, run, **{ROWS[0]["id"]: "approve"})
    assert _end(run).state == "success"

    def of_deleted(review: Review | None) -> Review:
        assert review is not None
        review.group = "of a run with the same id"
        return review

    _store(world, run).update(of_deleted)
    assert task_runner(_review(dataset)).execute().state == "deferred"


@pytest.mark.parametrize(("on_timeout", "state"), [("fail", "failed"), ("skip", "skipped"), ("continue", "success")])
def test_end_of_the_time(
    on_timeout: str, state: str, dataset: dict[str, Any], task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(_review(dataset, timeout=3600, on_timeout=on_timeout, retries=3))
    run.execute()
    event = {"bucket": (store := _store(world, run)).prefix.bucket, "prefix": store.prefix.key}
    assert run.resume(event).state == "deferred"  # the trigger has fired too early
    world.clock.advance(3601)

    assert run.resume(event).state == state

    assert run.xcom() == ([] if state == "success" else None)
    found = store.read()
    assert found is not None
    assert (found.closed_at is not None, found.timed_out) == (True, True)


def test_nothing_to_review_is_an_empty_result(task_runner: TaskRunner) -> None:
    run = task_runner(_review([]))
    assert (run.execute().state, run.xcom(), run.xcom("redo")) == ("success", [], [])
