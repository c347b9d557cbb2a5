"""
The retry policy for Airflow 3.3 and newer; importing it on an older one raises ImportError.

Invariant: it only shortens what a task's ``retries`` allow; the operators make the same distinctions on every
version of Airflow by the kind of exception they raise.
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
    Retry as the provider's errors ask for: ``retry_policy=IdeogramRetryPolicy()`` on any task that calls the API.

    Waits as long as the server asked, spread so that tasks which failed together don't come back together; fails
    at once where another attempt changes nothing (the key, the credits, the input, blocked content). All other
    errors follow the task's own settings.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Decide by the kind of error, and by what it says about waiting."""
        if not isinstance(exception, IdeogramError):
            return RetryDecision.default()
        if not exception.retryable:
            return RetryDecision.fail(reason=f"{type(exception).__name__}: another attempt changes nothing")
        if isinstance(exception, IdeogramTemporaryError) and exception.retry_after is not None:
            delay = timedelta(seconds=submit_delay(exception.retry_after, random.Random()))
            return RetryDecision.retry(delay=delay, reason=f"the server asked to wait {exception.retry_after:.0f} s")
        return RetryDecision.default()
