"""
The trigger that waits for submitted requests.

Invariant: it only reads. It may run twice at once, or start again in another triggerer: neither is charged, and the
event is the same. Nothing in it blocks the triggerer's loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL
from airflow_provider_ideogram.api.parsing import RequestStatus
from airflow_provider_ideogram.api.poll_schedule import JobDurations
from airflow_provider_ideogram.api.polling import RequestPoll
from airflow_provider_ideogram.exceptions import IdeogramError, request_continues
from airflow_provider_ideogram.hooks.ideogram import IdeogramHook

#: Seconds between log lines while no state changes.
HEARTBEAT_SECONDS = 60.0
#: The most log lines about changes and errors of one trigger; the heartbeat lines are not counted.
MAX_LINES = 20

#: How long requests take, learned by all triggers of the process.
_durations = JobDurations()


class IdeogramTrigger(BaseTrigger):
    """
    Poll requests until enough of them are settled or the deadline passes, then fire one event.

    The event is ``{"requests": {request_id: report}, "payload": payload, "error": text or None}``. A report is what
    :meth:`~airflow_provider_ideogram.api.polling.RequestPoll.report` returns. Without requests the trigger waits for
    the deadline.

    :param requests: The time of submission, in seconds since the epoch, by request id.
    :param deadline: When to fire at the latest, in seconds since the epoch.
    :param ideogram_conn_id: The Airflow connection of type ``ideogram``.
    :param poll_interval: Seconds between polls of a request; None follows how long the model's requests take.
    :param model: The model's slug.
    :param min_settled: How many requests have to be settled; None means all.
    :param not_before: When to start polling, in seconds since the epoch: Airflow's scheduler can mark a task failed
        that resumes at once (apache/airflow#72716).
    :param payload: Plain JSON without secrets, which the event returns to the resumed task.
    """

    def __init__(
        self,
        *,
        requests: Mapping[str, float],
        deadline: float,
        ideogram_conn_id: str = IdeogramHook.default_conn_name,
        poll_interval: float | None = None,
        model: str = DEFAULT_MODEL,
        min_settled: int | None = None,
        not_before: float = 0.0,
        payload: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.requests = dict(requests)
        self.deadline = deadline
        self.ideogram_conn_id = ideogram_conn_id
        self.poll_interval = poll_interval
        self.model = model
        self.min_settled = min_settled
        self.not_before = not_before
        self.payload = dict(payload or {})
        self._heartbeat_at = time.monotonic() + HEARTBEAT_SECONDS
        self._lines_left = MAX_LINES
        self._polls: list[RequestPoll] = []

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class and all arguments."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "requests": self.requests,
                "deadline": self.deadline,
                "ideogram_conn_id": self.ideogram_conn_id,
                "poll_interval": self.poll_interval,
                "model": self.model,
                "min_settled": self.min_settled,
                "not_before": self.not_before,
                "payload": self.payload,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll, then fire exactly one event."""
        self._polls = self._new_polls()
        error_text = None
        try:
            await asyncio.sleep(max(self.not_before - time.time(), 0.0))
            await self._wait()
        except Exception as error:
            # If it were raised, the task would get the text "Trigger failure" only.
            self.log.exception("Polling ended with an error; the requests continue at the vendor")
            error_text = repr(error)
        reports = {poll.request_id: poll.report() for poll in self._polls}
        event = {"requests": reports, "payload": self.payload, "error": error_text}
        yield TriggerEvent(event)

    async def _wait(self) -> None:
        """Wait until enough requests are settled, or the deadline."""
        if not self._polls:
            await asyncio.sleep(max(self.deadline - time.time(), 0.0))
        elif not await self._watch():
            self.log.info("The deadline has passed: %s", _summary(self._polls))

    async def on_kill(self) -> None:
        """Log that the requests continue. Airflow 3.3 and newer call this when a user ends the deferred task."""
        for request_id in self.requests:
            self.log.warning(request_continues(request_id))

    def _new_polls(self) -> list[RequestPoll]:
        return [
            RequestPoll(request_id, at, self.poll_interval, self.model, _durations)
            for request_id, at in self.requests.items()
        ]

    def _watch(self) -> Awaitable[bool]:
        """Poll until enough requests are settled; return whether that was before the deadline."""
        hook = IdeogramHook(self.ideogram_conn_id)
        return hook.await_requests(
            self._polls, deadline=self.deadline, min_settled=self.min_settled, on_poll=self._log_progress
        )

    def _log_progress(self, poll: RequestPoll, state_before: str | None, error: IdeogramError | None) -> None:
        """Log errors, unknown states, the states of a single request, and a summary once a minute."""
        if error is not None and (poll.consecutive_errors == 1 or poll.settled):
            self._log_limited(logging.WARNING, "Request %s: a poll failed: %s", poll.request_id, error.reason)
        if poll.state is not None and poll.state != state_before:
            if not RequestStatus(poll.state).is_known:
                text = "Request %s has the unknown state %s, which counts as running"
                self._log_limited(logging.WARNING, text, poll.request_id, poll.state)
            elif len(self._polls) == 1:
                self._log_limited(logging.INFO, "Request %s is %s", poll.request_id, poll.state)
        if time.monotonic() >= self._heartbeat_at:
            self._heartbeat_at = time.monotonic() + HEARTBEAT_SECONDS
            self.log.info("Waiting: %s", _summary(self._polls))

    def _log_limited(self, level: int, text: str, *values: object) -> None:
        if self._lines_left:
            self._lines_left -= 1
            self.log.log(level, text, *values)


def _summary(polls: list[RequestPoll]) -> str:
    counts = Counter(poll.outcome for poll in polls)
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
