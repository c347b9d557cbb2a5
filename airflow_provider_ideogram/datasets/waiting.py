"""
The wait between two slices of a dataset.

Invariant: a slice begins only when it has something to do, and not sooner than MIN_WAIT_SECONDS after the last one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_ideogram.api.back_off import RATE_WINDOW
from airflow_provider_ideogram.api.polling import deadline_of
from airflow_provider_ideogram.datasets.slice import RETRY_SECONDS, SliceContext, SliceProgress
from airflow_provider_ideogram.datasets.submitting import PACE_SECONDS
from airflow_provider_ideogram.exceptions import IdeogramDatasetStopped

#: If the rate limit delays submits, the next slice begins when it allows this many seconds of them.
SLICE_SECONDS = 12.0
#: Seconds between two slices at least: a task that resumes very soon after it deferred can be marked failed by
#: Airflow's scheduler while it continues (apache/airflow#72716).
MIN_WAIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Wait:
    """
    What the task waits for until the next slice.

    :param requests: The time of submission, in seconds since the epoch, by request id.
    :param not_before: When the next slice begins at the earliest, in seconds since the epoch.
    :param deadline: When it begins at the latest.
    :param min_settled: How many settled requests begin it, None for all.
    """

    requests: Mapping[str, float]
    not_before: float
    deadline: float
    min_settled: int | None


def next_wait(context: SliceContext, progress: SliceProgress) -> Wait | None:
    """
    Return what to wait for, None if every item is decided.

    :raises IdeogramDatasetStopped: If items are left, and the budget is spent.
    """
    state, now = context.state, time.time()
    if not context.has_items_to_submit and not state.in_flight:
        return None
    is_affordable = context.affordable != 0
    if context.has_items_to_submit and not state.in_flight and not is_affordable:
        raise IdeogramDatasetStopped(
            f"max_cost_usd={context.max_cost_usd} is reached with {state.done} of {state.total} items decided",
            f"{state.charged_text}. Stored images stay. Clear the task with a higher limit to continue.",
        )
    jobs = [item.job for item in state.in_flight if item.job.request_id not in progress.recheck_ids]
    deadlines = [deadline_of(job.submitted_at, context.timeout) for job in jobs]
    min_settled = None
    if progress.recheck_ids:
        deadlines.append(now + RETRY_SECONDS)
    if context.has_items_to_submit and is_affordable and not progress.storage_blocked:
        if len(state.in_flight) < context.max_in_flight:
            deadlines.append(_next_submit(context, now))
        else:
            min_settled = max(1, len(jobs) // 2)  # the next slice begins when half of them have ended
    requests = {job.request_id: job.submitted_at for job in jobs}
    not_before = now + MIN_WAIT_SECONDS
    return Wait(requests, not_before, max(min(deadlines), not_before), min_settled)


def _next_submit(context: SliceContext, now: float) -> float:
    """Return when a slice can submit enough to be worth its start."""
    state = context.state
    room = min(context.max_in_flight, state.total - state.done) - len(state.in_flight)
    worth = max(1, min(room, int((state.rate_limiter.rate or 0.0) * SLICE_SECONDS / RATE_WINDOW)))
    ready = state.rate_limiter.ready_at(worth, now) - PACE_SECONDS
    return ready if context.takes_from_plan else max(ready, min(delayed.at for delayed in state.delayed))
