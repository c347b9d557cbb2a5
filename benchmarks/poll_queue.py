"""
The alternative to a coroutine per job: one heap of due times for all jobs.

Invariant: a waiting job is two tuples of numbers, which Python's garbage collector does not visit, and only a poll in
flight has a task. This is the least that measures the design: one request per wait, no errors, no circuit breaker.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Sequence
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.hooks.async_client import MAX_IN_FLIGHT
from airflow_provider_ideogram.hooks.polls import Poller

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.polling import RequestPoll
    from airflow_provider_ideogram.hooks.polls import OnPoll


class PollQueue(Poller):
    """Waits with one queue of polls instead of a coroutine for each request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: The due time by the loop's clock, the number of the wait, and whether it is the wait's deadline.
        self._entries: list[tuple[float, int, bool]] = []
        self._waits: list[tuple[RequestPoll, OnPoll, asyncio.Future[bool], Context]] = []
        self._in_flight: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def await_requests(  # type: ignore[override] # a future, which needs no coroutine of its own
        self, polls: Sequence[RequestPoll], deadline: float, min_settled: int | None, on_poll: OnPoll
    ) -> asyncio.Future[bool]:
        assert len(polls) == 1
        assert min_settled is None
        settled = self._loop.create_future()
        number = len(self._waits)
        self._waits.append((polls[0], on_poll, settled, copy_context()))
        self._put(polls[0].delay(time.time(), self._rng), number)
        self._put(deadline - time.time(), number, is_deadline=True)
        self._send_due()
        return settled

    def _put(self, seconds: float, number: int, *, is_deadline: bool = False) -> None:
        heapq.heappush(self._entries, (self._loop.time() + seconds, number, is_deadline))

    def _send_due(self) -> None:
        while self._entries and len(self._in_flight) < MAX_IN_FLIGHT:
            due_at, number, is_deadline = self._entries[0]
            if due_at > self._loop.time():
                self._set_timer(due_at)
                return
            heapq.heappop(self._entries)
            _, _, settled, context = self._waits[number]
            if settled.done():
                continue
            if is_deadline:
                settled.set_result(False)
                continue
            task = self._loop.create_task(self._poll_and_requeue(number), context=context)
            self._in_flight.add(task)
            task.add_done_callback(self._on_done)

    def _set_timer(self, due_at: float) -> None:
        if self._timer is None or due_at < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(due_at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._send_due()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._in_flight.remove(task)
        self._send_due()

    async def _poll_and_requeue(self, number: int) -> None:
        poll, on_poll, _, _ = self._waits[number]
        state = poll.state
        poll.on_status(await self._get_status(poll.request_id), time.time())
        on_poll(poll, state, None)
        self._put(poll.delay(time.time(), self._rng), number)
