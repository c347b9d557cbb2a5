from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import RetryAction

from airflow_provider_ideogram import exceptions
from airflow_provider_ideogram.retries import IdeogramRetryPolicy

POLICY = IdeogramRetryPolicy()


@pytest.mark.parametrize(
    "error",
    [
        exceptions.IdeogramAuthenticationError("401"),
        exceptions.IdeogramInsufficientCredits("406"),
        exceptions.IdeogramInvalidInput("a typo"),
        exceptions.IdeogramContentBlocked("nsfw"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_retry_where_another_attempt_changes_nothing(error: Exception) -> None:
    decision = POLICY.evaluate(error, 1, 3)
    assert decision.action is RetryAction.FAIL
    assert decision.reason is not None
    assert type(error).__name__ in decision.reason


@pytest.mark.parametrize("retry_after", [0.0, 30.0, 600.0])
def test_retry_waits_as_the_server_asked_and_spreads(retry_after: float) -> None:
    error = exceptions.IdeogramRateLimited("429", retry_after=retry_after)
    decisions = [POLICY.evaluate(error, 1, 3) for _ in range(50)]
    assert {decision.action for decision in decisions} == {RetryAction.RETRY}
    delays = {decision.retry_delay.total_seconds() for decision in decisions if decision.retry_delay is not None}
    assert len(delays) > 40
    assert retry_after <= min(delays) < max(delays) <= retry_after + max(5.0, retry_after / 2)


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), exceptions.IdeogramServerUnavailable("503"), exceptions.IdeogramTimeout("late")]
)
def test_all_else_follows_the_task(error: Exception) -> None:
    assert POLICY.evaluate(error, 1, 3).action is RetryAction.DEFAULT
