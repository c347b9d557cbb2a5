"""
How the provider's errors end a task.

Invariant: every error of the provider leaves the XCom ``failure``, and three lines at ERROR: what happened, whether
money was spent, and what to do. An error that another attempt cannot resolve, or whose retry would pay again, fails the
task without a retry, on every version of Airflow.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_ideogram.exceptions import IdeogramError, IdeogramJobError, IdeogramTimeout

if TYPE_CHECKING:
    from airflow_provider_ideogram.jobs.refusal import OpenRequest

FAILURE_KEY = "failure"

log = logging.getLogger(__name__)

#: Airflow's log does not wrap lines; the exception has the whole text.
_MAX_LINE = 150
_TRIGGERER = "Check that a triggerer is running and has capacity, and read its log."
_MONEY = {True: "The request was charged", False: "Nothing was charged", None: "It is not known whether it was charged"}


@contextmanager
def airflow_failures(
    ti: Any,
    *,
    durable: bool,
    skipped: tuple[type[IdeogramError], ...] = (),
    final: tuple[type[IdeogramError], ...] = (),
) -> Iterator[None]:
    """
    Push an error of the provider as the XCom ``failure``, and raise what Airflow's retries are to see.

    :param ti: The task instance.
    :param durable: Whether a ledger keeps the request for the next attempt.
    :param skipped: Errors that skip the task.
    :param final: Errors that another attempt of this task cannot resolve, though one of another task can.
    """
    try:
        yield
    except IdeogramError as error:
        from airflow_provider_ideogram import metrics

        metrics.failed(error.code)
        ti.xcom_push(key=FAILURE_KEY, value=failure_xcom(error))
        if isinstance(error, skipped):
            raise AirflowSkipException(str(error)) from None
        for line in failure_lines(error):
            log.error("%s", line)
        log.debug("The error with its causes", exc_info=error)
        # Without the causes, whose texts the error has already.
        if error.retryable and not isinstance(error, final) and (durable or not error.needs_ledger):
            raise error from None
        raise AirflowFailException(str(error)) from None


def deferral_ended(
    why: str, found: OpenRequest | None, kind: type[IdeogramJobError] = IdeogramTimeout
) -> IdeogramJobError:
    """
    Return the error of a deferral that Airflow has ended: its time is over, or its trigger failed.

    :param why: Airflow's reason.
    :param found: What is known of the requests that the task waited for, None if there are certainly none.
    """
    reason = f"Airflow ended the deferral: {why}"
    if found is None:
        return kind(reason, f"No request was running, and nothing was charged. {_TRIGGERER}", charged=False)
    return kind(reason, f"{found.known} {_TRIGGERER}", charged=None, request_id=found.request_id)


def failure_lines(error: IdeogramError) -> list[str]:
    """Return what happened, whether money was spent and what to do, a line each; a line without content is left out."""
    money, _, remedy = error.advice.partition("\n")[0].partition(". ")
    lines = (error.reason, money.rstrip(".") or _MONEY[error.charged], remedy.rstrip(".:"))
    return [line if len(line) <= _MAX_LINE else f"{line[:_MAX_LINE]}…" for line in lines if line]


def failure_xcom(error: IdeogramError) -> dict[str, Any]:
    """Return the error as the XCom ``failure`` has it."""
    return {
        "reason": error.code,
        "error": error.reason,
        "advice": error.advice,
        "charged": error.charged,
        "request_id": error.request_id,
    }
