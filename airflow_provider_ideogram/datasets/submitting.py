"""
The second step of a slice: submit items as the rate limit, ``max_in_flight`` and the budget permit.

Invariant: a request is in the ledger before it is in the state. After an error that concerns all items, nothing more is
submitted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Semaphore
from typing import TYPE_CHECKING, TypeAlias

from airflow_provider_ideogram.account.account import TurnAhead
from airflow_provider_ideogram.account.limiter import PACE_SECONDS
from airflow_provider_ideogram.account.store import AccountContended
from airflow_provider_ideogram.api.back_off import PATIENCE_SECONDS
from airflow_provider_ideogram.datasets.attempts import Attempts
from airflow_provider_ideogram.datasets.budget import Budget, SecondChargeRefused
from airflow_provider_ideogram.datasets.outage import is_outage, is_response, max_concurrent
from airflow_provider_ideogram.datasets.outcomes import ItemResult, unsettled_request, write_outcomes
from airflow_provider_ideogram.datasets.rows import Item
from airflow_provider_ideogram.datasets.slice import RETRY_SECONDS, SliceContext, SliceProgress, gather
from airflow_provider_ideogram.datasets.slots import BurstSlots, has_own_limit, is_plan_open, retried_items
from airflow_provider_ideogram.datasets.state import DatasetState, DelayedItem, InFlightItem
from airflow_provider_ideogram.datasets.workspace import chunk_name
from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramBudgetReached,
    IdeogramError,
    IdeogramInsufficientCredits,
    IdeogramInvalidRecord,
    IdeogramJobUnreachable,
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

if TYPE_CHECKING:
    from airflow_provider_ideogram.jobs.admission import Admission

#: Errors that every other item would meet.
_SYSTEMATIC = (
    IdeogramAuthenticationError,
    IdeogramPermissionError,
    IdeogramInsufficientCredits,
    IdeogramModelRetired,
)


@dataclass(frozen=True, slots=True)
class _Delay:
    """
    A delayed item.

    :param error: Why it is delayed.
    """

    item: DelayedItem
    error: IdeogramError

    @property
    def may_be_charged(self) -> bool:
        """Whether a submit of it may have been accepted."""
        is_in_doubt = isinstance(self.error, IdeogramBudgetReached) and self.error.charged is None
        return is_in_doubt or isinstance(self.error, IdeogramUnknownSubmit)


_Decision: TypeAlias = InFlightItem | _Delay | ItemResult


@dataclass(slots=True)
class _Burst:
    """
    The submits of a moment, to which the threads add.

    :param permits: Limits the submits on their way.
    :param started_at: When it began, in seconds since the epoch.
    :param budget: What is left of the budget.
    :param sent_at: When each submit was answered, except those answered 429.
    :param rate_limit_delays: The seconds to wait after each 429.
    :param is_stopped: Whether an error concerns all items.
    :param storage_errors: The errors of items that S3 prevented from being submitted.
    :param outage: The error of a submit that others would meet too.
    :param has_response: Whether the API responded to a submit.
    """

    permits: Semaphore
    started_at: float
    budget: Budget
    sent_at: list[float] = field(default_factory=list)
    rate_limit_delays: list[float] = field(default_factory=list)
    is_stopped: bool = False
    storage_errors: list[IdeogramError] = field(default_factory=list)
    outage: IdeogramError | None = None
    has_response: bool = False

    @property
    def is_over(self) -> bool:
        """Whether the rest of the items is not submitted."""
        return self.is_stopped or bool(self.rate_limit_delays) or self.outage is not None


def submit(context: SliceContext, progress: SliceProgress, pool: ThreadPoolExecutor) -> list[IdeogramError]:
    """
    Submit what the rate limit permits; where it is unknown, growing bursts until the first 429.

    In an outage of submits one probe is sent; after its success the others follow.

    :return: Errors that concern all items.
    """
    submitter, state = _BurstSubmitter(context, progress), context.state
    while True:
        was_open, failures, taken = state.outage.is_open, state.outage.failures, progress.items_taken
        errors = submitter.submit(pool)
        is_probed = was_open and state.outage.failures <= failures and progress.items_taken > taken
        is_growing = state.rate_limiter.rate is None and state.rate_limiter.ramping_up
        if errors or not (is_probed or is_growing):
            return errors


@dataclass(frozen=True, slots=True)
class _BurstSubmitter:
    context: SliceContext
    progress: SliceProgress

    def submit(self, pool: ThreadPoolExecutor) -> list[IdeogramError]:
        now, limiter = time.time(), self.context.state.rate_limiter
        limiter.ramping_up = False
        limiter.forget(now)  # also where the account's limit alone is asked: the state must not grow with the submits
        slots = BurstSlots(self.context, self.progress)
        try:
            planned = slots.take(self._times(now))
        except AccountContended:
            return []  # the next slice asks again
        except IdeogramStorageError as error:
            return [error]
        permits = Semaphore(max_concurrent(self.context.state.in_doubt))  # also if items in doubt are taken
        budget = Budget(self.context.options, self.context.state)
        items = take_items(self.context, self.progress, budget, len(planned), now)
        if not items:
            slots.correct()
            return []
        self._save_reservations(items)
        burst = _Burst(permits, now, budget)
        decisions: list[_Decision | None]
        decisions, errors = gather(
            pool, lambda each: self._submit_item(*each[0], each[1], burst), zip(planned, items, strict=False)
        )
        slots.correct()
        self._count_second(items, decisions, burst)
        self._apply(items, decisions)
        if burst.outage is not None:
            self.context.state.outage.on_failure(time.time(), burst.outage.reason)
        elif burst.has_response:
            self.context.state.outage.on_response()
        limiter.on_sent(burst.sent_at)
        if burst.rate_limit_delays:
            limiter.on_limited(time.time(), max(burst.rate_limit_delays))
        all_refused = len(burst.storage_errors) == len(items)
        return errors or (burst.storage_errors[:1] if all_refused else [])

    def _save_reservations(self, items: list[DelayedItem]) -> None:
        """Write a state in which the items may be charged: the budget of the next attempt knows a slice that dies."""
        context, state = self.context, self.context.state
        if context.options.max_cost_usd is None:
            return
        delayed, unsettled = state.delayed, state.unsettled_requests
        reserved = {planned.item.key: unsettled_request(context, planned.item, None) for planned in items}
        state.delayed, state.unsettled_requests = delayed + items, reserved | unsettled
        context.save_state()
        state.delayed, state.unsettled_requests = delayed, unsettled

    def _times(self, now: float) -> list[float]:
        """Return the times of the submits of this slice; none while images can't be stored."""
        state = self.context.state
        room = self.context.options.max_in_flight - len(state.in_flight)
        if state.outage.is_open:
            room = min(room, 1 if state.outage.retry_at <= now else 0)
        if room <= 0 or self.progress.is_storage_blocked:
            return []
        if not has_own_limit(self.context):
            return [now] * room
        return [at for at in state.rate_limiter.times(room, now) if at <= now + PACE_SECONDS]

    def _submit_item(self, at: float, admission: Admission, delayed: DelayedItem, burst: _Burst) -> _Decision | None:
        """Return the decision on an item, None to leave it for later."""
        time.sleep(max(0.0, min(at - time.time(), PACE_SECONDS)))
        with burst.permits:
            return None if burst.is_over else self._attempt(delayed, admission, burst)

    def _attempt(self, delayed: DelayedItem, admission: Admission, burst: _Burst) -> _Decision:
        try:
            decision = self._get_or_submit(delayed.item, admission, burst)
        except RetryLater as later:
            self._note(delayed, later.error, burst)
            if isinstance(later.error, IdeogramRateLimited) and later.error.status_code is not None:
                burst.rate_limit_delays.append(later.delay)
            return self._delay(delayed, later.delay, later.error)
        except TurnAhead as ahead:  # the slot was used for a submit without a response, which another one may follow
            return self._delay(delayed, RETRY_SECONDS, IdeogramUnknownSubmit(str(ahead)))
        except AccountContended as contended:
            return self._delay(delayed, RETRY_SECONDS, contended)
        except SecondChargeRefused:
            return self._failed(delayed.item, _second_refused(self.context.options.max_cost_usd))
        except IdeogramBudgetReached as reached:
            self.progress.refusal = reached
            return _Delay(DelayedItem(delayed.item, now := time.time(), now), reached)
        except IdeogramError as error:
            self._note(delayed, error, burst)
            return self._refused(delayed, error, burst)
        if isinstance(decision, InFlightItem):
            burst.sent_at.append(time.time())
            burst.has_response |= decision.job.submitted_at >= burst.started_at
        return decision

    def _note(self, delayed: DelayedItem, error: IdeogramError, burst: _Burst) -> None:
        """Note what an error shows about other submits."""
        if is_outage(error, was_in_doubt=self.context.state.is_in_doubt(delayed.item)):
            burst.outage = error
        burst.has_response |= is_response(error)

    def _get_or_submit(self, item: Item, admission: Admission, burst: _Burst) -> InFlightItem | ItemResult:
        context, options, attempts = self.context, self.context.options, Attempts(self.context)
        item, result = attempts.take_stored(item)
        if result is not None:
            return result
        submitter = Submitter(
            context.hook,
            context.store,
            context.ledger,
            context.target(item.key),
            owner=context.owner,
            max_tries=context.max_tries,
            if_exists=context.if_exists_of(item),
            resubmit=options.resubmit,
            admission=admission,
            resubmit_on_5xx=options.resubmit_on_5xx,
            before_second=lambda: burst.budget.reserve_second(item),
            before_first=lambda: burst.budget.reserve_after_charge(item),
        )
        found = submitter.get_or_submit(item.request, absent=item.absent)
        return attempts.accept(item, found) if isinstance(found, ImageRecord) else InFlightItem(item, found[0])

    def _refused(self, delayed: DelayedItem, error: IdeogramError, burst: _Burst) -> _Decision:
        """Return what an error means for its item; raise an error that concerns all items."""
        if isinstance(error, _SYSTEMATIC):
            burst.is_stopped = True
            raise error
        if isinstance(error, IdeogramUnknownSubmit):
            burst.sent_at.append(time.time())
        if isinstance(error, IdeogramTemporaryError) and not isinstance(error, IdeogramInvalidRecord):
            if isinstance(error, IdeogramStorageError):
                burst.storage_errors.append(error)
            return self._delay(delayed, RETRY_SECONDS, error)
        return self._failed(delayed.item, error)

    def _delay(self, delayed: DelayedItem, delay: float, error: IdeogramError) -> _Decision:
        now = time.time()
        if now + delay > delayed.delayed_since + PATIENCE_SECONDS:
            return self._failed(delayed.item, error)
        self.progress.notes.append((error.code, f"{delayed.item.id}: {error.reason}. Next attempt in {delay:.0f} s"))
        return _Delay(DelayedItem(delayed.item, now + delay, delayed.delayed_since), error)

    def _failed(self, item: Item, error: IdeogramError) -> ItemResult:
        if error.charged is False or (isinstance(error, IdeogramJobUnreachable) and error.paid_by_other_task):
            return ItemResult.of_error(item, error, cost_usd=0.0)
        return ItemResult.of_unsettled(self.context, item, error)

    def _count_second(self, items: list[DelayedItem], decisions: list[_Decision | None], burst: _Burst) -> None:
        """Count the requests that were, or may have been, submitted in place of others: both may be charged."""
        for delayed, decision in zip(items, decisions, strict=True):
            is_delayed = isinstance(decision, _Delay) and decision.may_be_charged
            is_failed = isinstance(decision, ItemResult) and decision.unsettled is not None
            if is_delayed or is_failed or isinstance(decision, InFlightItem):
                self.context.state.abandoned_usd += burst.budget.second_usd[delayed.item.key]

    def _apply(self, items: list[DelayedItem], decisions: list[_Decision | None]) -> None:
        """Write the lines of decided items, and put the others into the state."""
        state = self.context.state
        write_outcomes(self.context, [decision for decision in decisions if isinstance(decision, ItemResult)])
        for item, decision in zip(items, decisions, strict=True):
            if isinstance(decision, InFlightItem):
                state.in_flight.append(decision)
            elif isinstance(decision, _Delay):
                state.delayed.append(decision.item)
                if decision.may_be_charged:
                    unsettled = unsettled_request(self.context, decision.item.item, decision.error.request_id)
                    state.unsettled_requests[decision.item.item.key] = unsettled
            elif decision is None:
                state.delayed.append(item)


