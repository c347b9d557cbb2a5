"""
Poll the requests of a connection on an event loop, with one coroutine per request.

Invariant: at most ``MAX_IN_FLIGHT`` polls of the connection are in flight, and no more a minute than it permits. While
the circuit breaker is open, one poll at a time probes the API, and all other polls wait until a probe is answered.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from airflow_provider_ideogram.api.circuit_breaker import CircuitBreaker
from airflow_provider_ideogram.api.poll_pace import PollPace
from airflow_provider_ideogram.exceptions import IdeogramError, IdeogramRateLimited
from airflow_provider_ideogram.hooks.async_client import MAX_IN_FLIGHT

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.parsing import RequestStatus
    from airflow_provider_ideogram.api.polling import RequestPoll

#: Called after each poll with the request, its state before the poll, and the poll's error.
OnPoll: TypeAlias = "Callable[[RequestPoll, str | None, IdeogramError | None], None]"


class Poller:
    """
    Poll the requests of one connection on the running loop.

    :param get_status: Sends one status call.
    :param rng: The source of all jitter.
    :param polls_per_minute: Returns the connection's limit of polls, 0 for none.
    """

    def __init__(
        self,
        get_status: Callable[[str], Awaitable[RequestStatus]],
        rng: random.Random,
        polls_per_minute: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._get_status = get_status
        self._rng = rng
        self._polls_per_minute = polls_per_minute
        self._pace = PollPace()
        self._pacing = asyncio.Lock()
        self._breaker = CircuitBreaker(rng)
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._probing = asyncio.Lock()

    async def await_requests(
        self, polls: Sequence[RequestPoll], deadline: float, min_settled: int | None, on_poll: OnPoll
    ) -> bool:
        """
        Poll until all, or min_settled, requests are settled, and return whether that was before the deadline.

        No poll is in flight when this returns, raises or is cancelled.

        :param polls: The polling states of the requests, which are updated.
        :param deadline: When to stop, in seconds since the epoch.
        :param min_settled: How many requests have to be settled, None for all.
        :param on_poll: Called after each poll, in the caller's context.
        """
        try:
            async with asyncio.timeout(deadline - time.time()) as limit:
                if len(polls) == 1:  # the common case, which needs no task of its own
                    await self._until_settled(polls[0], on_poll)
                else:
                    await self._until_enough_settled(polls, min_settled, on_poll)
        except TimeoutError:
            if not limit.expired():
                raise
            return False
        return True

    async def _until_enough_settled(
        self, polls: Sequence[RequestPoll], min_settled: int | None, on_poll: OnPoll
    ) -> None:
        tasks = [self._loop.create_task(self._until_settled(poll, on_poll)) for poll in polls]
        try:
            for settled in islice(asyncio.as_completed(tasks), min_settled):
                await settled
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_settled(self, poll: RequestPoll, on_poll: OnPoll) -> None:
        while not poll.settled:
            await asyncio.sleep(poll.delay(time.time(), self._rng))
            state = poll.state
            error = await self._poll_when_allowed(poll)
            on_poll(poll, state, error)

    async def _poll_when_allowed(self, poll: RequestPoll) -> IdeogramError | None:
        """
        Poll a request once a slot is free and the circuit breaker is closed, or as the probe that may close it.

        A poll that has waited for the probe waits for its turn again, so that the end of an outage is no burst.
        Polls that wait for the probe keep their slots, and the probe has one of them. The semaphore and the lock wake
        one coroutine at a time, so the end of an outage does not start all polls in one iteration of the loop.
        """
        async with self._slots:
            await self._take_turn()
            while self._breaker.is_open:
                async with self._probing:
                    if self._breaker.is_open:
                        await asyncio.sleep(self._breaker.retry_at - self._loop.time())
                        return await self._poll(poll)
                await self._take_turn()
            return await self._poll(poll)

    async def _take_turn(self) -> None:
        """Wait until the pace allows a poll. One coroutine waits for the time: one that is cancelled takes none."""
        self._pace.configure(self._polls_per_minute())
        async with self._pacing:
            if (delay := self._pace.delay(self._loop.time())) > 0:
                await asyncio.sleep(delay)
            self._pace.on_sent(self._loop.time())

    async def _poll(self, poll: RequestPoll) -> IdeogramError | None:
        """Poll a request once, and return the error if the poll failed."""
        generation = self._breaker.generation
        try:
            status = await self._get_status(poll.request_id)
        except IdeogramError as error:
            if isinstance(error, IdeogramRateLimited) and generation == self._breaker.generation:
                self._pace.on_limited(self._loop.time())
            self._breaker.on_error(generation, error, self._loop.time())
            poll.on_error(error, time.time())
            return error
        self._breaker.on_answer(generation)
        poll.on_status(status, time.time())
        return None
