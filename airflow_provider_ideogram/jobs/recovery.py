"""
Recovery of a request whose record at the vendor is gone: status and result answer 404 after an hour.

The image file lives for seven days, and the account's history names its address.

Invariant: nothing here submits. Only a missing file, or a request that is still missing from a readable history after
its longest delay, is ``EXPIRED``; a history that can't be read, or may lag, proves nothing. Without a history, a
request whose record is gone is ``EXPIRED`` at once.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from airflow_provider_ideogram.api.history import HISTORY_LAG_MAX
from airflow_provider_ideogram.api.polling import FILE_LIFETIME, Outcome
from airflow_provider_ideogram.exceptions import IdeogramError, job_unreachable

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.parameters import GenerationRequest
    from airflow_provider_ideogram.api.polling import RequestPoll
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook

log = logging.getLogger(__name__)


def recover(hook: IdeogramHook, poll: RequestPoll, request: GenerationRequest | None) -> None:
    """
    Search the account's history for a request, and set the poll's outcome.

    COMPLETED has the image's address and cost; FAILED and CONTENT_BLOCKED were not charged; PENDING is running;
    EXPIRED can no longer be had.

    :param request: What was sent; None if it is unknown.
    :raises IdeogramJobUnreachable: If the history can't be read, or may not show the request yet.
    """
    if not hook.has_history:
        poll.outcome = Outcome.EXPIRED
        return
    now = time.time()
    age = now - poll.submitted_at
    try:
        row = hook.find_in_history(poll.request_id)
        if row is None and request is not None:
            row = hook.find_in_list(poll.request_id, request.model, poll.submitted_at)
    except IdeogramError as error:
        raise job_unreachable(poll.request_id, f"the account's history can't be read ({error.reason})") from error
    if row is not None:
        poll.on_history(row, now)
        if poll.outcome is Outcome.COMPLETED:
            log.info("Request %s is recovered from the account's history: nothing is submitted", poll.request_id)
        elif poll.outcome is Outcome.PENDING and age > FILE_LIFETIME:
            poll.outcome = Outcome.EXPIRED
    elif age > HISTORY_LAG_MAX:
        poll.outcome = Outcome.EXPIRED
    else:
        raise job_unreachable(
            poll.request_id,
            "its record is gone, and the account's history, whose rows may be late, does not show it",
        )