def take_items(
    context: SliceContext, progress: SliceProgress, budget: Budget, room: int, now: float
) -> list[DelayedItem]:
    """Remove the next items that the budget covers: due delayed ones first, then those of the plan."""
    state = context.state
    progress.budget_reached = False
    is_open = is_plan_open(context)
    due = [delayed for delayed in retried_items(state) if delayed.retry_at <= now]
    items = _admitted(context, budget, progress, iter(due[:room]))
    state.delayed = [delayed for delayed in state.delayed if delayed not in items]
    while len(items) < room and not progress.budget_reached and is_open and state.next_chunk < state.todo_chunks:
        lines = context.workspace.read_lines(chunk_name(state.plan, "todo", state.next_chunk))
        planned = lines[state.next_offset : state.next_offset + room - len(items)]
        taken = (DelayedItem(Item.from_json(line), now, now) for line in planned)
        admitted = _admitted(context, budget, progress, taken)
        items += admitted
        _advance(state, len(admitted), len(lines))
    progress.items_taken += len(items)
    return items


def _admitted(
    context: SliceContext, budget: Budget, progress: SliceProgress, items: Iterator[DelayedItem]
) -> list[DelayedItem]:
    """Return the items up to the first that the budget does not cover."""
    admitted, state = [], context.state
    for delayed in items:
        if not context.ledger.is_durable and (lost := state.unsettled_requests.pop(delayed.item.key, None)):
            state.abandoned_usd += lost.estimate_usd or 0.0  # nothing finds it: another request is paid
        if not budget.admits(delayed.item):
            progress.budget_reached, progress.unpriced_model = True, budget.unpriced_model
            break
        admitted.append(delayed)
    return admitted


def _advance(state: DatasetState, taken: int, chunk_size: int) -> None:
    state.next_offset += taken
    if state.next_offset >= chunk_size:
        state.next_chunk, state.next_offset = state.next_chunk + 1, 0


def _second_refused(limit: float | None) -> IdeogramUnknownSubmit:
    return IdeogramUnknownSubmit(
        f"max_cost_usd={limit} does not cover a second request; the first one is charged if it was accepted",
        "A retry searches for the first one again. Clear the task with a higher limit to submit a new request.",
    )
