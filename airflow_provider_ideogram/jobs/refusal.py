"""
Refusals before a submit while a request of an earlier attempt may be open.

Invariant: a refusal that another attempt would meet too ends the task without a retry only if certainly no request of
an earlier attempt can still be charged or fetched. Only then is "nothing was charged" said of the task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_ideogram.exceptions import (
    IdeogramConnectionMissing,
    IdeogramJobUnreachable,
    IdeogramLedgerError,
    IdeogramNotCharged,
    IdeogramStorageRefused,
)
from airflow_provider_ideogram.storage.image_record import iso_utc

if TYPE_CHECKING:
    from airflow_provider_ideogram.jobs.submission import Submitter


#: Errors whose cause a person has to remove.
_REFUSALS = (IdeogramNotCharged, IdeogramStorageRefused, IdeogramConnectionMissing)


@contextmanager
def retried_while_open(find_open: Callable[[], str | None]) -> Iterator[None]:
    """
    Let Airflow retry the task after a refusal while a request is, or may be, open.

    :param find_open: Returns what is known of the open requests, as sentences; None if there is certainly none.
    :raises IdeogramJobUnreachable: In place of the refusal while a request is, or may be, open.
    """
    try:
        yield
    except _REFUSALS as refused:
        open_requests = find_open()
        if open_requests is None:
            raise
        remedy = refused.advice.partition(". ")[2]
        raise IdeogramJobUnreachable(
            refused.reason, f"{open_requests} {remedy}".rstrip(), status_code=refused.status_code
        ) from refused


def open_request_of(submitter: Submitter, *, is_first_slice: bool) -> str | None:
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
    return (
        f"A submit of {record.intent.owner} at {iso_utc(record.intent.intent_at)} may have been accepted, and is "
        "charged if it completes. The next attempt searches the account's history for it."
    )


def submitted_before(request_id: str) -> str:
    """Return what is known of a request that was submitted before this slice."""
    return (
        f"Request {request_id} was submitted before, and is charged if it completes. The next attempt reattaches to "
        "it: the vendor holds its image for seven days."
    )


#: What is known while the ledger can't be read.
NOT_READABLE = (
    "An earlier attempt may have submitted a request, which is charged if it completes. The next attempt reattaches to "
    "it once the ledger can be read."
)
#: What is known without a ledger of a request that another slice may have submitted.
NOT_RECORDED = (
    "A request may be running, and is charged if it completes. No attempt can find it with durable=False: clear the "
    "task to submit and pay for a new one."
)
