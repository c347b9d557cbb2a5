"""
The admission of the submits of one target, one after another.

Invariant: a submit follows a slot of the rate limit and a reserved amount, and both are fresh: a task that was held up
asks again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from airflow_provider_ideogram.account.account import Account, Slot, TurnAhead
from airflow_provider_ideogram.account.budget import FRESH_SECONDS
from airflow_provider_ideogram.account.limiter import PACE_SECONDS
from airflow_provider_ideogram.account.reservations import Settlement, cancel, settle
from airflow_provider_ideogram.account.turns import Turn
from airflow_provider_ideogram.exceptions import IdeogramRateLimited

#: Seconds by which a submit may follow its slot: less than the limiter's margin.
_LATE_SECONDS = 0.5


@dataclass(slots=True)
class AccountAdmission:
    """
    Slots and amounts for the submits of one target.

    :param account: The limit and the budgets.
    :param turn: The place of an earlier :class:`~airflow_provider_ideogram.account.account.TurnAhead`.
    :param slot: A slot that was taken before, for the first submit; None without one.
    :param corrects_slots: Whether a late submit corrects its slot; otherwise the caller does by ``used``.
    """

    account: Account
    turn: Turn | None = None
    slot: Slot | None = None
    corrects_slots: bool = True
    is_shared: bool = field(default=True, init=False)
    used: list[tuple[Slot, float]] = field(default_factory=list, init=False)
    _fresh_until: float = field(default=0.0, init=False)

    def admit(self, model: str, record: str | None) -> str:
        """
        Take a slot, reserve the amount of an image, and wait for the slot, which is a few seconds ahead at most.

        :param model: The model's slug.
        :param record: The address of the ledger's record that is written next, None without a ledger.
        :return: The address of the reservation.
        :raises TurnAhead: If no slot is free.
        :raises IdeogramRateLimited: If the slot that was taken before is too old.
        :raises IdeogramBudgetReached: If a budget leaves no room.
        :raises IdeogramStorageError: If the account's objects can't be used.
        """
        slot = self._take_slot() if self.slot is None else self.slot
        self._fresh_until = slot.at + FRESH_SECONDS
        self._check_age()
        self.slot, self._fresh_until = slot, time.time() + FRESH_SECONDS
        reservation = self.account.reserve(model, record)
        time.sleep(min(max(slot.at - time.time(), 0.0), PACE_SECONDS))
        return reservation

    def check(self) -> None:
        """Use the slot; raise IdeogramRateLimited if the admission is too old to submit."""
        self._check_age()
        if self.slot is not None:
            self.used.append((self.slot, time.time()))
        self.slot = None

    def submitted(self) -> None:
        """Correct the slot of a late submit."""
        if self.corrects_slots:
            late, self.used = late_slots(self.used), []
            self.account.correct_slots(late)

    def limited(self, delay: float) -> None:
        """Tell all tasks of the account that a submit was answered 429; ``delay`` is in seconds."""
        self.account.limited(delay)

    def cancel(self, reservation: str | None) -> None:
        """Release the amount of a request that certainly was not submitted."""
        cancel(self.account.objects, reservation)

    def settle(
        self, reservation: str | None, usd: float | None, *, failed: bool = False, lost_request_id: str | None = None
    ) -> bool:
        """Replace a reservation by the true cost, and return whether that was possible."""
        return settle(self.account.objects, [Settlement(reservation, usd, failed, lost_request_id)])

    def _take_slot(self) -> Slot:
        turn, self.turn = self.turn, None
        slots, ahead = self.account.take_slots(1, turn)
        if not slots:
            assert ahead is not None  # noqa: S101 - a task that gets no slot waits
            raise TurnAhead(ahead)
        return slots[0]

    def _check_age(self) -> None:
        if time.time() > self._fresh_until:
            raise IdeogramRateLimited(
                "The task was held up after it got its slot of the rate limit",
                "Nothing was submitted. The task takes another slot.",
                retry_after=0.0,
            )


def late_slots(used: Iterable[tuple[Slot, float]]) -> list[tuple[Slot, float]]:
    """Return the slots whose submits were sent so late that the limiter must know."""
    return [(slot, sent_at) for slot, sent_at in used if sent_at > slot.at + _LATE_SECONDS]
