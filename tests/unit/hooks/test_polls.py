from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from itertools import pairwise
from unittest import mock

import pytest

from airflow_provider_ideogram.api import back_off, poll_schedule
from airflow_provider_ideogram.api.circuit_breaker import OUTAGE_AFTER
from airflow_provider_ideogram.api.parsing import RequestStatus
from airflow_provider_ideogram.api.poll_pace import PollPace
from airflow_provider_ideogram.api.polling import Outcome, RequestPoll
from airflow_provider_ideogram.exceptions import IdeogramError, IdeogramRateLimited, IdeogramServerUnavailable
from airflow_provider_ideogram.hooks.async_client import MAX_IN_FLIGHT
from airflow_provider_ideogram.hooks.polls import Poller

QUEUED, COMPLETED = RequestStatus("QUEUED"), RequestStatus("COMPLETED", 0.1)
HOUR = 3600.0


class Vendor:
    """Answers polls with what it is told to, and counts."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.errors: list[IdeogramError] = []
        self.answers: dict[str, RequestStatus] = {}
        self.in_flight = self.most_in_flight = 0
        #: How many polls were in flight as each of the errors was met.
        self.beside_an_error: list[int] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        #: How many iterations of the loop an answer takes.
        self.iterations = 1

    async def get_status(self, request_id: str) -> RequestStatus:
        self.asked.append(request_id)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.may_answer.wait()
            for _ in range(self.iterations):
                await asyncio.sleep(0)
            if self.errors:
                self.beside_an_error.append(self.in_flight)
                raise self.errors.pop(0)
            return self.answers.get(request_id, COMPLETED)
        finally:
            self.in_flight -= 1


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MIN_FIRST_POLL", "MIN_INTERVAL", "_BACK_OFF_BASE"):
        monkeypatch.setattr(back_off if hasattr(back_off, name) else poll_schedule, name, 0.001)


@pytest.fixture
async def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
async def poller(vendor: Vendor) -> Poller:
    return Poller(vendor.get_status, random.Random(7))


def _poll(request_id: str = "r-1", interval: float | None = 0.001) -> RequestPoll:
    return RequestPoll(request_id, time.time() - 1, poll_interval=interval)


def _ignore(*_: object) -> None:
    """Take no notice of a poll."""


async def _watch(
    poller: Poller,
    *polls: RequestPoll,
    seconds: float = HOUR,
    min_settled: int | None = None,
    on_poll: Callable[..., None] = _ignore,
) -> bool:
    return await poller.await_requests(polls, time.time() + seconds, min_settled, on_poll)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what it looks at has no event
            await asyncio.sleep(0)


async def _run_due_callbacks() -> None:
    """Run the event loop until the callbacks of the next milliseconds have run."""
    for _ in range(20):
        await asyncio.sleep(0.001)


async def test_polls_keep_the_limit_of_the_connection(vendor: Vendor) -> None:
    times: list[float] = []

    async def get_status(request_id: str) -> RequestStatus:
        times.append(asyncio.get_running_loop().time())
        return await vendor.get_status(request_id)

    poller = Poller(get_status, random.Random(7), lambda: 6000.0)
    assert await _watch(poller, *(_poll(f"r-{number}") for number in range(6)))
    assert all(later - earlier >= 0.0099 for earlier, later in pairwise(times))


async def test_429_is_learned_once_for_polls_sent_together(vendor: Vendor) -> None:
    poller = Poller(vendor.get_status, random.Random(7), lambda: 60_000.0)
    vendor.errors = [IdeogramRateLimited("Too many requests", "Wait.", status_code=429) for _ in range(5)]
    vendor.may_answer.clear()
    with mock.patch.object(PollPace, "on_limited", autospec=True) as on_limited:
        watching = asyncio.create_task(_watch(poller, *(_poll(f"r-{number}") for number in range(5))))
        await _until(lambda: vendor.in_flight == 5)
        vendor.may_answer.set()
        assert await watching
    on_limited.assert_called_once()


async def test_all_are_asked_for_until_they_are_settled(poller: Poller, vendor: Vendor) -> None:
    polls = [_poll(f"r-{number}") for number in range(5)]
    vendor.answers["r-3"] = QUEUED
    watching = asyncio.create_task(_watch(poller, *polls))
    await _run_due_callbacks()
    assert not watching.done()
    assert [poll.outcome for poll in polls] == [*[Outcome.COMPLETED] * 3, Outcome.PENDING, Outcome.COMPLETED]
    del vendor.answers["r-3"]

    assert await watching is True

    assert polls[3].outcome is Outcome.COMPLETED
    assert Counter(vendor.asked)["r-0"] == 1
    assert vendor.asked.count("r-3") == polls[3].polls > 1


async def test_enough_is_enough(poller: Poller, vendor: Vendor) -> None:
    vendor.answers["slow"] = QUEUED
    polls = [_poll("slow"), _poll("quick")]

    assert await _watch(poller, *polls, min_settled=1) is True

    assert [poll.settled for poll in polls] == [False, True]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("ids", [["r-1"], ["r-1", "r-2"]])
async def test_deadline_ends_the_wait_though_a_poll_is_out(poller: Poller, vendor: Vendor, ids: list[str]) -> None:
    vendor.may_answer.clear()
    polls = [_poll(request_id) for request_id in ids]

    assert await _watch(poller, *polls, seconds=0.1) is False

    assert [poll.outcome for poll in polls] == [Outcome.PENDING] * len(ids)
    assert (vendor.in_flight, sorted(vendor.asked)) == (0, ids)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_deadline_in_the_past_asks_for_nothing_that_is_not_due(poller: Poller, vendor: Vendor) -> None:
    assert await _watch(poller, _poll(interval=60.0), seconds=-1) is False
    assert vendor.asked == []


async def test_polls_in_flight_are_bounded(poller: Poller, vendor: Vendor) -> None:
    vendor.may_answer.clear()
    watching = [asyncio.create_task(_watch(poller, _poll(f"r-{number}"))) for number in range(100)]
    await _run_due_callbacks()
    assert vendor.in_flight == MAX_IN_FLIGHT
    for task in watching[:30]:
        task.cancel()
    await asyncio.wait(watching[:30])
    vendor.may_answer.set()
    await asyncio.wait(watching)

    assert vendor.most_in_flight == MAX_IN_FLIGHT
    assert [task.cancelled() for task in watching] == [True] * 30 + [False] * 70
    assert all(task.result() for task in watching[30:])


async def test_one_limited_poll_holds_back_all_others(poller: Poller, vendor: Vendor) -> None:
    vendor.errors = [IdeogramRateLimited("429", retry_after=HOUR)]
    first = asyncio.create_task(_watch(poller, _poll()))
    await _run_due_callbacks()
    others = [asyncio.create_task(_watch(poller, _poll(f"r-{number}"))) for number in range(10)]
    await _run_due_callbacks()

    assert vendor.asked == ["r-1"]

    for task in (first, *others):
        task.cancel()
    await asyncio.wait([first, *others])


async def test_polls_that_wait_for_a_slot_are_held_back_too(poller: Poller, vendor: Vendor) -> None:
    vendor.may_answer.clear()
    vendor.errors = [IdeogramRateLimited("429", retry_after=HOUR) for _ in range(MAX_IN_FLIGHT)]
    waiting = [asyncio.create_task(_watch(poller, _poll())) for _ in range(MAX_IN_FLIGHT + 10)]
    await _until(lambda: vendor.in_flight == MAX_IN_FLIGHT)
    await _run_due_callbacks()

    vendor.may_answer.set()
    await _run_due_callbacks()

    assert (len(vendor.asked), vendor.in_flight, vendor.errors) == (MAX_IN_FLIGHT, 0, [])
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


async def test_deadline_comes_also_while_the_api_must_not_be_asked(poller: Poller, vendor: Vendor) -> None:
    vendor.errors = [IdeogramRateLimited("429", retry_after=HOUR)]
    assert await _watch(poller, _poll(), seconds=0.05) is False
    assert await _watch(poller, _poll(), seconds=0.05) is False
    assert len(vendor.asked) == 1


async def test_outage_costs_one_probe_at_a_time_and_ends_for_all(poller: Poller, vendor: Vendor) -> None:
    vendor.errors = [IdeogramServerUnavailable("503") for _ in range(OUTAGE_AFTER)]
    first = asyncio.create_task(_watch(poller, _poll()))
    await _until(lambda: not vendor.errors)
    vendor.errors = [IdeogramServerUnavailable("503") for _ in range(5)]
    vendor.beside_an_error.clear()
    vendor.iterations = 2 * MAX_IN_FLIGHT  # slow enough for others to be sent meanwhile
    others = [asyncio.create_task(_watch(poller, _poll(f"r-{number}"))) for number in range(100)]

    assert all(await asyncio.gather(first, *others))

    assert vendor.beside_an_error == [1] * 5
    assert vendor.most_in_flight == MAX_IN_FLIGHT
    assert len(vendor.asked) == OUTAGE_AFTER + 5 + 1 + len(others)


async def test_probe_that_is_cancelled_hands_on_its_turn(poller: Poller, vendor: Vendor) -> None:
    vendor.errors = [IdeogramRateLimited("429", retry_after=0.0)]
    waiting = {"limited": asyncio.create_task(_watch(poller, _poll("limited")))}
    await _until(lambda: not vendor.errors)
    vendor.may_answer.clear()
    waiting |= {f"r-{number}": asyncio.create_task(_watch(poller, _poll(f"r-{number}"))) for number in range(3)}
    await _until(lambda: vendor.in_flight == 1)
    await _run_due_callbacks()
    assert len(vendor.asked) == 2, "the one that was limited, and a single probe"

    probe = waiting.pop(vendor.asked[-1])
    probe.cancel()
    await asyncio.wait([probe])
    vendor.may_answer.set()

    assert all(await asyncio.gather(*waiting.values()))


async def test_poll_that_hangs_since_before_holds_nobody_back(poller: Poller, vendor: Vendor) -> None:
    vendor.may_answer.clear()
    hanging = asyncio.create_task(_watch(poller, _poll("hangs")))
    await _until(lambda: vendor.in_flight == 1)
    vendor.may_answer = asyncio.Event()
    vendor.may_answer.set()
    vendor.errors = [IdeogramRateLimited("429")]
    others = [asyncio.create_task(_watch(poller, _poll("limited")))]
    await _until(lambda: not vendor.errors)
    vendor.errors = [IdeogramServerUnavailable("503")]
    others += [asyncio.create_task(_watch(poller, _poll(f"r-{number}"))) for number in range(10)]

    async with asyncio.timeout(30):
        assert all(await asyncio.gather(*others))

    assert vendor.beside_an_error == [2, 2], "what hangs, and a single probe"
    assert not hanging.done()
    hanging.cancel()
    await asyncio.wait([hanging])
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_hanging_polls_in_other_slots_do_not_delay_the_probe(poller: Poller, vendor: Vendor) -> None:
    vendor.may_answer.clear()
    hanging = [asyncio.create_task(_watch(poller, _poll())) for _ in range(MAX_IN_FLIGHT - 1)]
    await _until(lambda: vendor.in_flight == len(hanging))
    vendor.may_answer = asyncio.Event()
    vendor.errors = [IdeogramRateLimited("429"), IdeogramServerUnavailable("503")]
    others = [asyncio.create_task(_watch(poller, _poll(f"r-{number}"))) for number in range(10)]
    await _until(lambda: vendor.in_flight == MAX_IN_FLIGHT)
    await _run_due_callbacks()

    vendor.may_answer.set()

    async with asyncio.timeout(30):
        assert all(await asyncio.gather(*others))
    assert vendor.beside_an_error == [MAX_IN_FLIGHT] * 2
    assert not any(task.done() for task in hanging)
    for task in hanging:
        task.cancel()
    await asyncio.wait(hanging)


@pytest.mark.parametrize("ids", [["r-1"], ["r-1", "r-2"]])
@pytest.mark.parametrize("error", [ZeroDivisionError, TimeoutError])
async def test_error_of_our_own_reaches_who_waits(poller: Poller, ids: list[str], error: type[Exception]) -> None:
    def broken(*_: object) -> None:
        raise error

    with pytest.raises(error):
        await _watch(poller, *map(_poll, ids), on_poll=broken)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("requests", [1, 2])
async def test_each_poll_is_told_in_the_context_of_who_waits(poller: Poller, requests: int) -> None:
    whose: ContextVar[str] = ContextVar("whose")
    told: list[tuple[str, str]] = []

    async def wait(name: str) -> None:
        whose.set(name)
        polls = [_poll(name) for _ in range(requests)]
        await _watch(poller, *polls, on_poll=lambda poll, *_: told.append((poll.request_id, whose.get())))

    await asyncio.gather(*(wait(f"trigger-{number}") for number in range(5)))

    assert sorted(told) == [(f"trigger-{number}", f"trigger-{number}") for number in range(5) for _ in range(requests)]


@pytest.mark.parametrize("ids", [["r-1"], ["r-1", "r-2"]])
@pytest.mark.parametrize("seconds", [0.0, HOUR], ids=["a poll is in flight", "none is due"])
async def test_wait_that_is_cancelled_leaves_nothing(
    poller: Poller, vendor: Vendor, ids: list[str], seconds: float
) -> None:
    vendor.may_answer.clear()
    polls = [_poll(request_id, interval=seconds + 0.001) for request_id in ids]
    waiting = asyncio.create_task(_watch(poller, *polls))
    await _run_due_callbacks()
    assert vendor.in_flight == (0 if seconds else len(ids))

    waiting.cancel()

    await asyncio.wait([waiting])
    assert (vendor.in_flight, waiting.cancelled()) == (0, True)
    assert asyncio.all_tasks() == {asyncio.current_task()}
