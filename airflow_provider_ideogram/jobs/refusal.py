"""
Refusals before a submit while a request of an earlier attempt may be open.

Invariant: a refusal that another attempt would meet too ends the task without a retry only if certainly no request of
an earlier attempt can still be charged or fetched. Only then is "nothing was charged" said of the task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_ideogram.exceptions import (
    IdeogramConnectionMissing,
    IdeogramError,
    IdeogramJobUnreachable,
    IdeogramLedgerError,
    IdeogramLedgerRefused,
    IdeogramNotCharged,
    IdeogramObjectExists,
    IdeogramStorageRefused,
)
from airflow_provider_ideogram.storage.image_record import iso_utc

if TYPE_CHECKING:
    from airflow_provider_ideogram.jobs.submission import Submitter


#: Errors of the connections, and all errors before a submit, whose cause a person has to remove.
OF_CONNECTIONS: tuple[type[IdeogramError], ...] = (IdeogramStorageRefused, IdeogramConnectionMissing)
BEFORE_SUBMIT = (*OF_CONNECTIONS, IdeogramNotCharged)


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """
    What is known of a request, or of several, that can still be charged or fetched.

    :param known: What is known, as sentences: first the money.
    :param request_id: The vendor's id, None if it is not known or if there are several.
    """

    known: str
    request_id: str | None = None


@contextmanager
def retried_while_open(
    find_open: Callable[[], OpenRequest | None], refusals: tuple[type[IdeogramError], ...] = BEFORE_SUBMIT
) -> Iterator[None]:
    """
    Let Airflow retry the task after a refusal while a request is, or may be, open.

    :param find_open: Returns what is known of the open requests, None if there is certainly none.
    :param refusals: The errors that count as a refusal.
    :raises IdeogramJobUnreachable: In place of the refusal while a request is, or may be, open.
    """
    try:
        yield
    except IdeogramObjectExists:  # the object stays, so another attempt meets it too
        raise
    except refusals as refused:
        found, remedy = find_open(), refused.advice.partition(". ")[2]
        if found is not None:
            raise IdeogramJobUnreachable(
                refused.reason,
                f"{found.known} {remedy}".rstrip(),
                request_id=found.request_id,
                status_code=refused.status_code,
            ) from refused
        if isinstance(refused, IdeogramLedgerRefused):  # the ledger itself can't say it
            advice = f"Nothing was charged by this attempt. {remedy}"
            raise IdeogramLedgerRefused(
                refused.reason, advice, charged=False, status_code=refused.status_code
            ) from refused
        raise


def open_request_of(submitter: Submitter, *, is_first_slice: bool) -> OpenRequest | None:
    """
    Return what the ledger shows of the open request of a target, None if there is certainly none.

    :param is_first_slice: Whether no earlier attempt or slice of the task can have submitted.
    """
    try:
        record = submitter.ledger.read(submitter.record_key)
    except IdeogramLedgerError:
        return None if is_first_slice else NOT_READABLE
    if record is None or record.not_submitted:
        return None
    if record.request_id is not None:
        return submitted_before(record.request_id)
    return OpenRequest(
        f"A submit of {record.intent.owner} at {iso_utc(record.intent.intent_at)} may have been accepted, and is "
        "charged if it completes. The next attempt searches the account's history for it."
    )


def submitted_before(request_id: str) -> OpenRequest:
    """Return what is known of a request that was submitted before this slice."""
    return OpenRequest(
        f"Request {request_id} was submitted before, and is charged if it completes. The next attempt reattaches to "
        "it: the vendor holds its image for seven days.",
        request_id,
    )


#: What is known while the ledger can't be read.
NOT_READABLE = OpenRequest(
    "An earlier attempt may have submitted a request, which is charged if it completes. The next attempt reattaches to "
    "it once the ledger can be read."
)
#: What is known without a ledger of a request that another slice may have submitted.
NOT_RECORDED = OpenRequest(
    "A request may be running, and is charged if it completes. No attempt can find it with durable=False: clear the "
    "task to submit and pay for a new one."
)
