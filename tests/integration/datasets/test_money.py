"""The cost of a dataset: budgets, true costs, and what a failed submit or request costs."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest import mock

import pytest

from airflow_provider_ideogram.datasets import submitting
from tests.integration.datasets.results import ROWS, Make, assert_results_agree, json_lines, manifest
from tests.support.world import DAY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.task_runner import TaskRunner
    from tests.support.world import World

MODELS = ("ideogram-2a-txt-2-img", "ideogram-txt-2-img", "ideogram-turbo-txt-2-img")
NEW_MODEL, NEW_PRICE = "brand-new", 0.07


def test_estimate_above_the_budget_fails_before_any_submit(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(max_cost_usd=0.2))

    assert "5 images would cost about 0.25 USD, and 0.20 may be spent" in str(run.execute().error)

    assert (world.accepted, world.object_keys("_ideogram/")) == (0, [])


def test_failed_requests_take_nothing_from_the_budget(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("job", "failed", times=1)
    run = task_runner(make(max_cost_usd=0.25, max_in_flight=1))
    assert world.to_end(run, run.execute()).state == "up_for_retry"

    xcom = assert_results_agree(world, run, world.to_end(run, run.retry()))

    assert (xcom["cost_usd"], world.accepted) == (0.25, 6)


def test_budget_stops_a_run_that_costs_more_than_estimated(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.configure(price=0.08)
    run = task_runner(make(max_cost_usd=0.25, max_in_flight=1))

    result = world.to_end(run, run.execute())

    assert result.state == "failed"
    assert "max_cost_usd=0.25 is reached with 3 of 5 items decided. 0.24 USD were charged" in str(result.error)
    assert world.charged_usd == pytest.approx(0.24)


@pytest.mark.parametrize("is_changed", [False, True], ids=["same input", "changed input"])
def test_budget_counts_the_submits_of_a_slice_that_died(
    is_changed: bool, make: Make, task_runner: TaskRunner, world: World
) -> None:
    path = world.put("rows.jsonl", json_lines(ROWS))
    run = task_runner(make(prompts_path=path, max_cost_usd=0.25))
    with mock.patch.object(submitting._BurstSubmitter, "_apply", side_effect=SystemExit):
        run.execute()
    assert world.accepted == 5
    if is_changed:
        world.put("rows.jsonl", json_lines([row | {"prompt": f"{row['prompt']}, by night"} for row in ROWS]))

    result = world.to_end(run, run.retry())

    assert (result.state, world.accepted) == ("failed" if is_changed else "success", 5)
    assert ("max_cost_usd=0.25 is reached" in str(result.error)) is is_changed


def test_request_that_timed_out_is_reattached_at_the_budgets_end(
    make: Make, task_runner: TaskRunner, world: World
) -> None:
    world.emulator.fault("job", "job_seconds", seconds=900.0, prompt="number 0")
    run = task_runner(make(prompts=ROWS[:2], max_cost_usd=0.1))
    result = run.execute()
    while result.state == "deferred":
        world.pass_time(601)
        result = run.resume(run.fire())
    assert result.state == "up_for_retry"
    world.pass_time(600)

    xcom = assert_results_agree(world, run, world.to_end(run, run.retry()), total=2)

    assert (world.accepted, xcom["cost_usd"]) == (2, 0.1)


def test_first_image_shows_the_unknown_price_of_a_model(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.configure(prices={NEW_MODEL: NEW_PRICE})
    run = task_runner(make(model=NEW_MODEL, max_cost_usd=0.25))
    assert run.execute().state == "deferred"
    assert world.accepted == 1

    result = world.to_end(run, run.resume(run.fire()))

    assert result.state == "failed"
    assert world.charged_usd == pytest.approx(3 * NEW_PRICE)


def test_unknown_price_of_an_unknown_submit_is_named(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.configure(prices={NEW_MODEL: NEW_PRICE}, history_lag_seconds=DAY)
    world.emulator.fault("submit", "reset", when="after")
    run = task_runner(make(model=NEW_MODEL, max_cost_usd=0.5))

    result = world.to_end(run, run.execute())

    assert result.state == "failed"
    assert f"The cost of an image of {NEW_MODEL} is unknown" in str(result.error)
    assert "Clear the task with price_usd to continue" in str(result.error)
    assert run.xcom("failure")["charged"] is None
    world.emulator.configure(history_lag_seconds=0.0)
    run.operator.price_usd = NEW_PRICE
    assert_results_agree(world, run, world.to_end(run, run.clear()))
    assert world.accepted == 5


def test_price_usd_is_the_estimate_of_an_unknown_price(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.configure(prices={NEW_MODEL: NEW_PRICE})
    run = task_runner(make(model=NEW_MODEL, max_cost_usd=0.36, price_usd=NEW_PRICE))
    assert run.execute().state == "deferred"
    assert world.accepted == 5

    xcom = assert_results_agree(world, run, world.to_end(run, run.resume(run.fire())))

    assert xcom["cost_usd"] == pytest.approx(5 * NEW_PRICE)


def test_cost_is_the_sum_of_what_each_model_charged(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.configure(prices={"ideogram-txt-2-img": 0.123})
    rows = [{"id": model, "prompt": "a cat", "model": model} for model in MODELS]
    run = task_runner(make(prompts=[*rows, "a dog [[fault:failed]]"], max_failures=1))

    assert world.to_end(run, run.execute()).state == "success"

    costs = [line["cost_usd"] for line in manifest(world)]
    assert costs == pytest.approx([0.05, 0.123, 0.063, 0.0])
    assert run.xcom()["cost_usd"] == pytest.approx(sum(costs), abs=0.0001)
    assert run.xcom()["cost_usd"] == pytest.approx(world.charged_usd, abs=0.0001)
    assert run.xcom()["cost_is_estimate"] is False


def test_reused_images_keep_their_original_cost(make: Make, task_runner: TaskRunner, world: World) -> None:
    first = task_runner(make())
    world.to_end(first, first.execute())

    second = task_runner(make(), run_id="second")
    xcom = assert_results_agree(world, second, world.to_end(second, second.execute()))

    assert (xcom["reused"], xcom["cost_usd"], xcom["original_cost_usd"]) == (5, 0.0, 0.25)
    assert {(line["cost_usd"], line["original_cost_usd"]) for line in manifest(world)} == {(0.0, 0.05)}
    progress = second.xcom("progress")
    assert (progress["cost_usd"], progress["original_cost_usd"]) == (0.0, 0.25)


def test_image_that_can_not_be_stored_is_counted_once(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("image", "not_image", times=8)
    run = task_runner(make(prompts=ROWS[:1], max_failures=1, if_exists="overwrite"))
    assert world.to_end(run, run.execute()).state == "success"
    assert (run.xcom()["failed"], run.xcom()["cost_usd"]) == (1, 0.05)
    world.emulator.clear_faults()

    world.to_end(run, run.clear())

    assert (run.xcom()["generated"], run.xcom()["cost_usd"], world.accepted) == (1, 0.05, 1)


def test_submits_answered_502_are_repeated_and_paid_once(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("submit", "error", status=502, times=3)
    world.emulator.fault("submit", "error", status=502, when="after", times=2)
    rows = [f"p {number}" for number in range(10)]
    run = task_runner(make(prompts=rows, max_cost_usd=0.5))

    xcom = assert_results_agree(world, run, world.to_end(run, run.execute()), total=10)

    assert (xcom["generated"], world.accepted) == (10, 10)


def test_submit_answered_502_waits_for_a_person(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("submit", "error", status=502)
    run = task_runner(make(prompts=ROWS[:1], resubmit_on_5xx=False))

    result = world.to_end(run, run.execute())

    assert result.state == "up_for_retry"
    assert "was answered by an error of the server" in manifest(world)[0]["error"]
    assert manifest(world)[0]["cost_usd"] is None
    world.pass_time(200)
    assert world.to_end(run, run.retry()).state == "up_for_retry"
    assert world.accepted == 0
    assert_results_agree(world, run, world.to_end(run, run.clear()), total=1)


@pytest.mark.parametrize(("limit", "accepted", "said"), [(0.25, 5, "is reached with 4 of 5 items"), (0.3, 6, "None")])
def test_second_request_after_an_unknown_submit_is_counted(
    limit: float, accepted: int, said: str, make: Make, task_runner: TaskRunner, world: World
) -> None:
    world.emulator.configure(history_lag_seconds=DAY)
    world.emulator.fault("submit", "reset", when="after", times=1)
    run = task_runner(make(max_cost_usd=limit, max_in_flight=1, on_unknown_submit="resubmit"))

    result = world.to_end(run, run.execute())

    assert said in str(result.error)
    assert world.accepted == accepted


@pytest.mark.parametrize("durable", [True, False])
def test_refusal_of_a_submit_says_what_the_run_was_charged(
    durable: bool, make: Make, task_runner: TaskRunner, world: World
) -> None:
    world.emulator.fault("job", "job_seconds", seconds=900.0, prompt="number 0")
    run = task_runner(make(max_in_flight=2, durable=durable))
    run.execute()
    world.emulator.fault("submit", "credits_402", times=None)

    result = run.resume(run.fire())

    failure = run.xcom("failure")
    assert (result.state, failure["reason"], failure["charged"]) == ("failed", "insufficient_credits", True)
    assert "Nothing was charged" not in str(result.error)
    assert "0.05 USD were charged; 1 more requests were or may be charged. Add credits at Segmind." in str(result.error)
    assert ("it goes on with the running requests" in str(result.error)) is durable
    world.emulator.clear_faults()
    world.pass_time(900)
    assert_results_agree(world, run, world.to_end(run, run.clear()))


def _with_a_bad_row(world: World) -> None:
    world.put("rows.jsonl", json_lines([*ROWS, {"id": "bad", "prompt": ""}, {"id": "worse", "prompt": ""}]))


def _without_a_file(world: World) -> None:
    world.s3.delete_object(Bucket=world.bucket, Key="rows.jsonl")


@pytest.mark.parametrize(
    ("spoil", "reason"), [(_with_a_bad_row, "2 of 7 rows can't be used"), (_without_a_file, "does not exist")]
)
def test_refused_input_of_a_retry_says_what_the_run_cost(
    spoil: Callable[[World], None], reason: str, make: Make, task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(make(prompts_path=world.put("rows.jsonl", json_lines(ROWS)), max_in_flight=2))
    run.execute()
    spoil(world)

    result = run.retry()

    assert (result.state, run.xcom("failure")["charged"]) == ("failed", None)
    assert reason in str(result.error)
    assert "2 more requests were or may be charged. Clear the task when the cause is gone" in str(result.error)
    assert "Nothing was" not in str(result.error)
    world.put("rows.jsonl", json_lines(ROWS))
    assert_results_agree(world, run, world.to_end(run, run.clear()))
