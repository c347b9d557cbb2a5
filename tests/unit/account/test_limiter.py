"""The account's rate limit: kept in every minute, used up, fair, and cheap whatever the backlog."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_ideogram.account.limiter import PACE_SECONDS, AccountLimiter
from airflow_provider_ideogram.account.turns import MAX_FLOWS, Ticket
from tests.support.queueing import START, WINDOW, Queueing, Task


def limiter(rate: float = 60.0) -> AccountLimiter:
    """Make a limiter of a configured limit."""
    made = AccountLimiter()
    made.configure(rate, START)
    return made


def exhaust(account: AccountLimiter, now: float) -> list[Ticket]:
    """Ask until no slot is left; return the tickets of those who wait."""
    while isinstance(account.ask("other", now), list):
        pass
    return [ticket for _ in range(3) if isinstance(ticket := account.ask("other", now), Ticket)]


class TestAsking:
    def test_free_slot_is_given_at_once(self) -> None:
        assert limiter().ask("run", START) == [START]

    def test_slot_is_a_few_seconds_ahead_at_most(self) -> None:
        account = limiter()
        slots = [answer[0] for _ in range(50) if isinstance(answer := account.ask("run", START), list)]
        assert START < max(slots) <= START + PACE_SECONDS
        assert isinstance(account.ask("run", START), Ticket)

    def test_task_that_was_not_called_keeps_its_ticket(self) -> None:
        account = limiter()
        last = exhaust(account, START)[-1]
        assert account.ask("other", START, ticket=last) == last

    def test_ticket_of_a_forgotten_run_may_come(self) -> None:
        assert limiter().turns.is_called(Ticket("run", START, 5))

    def test_several_slots_are_given_within_a_share_of_the_limit(self) -> None:
        slots = limiter(1200).ask("run", START, submits=10_000)
        assert isinstance(slots, list)
        assert 100 <= len(slots) <= 300

    def test_batch_waits_until_its_slots_are_free(self) -> None:
        account = limiter()
        exhaust(account, START)
        ticket = account.ask("batch", START, submits=8)
        assert isinstance(ticket, Ticket)
        account.advance(START + 25)
        assert account.turns.is_called(ticket)
        slots = account.ask("batch", START + 25, submits=8, ticket=ticket)
        assert isinstance(slots, list)
        assert len(slots) == 8

    def test_waiting_task_comes_before_a_new_one(self) -> None:
        account = limiter()
        ticket = exhaust(account, START)[0]
        account.advance(START + 2)
        assert account.turns.is_called(ticket)
        assert isinstance(account.ask("new", START + 2), Ticket)
        assert isinstance(account.ask("other", START + 2, ticket=ticket), list)

    def test_unknown_limit_does_not_delay_single_images(self) -> None:
        account = limiter(0)
        assert [account.ask("run", START) for _ in range(500)] == [[START]] * 500


class TestCorrecting:
    def test_slot_without_a_submit_is_free_again(self) -> None:
        account = limiter(60)
        slots = account.ask("run", START, submits=3)
        assert isinstance(slots, list)
        tokens = account.rate.tokens
        account.correct([(slots[2], None)])
        assert (account.rate.sent, account.rate.tokens) == (slots[:2], tokens + 1)

    def test_late_submit_counts_from_when_it_was_sent(self) -> None:
        account = limiter(60)
        tokens = account.rate.tokens - 1
        assert account.ask("run", START) == [START]
        account.correct([(START, START + 8)])
        assert (account.rate.sent, account.rate.tokens) == ([START + 8], tokens)

    def test_submit_of_a_forgotten_slot_counts(self) -> None:
        account = limiter(60)
        account.correct([(START - 90, START), (START - 80, None)])
        assert account.rate.sent == [START]


class TestLimited:
    def test_nobody_submits_before_the_reset(self) -> None:
        account = limiter(60)
        exhaust(account, START)
        account.limited(START + 1, 30)
        ticket = account.ask("run", START + 2)
        assert isinstance(ticket, Ticket)
        account.advance(START + 20)
        assert not account.turns.is_called(ticket)
        account.advance(START + 40)
        assert account.turns.is_called(ticket)

    def test_rate_falls_once_for_all_responses_of_a_pause(self) -> None:
        account = limiter(100)
        for second in range(5):
            account.limited(START + second, 30)
        assert account.rate.rate == 50
        assert account.rate.blocked_until == START + 34

    def test_rate_recovers(self) -> None:
        account = limiter(100)
        account.limited(START, 30)
        account.ask("run", START + 3600)
        assert account.rate.rate == 100

    def test_new_setting_of_the_connection_applies(self) -> None:
        account = limiter(100)
        account.ask("run", START)
        account.configure(10, START + 1)
        assert account.rate.rate == 10
        assert account.rate.sent == [START]


class TestBacklog:
    @pytest.mark.slow
    def test_cost_of_an_image_is_constant(self) -> None:
        few, many = Queueing(50), Queueing(50)
        few.add("run", 200)
        many.add("run", 2000)
        few.run()
        many.run()
        assert few.mean_slices() <= 3.1
        assert many.mean_slices() <= 3.1
        assert max(many.slices.values()) <= 5
        assert many.most_in_a_window() <= 50
        assert max(many.submitted.values()) < 2000 / 50 * WINDOW * 1.03

    def test_two_slices_where_nothing_waits(self) -> None:
        queueing = Queueing(600)
        queueing.add("run", 100, spread=60)
        queueing.run()
        assert queueing.mean_slices() == 2

    def test_single_image_overtakes_a_backlog(self) -> None:
        queueing = Queueing(50)
        queueing.add("backfill", 3000)
        queueing.add("other", 1, start=600)
        queueing.run(until=900)
        assert queueing.submitted[Task("other", 0)] < 600 + 60 + 30

    def test_runs_share_the_limit_equally(self) -> None:
        queueing = Queueing(50)
        queueing.add("first", 500)
        for name in ("second", "third"):
            queueing.add(name, 500, start=60)
        queueing.run(until=660)
        counts = [
            sum(1 for task, at in queueing.submitted.items() if task.flow == name and 120 <= at < 660)
            for name in ("first", "second", "third")
        ]
        assert max(counts) - min(counts) < 0.1 * sum(counts) / 3

    @pytest.mark.parametrize(("kept", "used"), [(2, 0.9), (5, 0.85)])
    def test_limit_stays_used_when_waiting_tasks_disappear(self, kept: int, used: float) -> None:
        queueing = Queueing(50, gone=lambda task, at: at > 120 and task.number % kept != 0)
        queueing.add("run", 2000)
        queueing.run(until=420)
        assert queueing.submits_between(180, 420) > used * 4 * 50

    def test_limit_stays_used_when_a_run_disappears(self) -> None:
        queueing = Queueing(50, gone=lambda task, at: at > 120 and task.flow == "killed")
        queueing.add("killed", 1000)
        queueing.add("alive", 1000)
        queueing.run(until=600)
        assert queueing.submits_between(180, 600) > 0.9 * 7 * 50

    def test_limit_is_used_by_slow_workers(self) -> None:
        runs = [Queueing(50, latency=(20.0, 60.0), seed=seed) for seed in range(1, 4)]
        for queueing in runs:
            queueing.add("run", 600)
            queueing.run(until=660)
            assert queueing.submits_between(120, 660) > 0.9 * 9 * 50
        assert sum(queueing.mean_slices() for queueing in runs) / len(runs) <= 3.5

    def test_called_tasks_arrive_before_their_slots_pass(self) -> None:
        queueing = Queueing(50)
        queueing.add("run", 600)
        queueing.run(until=660)
        assert queueing.submits_between(120, 660) > 0.98 * 9 * 50

    def test_late_submits_keep_the_limit_of_the_server(self) -> None:
        queueing = Queueing(50, lateness=(0.0, 10.0))
        queueing.add("run", 600)
        queueing.run(until=660)
        assert queueing.most_in_a_window() <= 50
        assert queueing.submits_between(120, 660) > 0.85 * 9 * 50

    def test_thousand_a_minute(self) -> None:
        queueing = Queueing(1000)
        queueing.add("run", 3000)
        queueing.run()
        assert queueing.most_in_a_window() <= 1000
        assert max(queueing.submitted.values()) < 3 * WINDOW * 1.05
        assert queueing.mean_slices() <= 3.1

    @pytest.mark.slow
    def test_state_is_small_whatever_the_backlog(self) -> None:
        account = limiter(50)
        for number in range(30_000):
            account.ask(f"run-{number % 200}", START + number / 1000)
        assert len(account.turns.flows) <= MAX_FLOWS + 1
        assert sum(flow.issued - flow.called for flow in account.turns.flows.values()) > 29_000
        assert len(json.dumps(account.to_json())) < 8_000


@pytest.mark.slow
@settings(max_examples=25)
@given(
    rate=st.integers(1, 200),
    runs=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 120)), min_size=1, max_size=6),
    latency=st.tuples(st.floats(0.5, 5), st.floats(5, 40)),
    lost=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_limit_is_kept_and_no_task_is_stuck(
    rate: int, runs: list[tuple[int, int]], latency: tuple[float, float], lost: int, seed: int
) -> None:
    queueing = Queueing(rate, latency, gone=lambda task, at: lost > 0 and task.number % 4 < lost, seed=seed)
    for number, (images, start) in enumerate(runs):
        queueing.add(f"run-{number}", images, start)

    queueing.run()

    images = sum(images for images, _ in runs)
    assert queueing.most_in_a_window() <= rate
    assert len(queueing.submitted) == images if not lost else 0 < len(queueing.submitted) <= images


@pytest.mark.slow
@given(gaps=st.lists(st.floats(0, 30), min_size=1, max_size=20), rate=st.integers(1, 300))
def test_reader_computes_the_same_calls_as_the_next_writer(gaps: list[float], rate: int) -> None:
    account = limiter(rate)
    for number in range(100):
        account.ask(f"run-{number % 3}", START)
    reader = AccountLimiter.from_json(json.loads(json.dumps(account.to_json())))
    now = START
    for gap in gaps:
        now += gap
        reader.advance(now)
    account.advance(now)
    assert {key: flow.called for key, flow in reader.turns.flows.items()} == {
        key: flow.called for key, flow in account.turns.flows.items()
    }
