"""Datasets within the account's rate limit and budgets."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from airflow_provider_ideogram.account import account as accounts
from airflow_provider_ideogram.account.limiter import AccountLimiter
from airflow_provider_ideogram.account.store import AccountContended, AccountStore
from airflow_provider_ideogram.account.trigger import IdeogramRequestsOrTurnTrigger
from airflow_provider_ideogram.account.turns import Turn
from airflow_provider_ideogram.api.polling import RequestPoll
from airflow_provider_ideogram.datasets import submitting
from airflow_provider_ideogram.storage.objects import ObjectStore
from tests.integration.datasets.results import ROWS, Make, assert_results_agree
from tests.support.account import Account, Objects, account, account_objects, totals
from tests.support.s3 import answered_for, conditions_ignored_by_all
from tests.support.world import DAY, MINUTE, assert_error

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRun, TaskRunner
    from tests.support.world import World

__all__ = ["account", "account_objects"]
PRICE = 0.05


@pytest.fixture
def shared(account: Account, world: World) -> Account:
    """Set limits and budgets that are kept beside the ledger's prefix."""
    return lambda **extra: account(account_url=world.uri("shared/"), **extra)


def is_called(world: World, trigger: Any) -> bool:
    """Return whether a trigger waits for nothing but its requests, or its turn has come."""
    turn = Turn.from_json(getattr(trigger, "turn", None))
    if turn is None:
        return True
    state = AccountStore(ObjectStore(world.s3), turn.bucket).read(turn.key, AccountLimiter.from_json)
    assert state is not None
    state.advance(time.time())
    return state.turns.is_called(turn.ticket)


def work(world: World, runs: list[TaskRun]) -> None:
    """Let time pass until the first of some runs has ended; each resumes when its turn or its requests are due."""
    while all(run.state == "deferred" for run in runs):
        world.pass_time(2.0)
        for run in runs:
            trigger = run.trigger()
            if getattr(trigger, "requests", None) or is_called(world, trigger):
                run.resume(run.fire())


