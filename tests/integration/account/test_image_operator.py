"""The image operator within the account's rate limit and budgets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from airflow_provider_ideogram.account import admission
from airflow_provider_ideogram.account.store import AccountContended, AccountStore
from airflow_provider_ideogram.account.trigger import IdeogramTurnTrigger
from airflow_provider_ideogram.decorators.ideogram import ideogram_task
from tests.support.account import Account, Objects, totals
from tests.support.s3 import answered_for
from tests.support.world import DAY, MINUTE, assert_error, assert_succeeded

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRunner
    from tests.support.world import ImageTask, World

PRICE = 0.05


@pytest.fixture(autouse=True)
def _no_slots_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test sleep for a slot."""
    monkeypatch.setattr(admission, "PACE_SECONDS", 0.0)
    monkeypatch.setattr("airflow_provider_ideogram.account.limiter.PACE_SECONDS", 0.0)


class TestRateLimit:
    def test_task_waits_for_its_turn_and_submits_once(
        self, account: Account, image_task: ImageTask, world: World
    ) -> None:
        account(requests_per_minute=1)
        assert_succeeded(world.run(image_task("first", s3_key="first.png")))
        run = image_task("second", s3_key="second.png")

        assert run.execute().state == "deferred"
        trigger = run.trigger()
        assert isinstance(trigger, IdeogramTurnTrigger)
        assert world.submits == 1
        world.pass_time(MINUTE + 5)
        result = run.resume(run.fire())

        assert_succeeded(world.to_end(run, result))
        assert world.submits == world.accepted == 2

    def test_429_is_learned_by_all(self, account: Account, image_task: ImageTask, world: World) -> None:
        account(requests_per_minute=600)
        world.emulator.fault("submit", "error", status=429, retry_after="40")
        assert image_task("first", s3_key="first.png").execute().state == "deferred"
        world.pass_time(5)

        second = image_task("second", s3_key="second.png")

        assert second.execute().state == "deferred"
        assert isinstance(second.trigger(), IdeogramTurnTrigger)
        assert world.submits == 1

    def test_request_that_exists_needs_no_slot(self, account: Account, image_task: ImageTask, world: World) -> None:
        account(requests_per_minute=10)
        first = image_task("first")
        assert first.execute().state == "deferred"

        retried = image_task("first")

        assert_succeeded(world.run(retried))
        assert world.submits == 1

    @pytest.mark.parametrize("operation", ["GetObject", "PutObject"])
    def test_s3_that_fails_stops_the_submit(
        self, operation: str, account: Account, image_task: ImageTask, world: World
    ) -> None:
        account(requests_per_minute=10)
        run = image_task()
        with answered_for(operation, "_account/"):
            result = run.execute()
        assert_error(result, "Nothing was charged")
        assert world.submits == 0

    def test_contention_defers_instead_of_holding_the_worker(
        self, account: Account, image_task: ImageTask, world: World
    ) -> None:
        account(requests_per_minute=10)
        run = image_task()
        with mock.patch.object(AccountStore, "update", side_effect=AccountContended("It is busy", "Nothing.")):
            assert run.execute().state == "deferred"
        assert world.submits == 0
        world.pass_time(MINUTE)
        assert_succeeded(world.to_end(run, run.resume(run.fire())))
        assert world.submits == 1


