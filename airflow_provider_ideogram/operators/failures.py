"""
How the provider's errors end a task.

Invariant: an error that another attempt cannot mend, or whose retry would pay again, fails the task without
one, on every version of Airflow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_ideogram.exceptions import IdeogramError


@contextmanager
def airflow_failures(
    *, durable: bool, skipped: tuple[type[IdeogramError], ...] = (), final: tuple[type[IdeogramError], ...] = ()
) -> Iterator[None]:
    """
    Turn errors that are not to be retried into :class:`AirflowFailException`, the error itself as its cause.

    :param durable: Whether a ledger tells the next attempt of a job that was paid.
    :param skipped: Errors that skip the task.
    :param final: Errors that another attempt of this task cannot mend, though one of others can.
    """
    try:
        yield
    except IdeogramError as error:
        from airflow_provider_ideogram import metrics

        metrics.failed(error.code)
        if isinstance(error, skipped):
            raise AirflowSkipException(str(error)) from error
        if error.retryable and not isinstance(error, final) and (durable or not error.needs_ledger):
            raise
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error