class TestRateLimit:
    def test_runs_share_the_limit_without_a_429(
        self, shared: Account, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        shared(requests_per_minute=60)
        world.emulator.configure(rate_limit=60)
        runs = []
        for name in ("a", "b"):
            rows = [{"id": f"{name}{number}", "prompt": f"{name} {number}"} for number in range(40)]
            runs.append(task_runner(make(prompts=rows, task_id=name, s3_prefix=world.uri(f"{name}/"))))
        for run in runs:
            run.execute()

        work(world, runs)

        assert world.emulator.stats().rate_limited == 0
        done = [run.xcoms["progress"]["done"] + run.xcoms["progress"]["in_flight"] for run in runs]
        assert max(done) == 40
        assert min(done) >= sum(done) / 4  # half of its fair share

    @pytest.mark.parametrize("method", ["take_slots", "reserve"])
    def test_contention_ends_the_slice_and_nothing_fails(
        self, method: str, shared: Account, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        shared(requests_per_minute=600)
        run = task_runner(make())
        with mock.patch.object(accounts.Account, method, side_effect=AccountContended("It is busy", "Nothing.")):
            assert run.execute().state == "deferred"
        assert world.submits == 0
        world.pass_time(MINUTE)

        work(world, [run])

        assert run.xcom()["generated"] == len(ROWS)

    def test_slice_waits_for_its_turn_and_its_requests(
        self, shared: Account, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        shared(requests_per_minute=20)
        run = task_runner(make(prompts=[f"p {number}" for number in range(8)]))

        assert run.execute().state == "deferred"

        trigger = run.trigger()
        assert isinstance(trigger, IdeogramRequestsOrTurnTrigger)
        assert trigger.payload["turn"] == trigger.turn
        assert trigger.serialize()[1]["aws_conn_id"] == "aws_default"
        assert 0 < world.accepted == len(trigger.requests) < 8
        assert_results_agree(world, run, world.to_end(run, run.resume(run.fire())), total=8)
        assert world.emulator.stats().rate_limited == 0

    def test_slots_of_reused_images_are_given_back(
        self, shared: Account, account_objects: Objects, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        shared(requests_per_minute=60)
        run = task_runner(make())
        with mock.patch.object(submitting._BurstSubmitter, "_apply", side_effect=SystemExit):
            run.execute()
        taken = len(account_objects("limit")["rate"]["sent"])

        assert_results_agree(world, run, world.to_end(run, run.retry()))

        assert len(account_objects("limit")["rate"]["sent"]) == taken == world.submits + 1

    def test_s3_that_fails_stops_all_submits(
        self, shared: Account, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        shared(requests_per_minute=60)
        with answered_for("PutObject", "_account/"):
            result = task_runner(make()).execute()
        assert_error(result, "Nothing was charged")
        assert world.submits == 0

    def test_state_keeps_the_submits_of_the_last_minute_alone(
        self, shared: Account, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        shared(requests_per_minute=60)
        run = task_runner(make(max_in_flight=1))
        result, kept = run.execute(), []
        while result.state == "deferred":
            [key] = [key for key in world.object_keys("_ideogram/") if key.endswith("/state.json")]
            kept.append(len(json.loads(world.stored(key))["rate_limiter"]["sent"]))
            event = run.fire()
            world.pass_time(2 * MINUTE)
            result = run.resume(event)

        assert_results_agree(world, run, result)
        assert kept == [1] * len(ROWS)


class TestBudget:
    def test_costs_are_settled(
        self, shared: Account, account_objects: Objects, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        shared(max_cost_usd_per_day=1)
        world.emulator.fault("job", "failed", times=1)
        world.emulator.fault("submit", "error", status=400, times=1)
        run = task_runner(make(max_failures=5))

        world.to_end(run, run.execute())

        day = account_objects("20")
        assert (day["reservations"], totals(day)) == ({}, [[3, 150_000, 1, 0]])
        assert world.charged_usd == pytest.approx(3 * PRICE)

    def test_image_that_cost_nothing_is_settled_as_such(
        self, shared: Account, account_objects: Objects, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        shared(max_cost_usd_per_day=1)
        world.emulator.configure(price=0.0)
        run = task_runner(make())

        assert_results_agree(world, run, world.to_end(run, run.execute()))

        assert totals(account_objects("20")) == [[5, 0, 0, 0]]

    def test_list_price_is_not_settled_as_a_charge(
        self,
        shared: Account,
        account_objects: Objects,
        make: Make,
        task_runner: TaskRunner,
        world: World,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        shared(max_cost_usd_per_day=1)
        monkeypatch.setattr(RequestPoll, "cost_usd", property(lambda _: None, lambda *_: None))
        run = task_runner(make())

        assert world.to_end(run, run.execute()).state == "success"

        assert run.xcom()["cost_is_estimate"]
        assert totals(account_objects("20")) == [[0, 250_000, 0, 5]]

    def test_run_stops_at_the_cap_with_what_it_has(
        self, shared: Account, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        shared(max_cost_usd_per_day=0.12)
        run = task_runner(make())

        result = world.to_end(run, run.execute())

        parts = ("AirflowFailException", "max_cost_usd_per_day", "2 of 5 items are decided", "0.10 USD were charged")
        assert_error(result, *parts)
        assert run.xcoms["failure"]["reason"] == "dataset_stopped"
        assert world.charged_usd == pytest.approx(2 * PRICE)
        shared(max_cost_usd_per_day=1)
        assert_results_agree(world, run, world.to_end(run, run.clear()))

    def test_run_waits_until_the_window_ends(
        self, shared: Account, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        shared(max_cost_usd_per_dag_and_day=0.12)
        run = task_runner(make(on_budget="wait"))
        start = world.clock()

        assert_results_agree(world, run, world.to_end(run, run.execute()))

        midnights = world.clock() // DAY - start // DAY
        assert midnights == 2

    def test_slice_that_died_is_settled_where_it_reserved(
        self, shared: Account, account_objects: Objects, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        shared(max_cost_usd_per_day=5 * PRICE)
        run = task_runner(make())
        with mock.patch.object(submitting._BurstSubmitter, "_apply", side_effect=SystemExit):
            run.execute()
        date = datetime.fromtimestamp(world.clock(), UTC).date().isoformat()
        assert len(account_objects(date)["reservations"]) == world.accepted == 5
        world.pass_time(DAY)

        assert_results_agree(world, run, world.to_end(run, run.retry()))

        day = account_objects(date)
        assert (day["reservations"], totals(day), world.accepted) == ({}, [[5, 250_000, 0, 0]], 5)

    def test_request_of_a_killed_slice_is_reattached_at_the_cap(
        self, shared: Account, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        shared(max_cost_usd_per_day=4 * PRICE)
        run = task_runner(make())
        with mock.patch.object(submitting._BurstSubmitter, "_apply", side_effect=SystemExit):
            run.execute()
        assert world.accepted == 4

        result = world.to_end(run, run.retry())

        assert_error(result, "4 of 5 items are decided")
        assert world.accepted == 4

    def test_state_of_another_form_is_an_error(
        self, shared: Account, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        shared(max_cost_usd_per_day=1)
        today = datetime.fromtimestamp(world.clock(), UTC).date().isoformat()
        key = f"shared/_account/ideogram_default/{today}-1.json"
        world.put(key, b'{"version": 1, "date": "2026-11-26"}')

        result = task_runner(make()).execute()

        assert_error(result, key, "can't be understood", "Nothing was charged by this attempt", "Restore")
        assert world.submits == 0


class TestStoreWithoutConditions:
    def test_budget_is_an_error(self, shared: Account, make: Make, task_runner: TaskRunner, world: World) -> None:
        shared(max_cost_usd_per_day=1)
        with conditions_ignored_by_all():
            result = task_runner(make()).execute()
        assert_error(result, "no conditional writes")
        assert world.submits == 0

    def test_limit_is_kept_by_the_run(self, shared: Account, make: Make, task_runner: TaskRunner, world: World) -> None:
        shared(requests_per_minute=6)
        world.emulator.configure(rate_limit=6)
        run = task_runner(make(prompts=ROWS[:2]))
        with conditions_ignored_by_all():
            result = world.to_end(run, run.execute())
            assert_results_agree(world, run, result, total=2)
        assert world.emulator.stats().rate_limited == 0
        assert run.log_text.count("each task keeps the rate limit by itself") == 1
