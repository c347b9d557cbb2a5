"""
The retry policy for Airflow 3.3 and newer. On an older Airflow the import of this module raises ImportError.

Invariant: the policy never allows more attempts than the task's ``retries``. The operators make the same distinctions
on every version of Airflow: they raise AirflowFailException for errors that a retry does not fix.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import RetryDecision, RetryPolicy

from airflow_provider_ideogram.api.back_off import submit_delay
from airflow_provider_ideogram.exceptions import IdeogramError, IdeogramTemporaryError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class IdeogramRetryPolicy(RetryPolicy):
    """
    Decide about retries by the kind of error: ``retry_policy=IdeogramRetryPolicy()`` on any task that calls the API.

    After an error for which the server asked to wait, the retry waits that long, plus jitter. An error that a retry
    does not fix (the key, the credits, the input, blocked content) fails the task at once. All other errors follow the
    task's own settings.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Return the decision for an error, by its kind and its ``retry_after``."""
        if not isinstance(exception, IdeogramError):
            return RetryDecision.default()
        if not exception.retryable:
            return RetryDecision.fail(reason=f"{type(exception).__name__}: a retry does not fix this error")
        if isinstance(exception, IdeogramTemporaryError) and exception.retry_after is not None:
            delay = timedelta(seconds=submit_delay(exception.retry_after, random.Random()))
            return RetryDecision.retry(delay=delay, reason=f"the server asked to wait {exception.retry_after:.0f} s")
        return RetryDecision.default()
