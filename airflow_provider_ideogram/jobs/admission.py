"""
What a submit needs from the account: a slot of its rate limit and an amount of its budget.

Invariant: asked for before the intent is written, and ended by a cost or by the certainty that nothing was submitted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from airflow_provider_ideogram.api.polling import Outcome
from airflow_provider_ideogram.exceptions import IdeogramStorageError

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.polling import RequestPoll
    from airflow_provider_ideogram.jobs.record import Intent


class Admission(Protocol):
    """The account, for the submits of one task; errors of the account's limits pass through the submitter."""

    @property
    def is_shared(self) -> bool:
        """Whether there is anything to admit by."""

    def admit(self, model: str, record: str | None) -> str | None:
        """
        Take a slot, reserve an amount, and wait for the slot.

        :param record: The address of the ledger's record that is written next, None without a ledger.
        :return: The reservation.
        """

    def check(self) -> None:
        """Raise IdeogramRateLimited if it is too late to submit."""

    def submitted(self) -> None:
        """Record that a submit was sent."""

    def limited(self, delay: float) -> None:
        """Record that the submit was answered 429; ``delay`` is the seconds to wait."""

    def cancel(self, reservation: str | None) -> None:
        """End the reservation of a request that certainly was not submitted."""

    def settle(
        self, reservation: str | None, usd: float | None, *, failed: bool = False, lost_request_id: str | None = None
    ) -> bool:
        """
        End a reservation by what the request cost, and return whether that was possible.

        :param usd: The cost, None if it is unknown.
        :param failed: Whether the request made no image.
        :param lost_request_id: The vendor's id of the request, if its image can no longer be had.
        """


class Unlimited:
    """The admission of an account without a limit or budget."""

    is_shared = False

    def admit(self, model: str, record: str | None) -> None:
        """Return None."""

    def check(self) -> None:
        """Do nothing."""

    def submitted(self) -> None:
        """Do nothing."""

    def limited(self, delay: float) -> None:
        """Do nothing."""

    def cancel(self, reservation: str | None) -> None:
        """Do nothing."""

    def settle(
        self,
        reservation: str | None,  # noqa: ARG002
        usd: float | None,  # noqa: ARG002
        *,
        failed: bool = False,  # noqa: ARG002
        lost_request_id: str | None = None,  # noqa: ARG002
    ) -> bool:
        """Return True."""
        return True


UNLIMITED = Unlimited()


@contextmanager
def admitted(admission: Admission, intent: Intent, record: str | None) -> Iterator[Intent]:
    """
    Yield an intent with its reservation; end that if the intent is not written.

    :param record: The address of the record that the intent is written to.
    """
    reservation = admission.admit(intent.request.model, record)
    try:
        yield replace(intent, reservation=reservation)
    except BaseException:
        admission.cancel(reservation)
        raise


def settle_replaced(
    admission: Admission,
    reservation: str | None,
    usd: float | None,
    *,
    failed: bool = False,
    lost_request_id: str | None = None,
) -> None:
    """
    End the reservation of a record that is replaced next; the parameters are those of :meth:`Admission.settle`.

    :raises IdeogramStorageError: If it can't be ended: without its record it would be released.
    """
    if not admission.settle(reservation, usd, failed=failed, lost_request_id=lost_request_id):
        raise IdeogramStorageError(
            "The cost of an earlier request of the target can't be recorded in the account",
            "Nothing was submitted by this attempt; the earlier request may have been charged. The next attempt "
            "records it.",
            charged=None,
        )


def settle_abandoned(admission: Admission, reservation: str | None, poll: RequestPoll) -> None:
    """End the reservation of a request that ended, or whose end is no longer waited for, before it is replaced."""
    lost = poll.outcome is Outcome.EXPIRED
    failed = poll.is_terminal_failure and not lost
    usd = poll.cost_usd if poll.outcome is Outcome.COMPLETED else None
    settle_replaced(admission, reservation, usd, failed=failed, lost_request_id=poll.request_id if lost else None)
