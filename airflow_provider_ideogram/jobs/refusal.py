"""
Refusals by S3 while a request may be open.

Invariant: a refusal that another attempt would meet too ends the task without a retry only if certainly no request of
an earlier attempt can still be charged or fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_ideogram.exceptions import IdeogramLedgerError, IdeogramStorageError, IdeogramStorageRefused
from airflow_provider_ideogram.storage.image_record import iso_utc

if TYPE_CHECKING:
    from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger


@contextmanager
def retried_while_open(find_open: Callable[[], str | None]) -> Iterator[None]:
    """
    Let Airflow retry the task after a permanent refusal while a request is, or may be, open.

    :param find_open: Returns what is known of the open requests, as sentences; None if there is certainly none.
    """
    try:
        yield
    except IdeogramStorageRefused as refused:
        open_requests = find_open()
        if open_requests is None:
            raise
        kind = IdeogramLedgerError if isinstance(refused, IdeogramLedgerError) else IdeogramStorageError
        remedy = refused.advice.partition(". ")[2]
        raise kind(
            refused.reason,
            f"{open_requests} {remedy}".rstrip(),
            charged=None,
            status_code=refused.status_code,
        ) from refused


def open_request_of(ledger: Ledger | NoLedger, key: str, *, is_first_slice: bool) -> str | None:
    """
    Return what is known of the open request of a target, None if there is certainly none.

    :param key: The key of its record.
    :param is_first_slice: Whether no earlier attempt or slice of the task can have submitted.
    """
    try:
        record = ledger.read(key)
    except IdeogramLedgerError:
        return None if is_first_slice else _UNKNOWN
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


_UNKNOWN = (
    "An earlier attempt may have submitted a request, which is charged if it completes. The next attempt reattaches to "
    "it once the ledger can be read."
)
