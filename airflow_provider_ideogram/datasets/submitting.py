"""
Submitting the items of a slice, within the rate limit and the budget.

Invariant: a request is in the ledger before it is in the state. Nothing is submitted while images can't be stored.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from airflow_provider_ideogram.api.back_off import PATIENCE_SECONDS
from airflow_provider_ideogram.datasets.manifest import stored_line
from airflow_provider_ideogram.datasets.outcomes import line_of_error, write_outcomes
from airflow_provider_ideogram.datasets.rows import Item
from airflow_provider_ideogram.datasets.slice import RETRY_SECONDS, SliceContext, SliceProgress, gather
from airflow_provider_ideogram.datasets.state import DelayedItem, InFlightItem
from airflow_provider_ideogram.datasets.workspace import chunk_name
from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramError,
    IdeogramInsufficientCredits,
    IdeogramLedgerError,
    IdeogramModelRetired,
    IdeogramPermissionError,
    IdeogramRateLimited,
    IdeogramStorageError,
    IdeogramTemporaryError,
    IdeogramUnknownSubmit,
)
from airflow_provider_ideogram.jobs.reconciliation import RetryLater
from airflow_provider_ideogram.jobs.submission import Submitter
from airflow_provider_ideogram.storage.image_record import ImageRecord

log = logging.getLogger(__name__)

#: Seconds that a slice waits for the rate limit's next slots, which is less than the start of another slice takes.
PACE_SECONDS = 4.0
#: Errors that every other item would meet too; a spend limit is a kind of insufficient credits.
_SYSTEMATIC = (
    IdeogramAuthenticationError,
    IdeogramPermissionError,
    IdeogramInsufficientCredits,
    IdeogramModelRetired,
)
#: The result of an item's submit: its request, another attempt, or its line.
_Decision: TypeAlias = InFlightItem | DelayedItem | dict[str, Any]


@dataclass(slots=True)
class _Burst:
    """
    The submits of a burst, shared by its threads.

    :param sent_at: When each was answered, except those answered 429.
    :param delays: The waits that 429 responses asked for.
    :param has_failed: Whether an error concerns all items.
    :param storage_errors: S3's errors before the submit.
    """

    sent_at: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    has_failed: bool = False
    storage_errors: list[IdeogramError] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is submitted."""
        return self.has_failed or bool(self.delays)


