"""
The end of a slice: what the trigger waits for before the next one.

Invariant: a slice ends with a wait, a result or an error; it never leaves an item that no later slice takes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_ideogram.account.budget import return_time
from airflow_provider_ideogram.account.limiter import PACE_SECONDS
from airflow_provider_ideogram.api.back_off import PATIENCE_SECONDS, RATE_WINDOW
from airflow_provider_ideogram.api.polling import deadline_of
from airflow_provider_ideogram.datasets.slice import RETRY_SECONDS, SliceContext, SliceProgress
from airflow_provider_ideogram.datasets.slots import has_own_limit, is_plan_open, retried_items
from airflow_provider_ideogram.exceptions import IdeogramDatasetFailed, IdeogramDatasetStopped

if TYPE_CHECKING:
    from airflow_provider_ideogram.account.turns import Turn
    from airflow_provider_ideogram.exceptions import IdeogramBudgetReached

log = logging.getLogger(__name__)

#: If the rate limit delays submits, the next slice begins when it allows this many seconds of them.
SLICE_SECONDS = 12.0
#: Seconds between two slices at least: a task that resumes very soon after it deferred can be marked failed by
#: Airflow's scheduler while it continues (apache/airflow#72716).
MIN_WAIT_SECONDS = 5.0
#: Seconds after which a run asks for its turn that was not called.
MAX_TURN_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Wait:
    """
    The wait until the next slice.

    :param requests: The time of submission by request id.
    :param not_before: When the next slice may begin, in seconds since the epoch.
    :param deadline: When it begins at the latest, in seconds since the epoch.
    :param min_settled: The number of ended requests with which the next slice begins, None for all.
    :param turn: The place among those that wait for the account's rate limit; the next slice begins with its call.
    """

    requests: Mapping[str, float]
    not_before: float
    deadline: float
    min_settled: int | None
    turn: Turn | None = None


def next_wait(context: SliceContext, progress: SliceProgress) -> Wait | None:
    """
    Return what to wait for, None when every item is decided.

    :raises IdeogramDatasetStopped: If a budget is reached and no request is running.
    """
    state, now = context.state, time.time()
    if not state.has_more and not state.in_flight:
        return None
    may_submit = state.has_more and not state.is_failing and not progress.is_storage_blocked
    if progress.refusal is not None and not state.in_flight:
        return _await_budget(context, progress.refusal)
    if (progress.budget_reached or progress.refusal) and state.in_flight:
        may_submit = False  # until a running request shows its true cost
    elif progress.budget_reached and not progress.items_taken and not _has_later_items(context, now):
        raise _budget_reached(context, progress.unpriced_model)
    jobs = [item.job for item in state.in_flight if item.job.request_id not in progress.recheck_ids]
    deadlines = [deadline_of(job.submitted_at, context.options.timeout) for job in jobs]
    min_settled = None
    if progress.recheck_ids or progress.is_storage_blocked:
        deadlines.append(now + RETRY_SECONDS)
    if may_submit and len(state.in_flight) < context.options.max_in_flight:
        deadlines.append(now + MAX_TURN_SECONDS if progress.turn else _next_submit(context, progress, now))
    elif may_submit:
        min_settled = max(1, len(jobs) // 2)  # the next slice begins when half of them have ended
    requests = {job.request_id: job.submitted_at for job in jobs}
    not_before = now + MIN_WAIT_SECONDS
    turn = progress.turn if may_submit else None
    return Wait(requests, not_before, max(min(deadlines), not_before), min_settled, turn)


def _has_later_items(context: SliceContext, now: float) -> bool:
    return any(delayed.retry_at > now for delayed in context.state.delayed)


def _next_submit(context: SliceContext, progress: SliceProgress, now: float) -> float:
    """Return when a slice can submit enough items to be worth its start."""
    state = context.state
    if state.outage.is_open:
        return max(state.outage.retry_at, _next_item(context, progress, now))
    if not has_own_limit(context):
        return _next_item(context, progress, now)
    room = min(context.options.max_in_flight, state.total - state.done) - len(state.in_flight)
    worth = max(1, min(room, int((state.rate_limiter.rate or 0.0) * SLICE_SECONDS / RATE_WINDOW)))
    ready = state.rate_limiter.ready_at(worth, now) - PACE_SECONDS
    return max(ready, _next_item(context, progress, now))


def _next_item(context: SliceContext, progress: SliceProgress, now: float) -> float:
    """Return when an item can be taken."""
    retried = retried_items(context.state)
    if not retried or (is_plan_open(context) and not progress.budget_reached):
        return now
    return min(delayed.retry_at for delayed in retried)


def raise_if_stopped(context: SliceContext) -> None:
    """
    Raise an error if nothing more is submitted.

    :raises IdeogramDatasetStopped: If too many items in a row failed for the same reason, a retry would not help, and
        no request is running: one that succeeds shows that not all fail.
    :raises IdeogramDatasetFailed: If a retry can help, also after an outage of submits.
    """
    state = context.state
    if not state.has_more:
        return
    if state.outage.is_too_long(time.time()):
        in_doubt = f", searches the account's history for {state.in_doubt} submits in doubt,"
        and_searches = in_doubt if context.ledger.is_durable else ""
        raise IdeogramDatasetFailed(
            f"The API accepted no submit for {PATIENCE_SECONDS / 60:.0f} minutes: {state.outage.reason}",
            f"{state.charged_text}. A retry reattaches to running requests{and_searches} and submits the other items.",
            charged=state.charged,
        )
    if state.is_failing and not state.in_flight:
        kind = IdeogramDatasetFailed if state.last_failure_is_temporary else IdeogramDatasetStopped
        what_next = "A retry" if state.last_failure_is_temporary else "Clear the task when the cause is gone: it"
        raise kind(
            f"The last {state.consecutive_same_failures} items failed for the same reason: {state.last_failure}",
            f"{state.charged_text}. {what_next} attempts what failed.",
            charged=state.charged,
        )


def _await_budget(context: SliceContext, reached: IdeogramBudgetReached) -> Wait:
    """Return the wait for the end of a budget's window; raise IdeogramDatasetStopped if the run is not to wait."""
    if context.options.waits_for_budget:
        log.warning("%s. The run waits until the budget's window ends", reached.reason)
        return_at = return_time(reached.ends_at)
        return Wait({}, return_at, return_at, None)
    state = context.state
    raise IdeogramDatasetStopped(
        f"{reached.reason}; {state.done} of {state.total} items are decided",
        f"{state.charged_text}. Stored images stay. Clear the task when the budget's window has ended, at "
        f"{datetime.fromtimestamp(reached.ends_at, UTC):%Y-%m-%d %H:%M} UTC, or raise it in the connection; "
        "on_budget='wait' waits for that.",
        charged=state.charged,
    )


def _budget_reached(context: SliceContext, unpriced_model: str | None) -> IdeogramDatasetStopped:
    """
    Return the error of a run that ``max_cost_usd`` stops.

    :param unpriced_model: The model whose unknown price alone is in the way, None if there is none.
    """
    state, limit = context.state, context.options.max_cost_usd
    reason = f"max_cost_usd={limit} is reached with {state.done} of {state.total} items decided"
    what_next = "Clear the task with a higher limit to continue."
    if unpriced_model is not None:
        reason = (
            f"The cost of an image of {unpriced_model} is unknown, and a request without a known price has not ended"
        )
        what_next = "Clear the task with price_usd to continue."
    elif state.images_without_cost and context.options.price_usd is None:
        reason = f"max_cost_usd={limit} can't be kept: the vendor's responses have no cost"
        what_next = "Clear the task with price_usd to continue."
    return IdeogramDatasetStopped(
        reason,
        f"{state.charged_text}. Stored images stay. {what_next}",
        charged=state.charged,
    )
