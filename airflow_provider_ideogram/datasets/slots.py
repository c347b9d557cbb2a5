"""
The part of the account's rate limit that a burst of a dataset gets.

Invariant: a burst takes all its slots at once, at most a share of the limit, so that other tasks submit in between.
Slots in which nothing was submitted are released, and those of late submits are corrected.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from airflow_provider_ideogram.account.admission import AccountAdmission, late_slots
from airflow_provider_ideogram.account.store import AccountContended
from airflow_provider_ideogram.datasets.outage import MAX_IN_DOUBT
from airflow_provider_ideogram.jobs.admission import UNLIMITED, Unlimited

if TYPE_CHECKING:
    from airflow_provider_ideogram.account.account import Slot
    from airflow_provider_ideogram.datasets.slice import SliceContext, SliceProgress
    from airflow_provider_ideogram.datasets.state import DatasetState, DelayedItem

#: When to submit, in seconds since the epoch, and what admits the submit.
Planned: TypeAlias = tuple[float, AccountAdmission | Unlimited]


def has_own_limit(context: SliceContext) -> bool:
    """Return whether the run keeps a rate limit by itself: its own argument, or the connection's if none is shared."""
    return context.account is None or context.options.requests_per_minute is not None


@dataclass(slots=True)
class BurstSlots:
    """The slots of one burst."""

    context: SliceContext
    progress: SliceProgress
    _taken: list[tuple[Slot, AccountAdmission]] = field(default_factory=list, init=False)

    def take(self, times: Sequence[float]) -> list[Planned]:
        """
        Return the submits of a burst; where fewer slots are free than items wait, the run gets a place in the queue.

        :param times: When the run itself may submit.
        :raises AccountContended: If other tasks change the account's objects all the time; the run keeps its place.
        :raises IdeogramStorageError: If the account's objects can't be used.
        """
        account = self.context.account
        if account is None:
            return [(at, UNLIMITED) for at in times]
        turn, self.progress.turn = self.progress.turn, None
        wanted = min(len(times), _count_ready(self.context))
        if wanted <= 0:
            return []
        try:
            slots, self.progress.turn = account.take_slots(wanted, turn)
        except AccountContended:
            self.progress.turn = turn
            raise
        self._taken = [(slot, AccountAdmission(account, slot=slot, corrects_slots=False)) for slot in slots]
        return [(max(at, slot.at), admission) for at, (slot, admission) in zip(times, self._taken, strict=False)]

    def correct(self) -> None:
        """Release the slots in which nothing was submitted, and correct those of late submits."""
        unused = [(slot, None) for slot, admission in self._taken if admission.slot is slot]
        late = late_slots(used for _, admission in self._taken for used in admission.used)
        if self.context.account is not None:
            self.context.account.correct_slots([*unused, *late])


def is_plan_open(context: SliceContext) -> bool:
    """Return whether items are taken from the plan: not while ``max_in_flight`` items are delayed or many in doubt."""
    state = context.state
    is_full = len(state.delayed) >= context.options.max_in_flight or state.in_doubt >= MAX_IN_DOUBT
    return state.next_chunk < state.todo_chunks and not is_full


def retried_items(state: DatasetState) -> list[DelayedItem]:
    """Return the delayed items that may be retried: while many are in doubt, only those."""
    is_full = state.in_doubt >= MAX_IN_DOUBT
    return [delayed for delayed in state.delayed if not is_full or state.is_in_doubt(delayed.item)]


def _count_ready(context: SliceContext) -> int:
    """Return how many items can be submitted now, at most."""
    state, now = context.state, time.time()
    due = sum(delayed.retry_at <= now for delayed in retried_items(state))
    planned = state.total - state.done - len(state.in_flight) - len(state.delayed)
    return due + (planned if is_plan_open(context) else 0)