@dataclass(frozen=True, slots=True)
class SubmitBurst:
    """Submit the items of a slice."""

    context: SliceContext
    progress: SliceProgress

    def submit(self, pool: ThreadPoolExecutor) -> list[IdeogramError]:
        """Submit what the rate limit allows; while it is unknown, in growing bursts until a 429."""
        limiter, errors = self.context.state.rate_limiter, self._submit_burst(pool)
        while not errors and limiter.rate is None and limiter.ramping_up:
            errors = self._submit_burst(pool)
        return errors

    def _submit_burst(self, pool: ThreadPoolExecutor) -> list[IdeogramError]:
        now, limiter = time.time(), self.context.state.rate_limiter
        limiter.ramping_up = False
        times = self._times(now)
        items = self._next_items(len(times), now)
        if not items:
            return []
        burst = _Burst()

        def submit(planned: tuple[float, DelayedItem]) -> _Decision:
            return self._submit_one(*planned, burst)

        results, errors = gather(pool, submit, list(zip(times, items, strict=False)))
        self._take(items, results)
        limiter.on_sent(burst.sent_at)
        if burst.delays:
            limiter.on_limited(time.time(), max(burst.delays))
        all_blocked = burst.storage_errors[:1] if len(burst.storage_errors) == len(items) else []
        return errors or all_blocked

    def _submit_one(self, at: float, delayed: DelayedItem, burst: _Burst) -> _Decision:
        """Return the item's request, its line if it is decided already, or the item if it is delayed."""
        time.sleep(max(0.0, min(at - time.time(), PACE_SECONDS)))
        if burst.is_over:
            return delayed
        try:
            result = self._get_or_submit(delayed.item)
        except RetryLater as later:
            if isinstance(later.error, IdeogramRateLimited):
                burst.delays.append(later.delay)
            return _delay(delayed, later.delay, later.error)
        except IdeogramError as error:
            return self._decide(delayed, error, burst)
        if isinstance(result, InFlightItem):
            burst.sent_at.append(time.time())
        return result

    def _decide(self, delayed: DelayedItem, error: IdeogramError, burst: _Burst) -> _Decision:
        """Return what an error means for an item; raise it if it concerns all items."""
        if isinstance(error, _SYSTEMATIC):
            burst.has_failed = True
            raise error
        if isinstance(error, IdeogramUnknownSubmit):
            burst.sent_at.append(time.time())
        is_unreadable = isinstance(error, IdeogramLedgerError) and isinstance(
            error.__cause__, ValueError | TypeError | KeyError | RecursionError
        )
        if isinstance(error, IdeogramTemporaryError) and not is_unreadable:
            if isinstance(error, IdeogramStorageError):
                burst.storage_errors.append(error)
            return _delay(delayed, RETRY_SECONDS, error)
        return line_of_error(delayed.item, error)

    def _take(self, items: list[DelayedItem], results: list[_Decision | None]) -> None:
        """Add the results of a burst to the state."""
        state = self.context.state
        lines = [dict(result) for result in results if isinstance(result, Mapping)]
        write_outcomes(self.context.workspace, state, lines)
        for delayed, result in zip(items, results, strict=True):
            if isinstance(result, InFlightItem):
                state.in_flight.append(result)
            elif not isinstance(result, Mapping):
                state.delayed.append(result or delayed)

    def _get_or_submit(self, item: Item) -> InFlightItem | dict[str, Any]:
        context = self.context
        submitter = Submitter(
            context.hook,
            context.store,
            context.ledger,
            context.target(item.key),
            owner=context.owner,
            max_tries=context.max_tries,
            if_exists=context.if_exists,
            resubmit=context.resubmit,
            resubmit_on_5xx=context.resubmit_on_5xx,
        )
        result = submitter.get_or_submit(item.request, absent=item.absent)
        return stored_line(item, result) if isinstance(result, ImageRecord) else InFlightItem(item, result[0])

    def _times(self, now: float) -> list[float]:
        """Return when items may be submitted in this slice."""
        context = self.context
        room = context.max_in_flight - len(context.state.in_flight)
        if context.affordable is not None:
            room = min(room, context.affordable)
        if room <= 0 or self.progress.storage_blocked:
            return []
        return [at for at in context.state.rate_limiter.times(room, now) if at <= now + PACE_SECONDS]

    def _next_items(self, room: int, now: float) -> list[DelayedItem]:
        """Take the next items: delayed ones that are due, then those of the plan."""
        state = self.context.state
        due = [delayed for delayed in state.delayed if delayed.at <= now]
        state.delayed = [delayed for delayed in state.delayed if delayed.at > now] + due[room:]
        items = due[:room]
        while len(items) < room and self.context.takes_from_plan:
            lines = self.context.workspace.read_lines(chunk_name("todo", state.chunk))
            taken = lines[state.offset : state.offset + room - len(items)]
            items += [DelayedItem(Item.from_json(line), now, now) for line in taken]
            state.offset += len(taken)
            if state.offset >= len(lines):
                state.chunk, state.offset = state.chunk + 1, 0
        return items


def _delay(delayed: DelayedItem, delay: float, error: IdeogramError) -> DelayedItem | dict[str, Any]:
    now = time.time()
    if now + delay > delayed.since + PATIENCE_SECONDS:
        return line_of_error(delayed.item, error)
    log.info("%s: %s. Next attempt in %.0f s", delayed.item.id, error.reason, delay)
    return DelayedItem(delayed.item, now + delay, delayed.since)