class TestBudget:
    def test_cost_of_an_image_is_settled(
        self, account: Account, account_objects: Objects, image_task: ImageTask, world: World
    ) -> None:
        account(max_cost_usd_per_day=1)
        run = image_task()
        assert run.execute().state == "deferred"
        assert len(account_objects("20")["reservations"]) == 1

        assert_succeeded(world.to_end(run, run.resume(run.fire())))

        day = account_objects("20")
        assert day["reservations"] == {}
        assert totals(day) == [[1, 50_000, 0, 0]]

    def test_cap_fails_without_a_retry(self, account: Account, image_task: ImageTask, world: World) -> None:
        account(max_cost_usd_per_day=PRICE)
        assert_succeeded(world.run(image_task("first", s3_key="first.png")))
        run = image_task("second", s3_key="second.png", retries=3)

        result = run.execute()

        assert_error(result, "AirflowFailException", "max_cost_usd_per_day", "0.05 USD are spent", "UTC")
        assert run.xcoms["failure"]["reason"] == "budget_reached"
        assert world.submits == 1

    def test_decorated_task_keeps_the_cap(self, account: Account, task_runner: TaskRunner, world: World) -> None:
        account(max_cost_usd_per_day=PRICE / 2)
        decorated = ideogram_task(task_id="decorated", s3_key=world.uri("decorated.png"))(lambda: "a lighthouse")
        task: Any = decorated()
        run = task_runner(task.operator)

        assert_error(run.execute(), "AirflowFailException", "max_cost_usd_per_day")
        assert world.submits == 0

    def test_budget_after_an_unknown_submit_says_so(
        self, account: Account, image_task: ImageTask, world: World
    ) -> None:
        account(max_cost_usd_per_day=PRICE, history_url=None)
        world.emulator.fault("submit", "reset", when="after")

        result = world.run(image_task(on_unknown_submit="resubmit"))

        assert_error(result, "max_cost_usd_per_day", "may have been accepted, and is charged if it completes")
        assert world.submits == 1

    def test_waits_until_the_window_ends(self, account: Account, image_task: ImageTask, world: World) -> None:
        account(max_cost_usd_per_day=PRICE)
        assert_succeeded(world.run(image_task("first", s3_key="first.png")))
        run = image_task("second", s3_key="second.png", on_budget="wait")

        assert run.execute().state == "deferred"
        assert run.deferral is not None
        now = datetime.fromtimestamp(world.clock(), UTC)
        midnight = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
        deadline = run.deferral["trigger_kwargs"]["deadline"]
        assert midnight.timestamp() <= deadline <= midnight.timestamp() + MINUTE
        world.pass_time(deadline - world.clock())

        assert_succeeded(world.to_end(run, run.resume(run.fire())))
        assert world.accepted == 2

    @pytest.mark.parametrize("status", [400, 429])
    def test_refused_submit_gives_its_amount_back(
        self, status: int, account: Account, account_objects: Objects, image_task: ImageTask, world: World
    ) -> None:
        account(max_cost_usd_per_day=PRICE)
        world.emulator.fault("submit", "error", status=status)
        image_task("first", s3_key="first.png").execute()

        day = account_objects("20")
        assert (day["reservations"], day["totals"]) == ({}, [])

    def test_failed_request_costs_nothing(
        self, account: Account, account_objects: Objects, image_task: ImageTask, world: World
    ) -> None:
        account(max_cost_usd_per_day=PRICE)
        world.emulator.fault("job", "failed")
        assert_error(world.run(image_task("first", s3_key="first.png")), "failed at the vendor")
        assert totals(account_objects("20")) == [[0, 0, 1, 0]]

        assert_succeeded(world.run(image_task("second", s3_key="second.png")))

    def test_unknown_submit_stays_reserved(
        self, account: Account, account_objects: Objects, image_task: ImageTask, world: World
    ) -> None:
        account(max_cost_usd_per_day=PRICE)
        world.emulator.fault("submit", "reset", when="after")
        image_task("first", s3_key="first.png").execute()
        world.pass_time(MINUTE)

        assert_error(image_task("second", s3_key="second.png").execute(), "max_cost_usd_per_day")
        assert len(account_objects("20")["reservations"]) == 1

    def test_submit_after_an_unknown_one_counts_both(
        self, account: Account, account_objects: Objects, image_task: ImageTask, world: World
    ) -> None:
        account(max_cost_usd_per_day=1, history_url=None)
        world.emulator.fault("submit", "reset", when="after")

        assert_succeeded(world.run(image_task(on_unknown_submit="resubmit")))

        day = account_objects("20")
        assert (day["reservations"], totals(day)) == ({}, [[1, 100_000, 0, 1]])
        assert world.charged_usd == pytest.approx(2 * PRICE)

    def test_reattached_on_the_next_day_is_settled_where_it_was(
        self, account: Account, account_objects: Objects, image_task: ImageTask, world: World
    ) -> None:
        account(max_cost_usd_per_day=1)
        first = image_task("first")
        assert first.execute().state == "deferred"
        date = datetime.fromtimestamp(world.clock(), UTC).date().isoformat()
        world.pass_time(DAY)

        assert_succeeded(world.run(image_task("first")))

        assert totals(account_objects(date)) == [[1, 50_000, 0, 0]]
        assert world.submits == 1


class TestBrokenState:
    @pytest.mark.parametrize("name", ["limit-1of1", "{today}-1"])
    @pytest.mark.parametrize("body", [b"{}", b"null", b'{"version": 1}', b'{"version": 1, "rate": 5, "turns": []}'])
    def test_state_of_another_form_stops_the_submit(
        self, name: str, body: bytes, account: Account, image_task: ImageTask, world: World
    ) -> None:
        account(max_cost_usd_per_day=1)
        today = datetime.fromtimestamp(world.clock(), UTC).date().isoformat()
        key = f"_ideogram/_account/ideogram_default/{name.format(today=today)}.json"
        world.put(key, body)

        assert_error(image_task().execute(), key, "can't be understood", "Nothing was charged by this attempt")

        assert world.submits == 0

    def test_stored_image_survives_a_broken_day(
        self, account: Account, account_objects: Objects, image_task: ImageTask, world: World
    ) -> None:
        account(max_cost_usd_per_day=1)
        run = image_task()
        assert run.execute().state == "deferred"
        today = account_objects("20")["date"]
        world.put(f"_ideogram/_account/ideogram_default/{today}-1.json", b"{}")

        result = world.to_end(run, run.resume(run.fire()))

        assert_succeeded(result)
        assert "stays reserved in the budget" in run.log_text
        assert world.object_keys("_ideogram/images/")  # the record, by which a later attempt settles the cost
