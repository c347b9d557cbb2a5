"""
The polls of a connection on an event loop: one queue for all jobs, in the order of their time.

Invariant: a job that waits is two entries in a list, not a task and timers of its own; a task is made for a poll that
is sent, and these are bounded. What one poll learns of the API's state holds for all of them.

The entries are tuples of numbers alone, which Python's garbage collector need not look at: a pass over all objects is
what stops a loop with thousands of jobs for longest.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from airflow_provider_ideogram.api.circuit_breaker import CircuitBreaker
from airflow_provider_ideogram.exceptions import IdeogramError
from airflow_provider_ideogram.hooks.async_client import MAX_IN_FLIGHT

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.parsing import RequestStatus
    from airflow_provider_ideogram.api.polling import RequestPoll

#: Told of each poll: what it is about, the state before, and the error that it met.
OnPoll: TypeAlias = "Callable[[RequestPoll, str | None, IdeogramError | None], None]"
#: Entries of those who no longer wait are left in the queue until they are so many more than all others.
_MAX_STALE = 100
#: Stands for the end of the wait, where the number of a poll would be.
_DEADLINE = -1


class Watch:
    """
    Requests that somebody waits for.

    :param number: Stands for them in the queue.
    :param polls: What is known of each.
    :param left: How many more have to be settled.
    :param on_poll: Is told of each poll.
    :param over: Whether enough were settled in time; whoever waits waits for it.
    """

    __slots__ = ("context", "left", "number", "on_poll", "over", "polls")

    def __init__(
        self, number: int, polls: Sequence[RequestPoll], left: int, on_poll: OnPoll, over: asyncio.Future[bool]
    ) -> None:
        self.number = number
        self.polls = polls
        self.left = left
        self.on_poll = on_poll
        self.over = over
        #: What the triggerer's logs are told apart by.
        self.context: Context = copy_context()

    def end(self, in_time: bool) -> None:
        """Let go whoever waits."""
        if not self.over.done():
            self.over.set_result(in_time)


class PollQueue:
    """
    The polls of one connection on the running loop.

    :param get_status: Asks for a request's status once.
    :param rng: The source of all jitter.
    """

    def __init__(self, get_status: Callable[[str], Awaitable[RequestStatus]], rng: random.Random) -> None:
        self._get_status = get_status
        self._rng = rng
        self._breaker = CircuitBreaker(MAX_IN_FLIGHT, rng)
        self._loop = asyncio.get_running_loop()
        self._watches: dict[int, Watch] = {}
        self._numbers = itertools.count()
        #: When, by the loop's clock; of which watch; which of its polls.
        self._entries: list[tuple[float, int, int]] = []
        #: How many there are if none is left of those who no longer wait.
        self._most_entries = 0
        #: Polls whose time has come, and that wait until they may be sent.
        self._ready: deque[tuple[int, int]] = deque()
        self._asking: dict[asyncio.Task[None], Watch] = {}
        #: How many of them were sent in each round of the breaker.
        self._of_generation: Counter[int] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, polls: Sequence[RequestPoll], deadline: float, min_settled: int | None, on_poll: OnPoll) -> Watch:
        """
        Begin to poll requests until all, or enough of them, are settled; :meth:`forget` must follow.

        :param polls: What is known of each; they are changed.
        :param deadline: When to give up, in seconds since the epoch.
        :param min_settled: How many have to be settled, None for all.
        :param on_poll: Is told of each poll.
        """
        number = next(self._numbers)
        left = len(polls) if min_settled is None else min_settled
        watch = self._watches[number] = Watch(number, polls, left, on_poll, self._loop.create_future())
        self._most_entries += len(polls) + 1
        now = time.time()
        for index, poll in enumerate(polls):
            self._put(number, index, poll.delay(now, self._rng))
        self._put(number, _DEADLINE, deadline - now)
        self._set_timer()
        return watch

    def close(self) -> None:
        """Forget everything that is left to do."""
        if self._timer is not None:
            self._timer.cancel()

    def _put(self, number: int, index: int, seconds: float) -> None:
        heapq.heappush(self._entries, (self._loop.time() + seconds, number, index))

    async def forget(self, watch: Watch) -> None:
        """Leave nothing of a wait behind but entries that mean nothing."""
        del self._watches[watch.number]
        watch.over.cancel()
        self._most_entries -= len(watch.polls) + 1
        if len(self._entries) > 2 * self._most_entries + _MAX_STALE:
            self._entries = [entry for entry in self._entries if entry[1] in self._watches]
            heapq.heapify(self._entries)
        if asking := [task for task, of in self._asking.items() if of is watch]:
            for task in asking:
                task.cancel()
            await asyncio.wait(asking)

    def _waiting(self, number: int) -> Watch | None:
        """Return a watch that is not over."""
        watch = self._watches.get(number)
        return watch if watch is not None and not watch.over.done() else None

    def _set_timer(self) -> None:
        """Come back when the next entry is due, or when the API may be asked again."""
        at = self._entries[0][0] if self._entries else float("inf")
        if self._ready and not self._counted:
            at = min(at, self._breaker.retry_at)
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._on_timer) if at < float("inf") else None

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._entries and self._entries[0][0] <= now:
            _, number, index = heapq.heappop(self._entries)
            watch = self._waiting(number)
            if watch is not None and index == _DEADLINE:
                watch.end(in_time=False)
            elif watch is not None:
                self._ready.append((number, index))
        self._ask_ready()

    @property
    def _counted(self) -> int:
        """How many polls count as in flight: while one at a time finds out how the API is, none that went before."""
        return self._of_generation[self._breaker.generation] if self._breaker.is_open else len(self._asking)

    def _ask_ready(self) -> None:
        """Send what may be sent. The others follow one by one as these are answered: they must not all go at once."""
        capacity = self._breaker.capacity(self._loop.time())
        while self._ready and self._counted < capacity:
            number, index = self._ready.popleft()
            if watch := self._waiting(number):
                generation = self._breaker.generation
                task = self._loop.create_task(self._ask(watch, index), context=watch.context)
                self._asking[task] = watch
                self._of_generation[generation] += 1
                task.add_done_callback(partial(self._asked, generation))
        self._set_timer()

    def _asked(self, generation: int, task: asyncio.Task[None]) -> None:
        del self._asking[task]
        self._of_generation[generation] -= 1
        if not self._of_generation[generation]:
            del self._of_generation[generation]
        self._ask_ready()

    async def _ask(self, watch: Watch, index: int) -> None:
        poll = watch.polls[index]
        try:
            await self._poll(watch, poll)
        except Exception as error:
            if not watch.over.done():
                watch.over.set_exception(error)
            return
        if poll.settled:
            watch.left -= 1
            if watch.left <= 0:
                watch.end(in_time=True)
        elif not watch.over.done():
            self._put(watch.number, index, poll.delay(time.time(), self._rng))

    async def _poll(self, watch: Watch, poll: RequestPoll) -> None:
        generation, state, met = self._breaker.generation, poll.state, None
        try:
            status = await self._get_status(poll.request_id)
        except IdeogramError as error:
            self._breaker.on_error(generation, error, self._loop.time())
            poll.on_error(error, time.time())
            met = error
        else:
            self._breaker.on_answer(generation)
            poll.on_status(status, time.time())
        watch.on_poll(poll, state, met)
