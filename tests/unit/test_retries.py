"""The retry policy: its decision for each kind of error, and what Airflow's task runner makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_ideogram import exceptions
from airflow_provider_ideogram.exceptions import IdeogramError, IdeogramTemporaryError
from airflow_provider_ideogram.operators.failures import airflow_failures
from tests.support.airflow_version import AIRFLOW, need_airflow
from tests.support.task_runner import TaskRunner

if TYPE_CHECKING:
    from airflow_provider_ideogram.retries import IdeogramRetryPolicy

#: Errors that a retry does not fix. All others are retried, since the ledger keeps paid requests.
NO_RETRY = {
    "IdeogramStorageRefused",
    "IdeogramLedgerRefused",
    "IdeogramNotCharged",
    "IdeogramInvalidInput",
    "IdeogramAuthenticationError",
    "IdeogramPermissionError",
    "IdeogramInsufficientCredits",
    "IdeogramSpendLimitReached",
    "IdeogramBudgetReached",
    "IdeogramModelRetired",
    "IdeogramNotFound",
    "IdeogramObjectExists",
    "IdeogramContentBlocked",
    "IdeogramDatasetStopped",
    "IdeogramImageRejected",
    "IdeogramNotApproved",
    "IdeogramReviewTimeout",
}


def _tree(kind: type[IdeogramError]) -> Iterator[type[IdeogramError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _tree(child)


ERRORS = pytest.mark.parametrize("kind", list(_tree(IdeogramError)), ids=lambda kind: kind.__name__)
TEMPORARY = pytest.mark.parametrize(
    "kind",
    [IdeogramTemporaryError, *(kind for kind in _tree(IdeogramTemporaryError) if kind.retryable)],
    ids=lambda kind: kind.__name__,
)


class Fails(BaseOperator):
    """A task that raises an error as the hook does or, with ``wrap``, as the provider's operators do."""

    def __init__(self, error: Exception, wrap: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.error = error
        self.wrap = wrap

    def execute(self, context: Any) -> None:
        if self.wrap:
            with airflow_failures(context["ti"], durable=True):
                raise self.error
        raise self.error


@pytest.fixture
def policy() -> IdeogramRetryPolicy:
    need_airflow("3.3", "retry policies")
    from airflow_provider_ideogram.retries import IdeogramRetryPolicy

    return IdeogramRetryPolicy()


def test_import_fails_on_older_airflow() -> None:
    expected = nullcontext() if AIRFLOW >= (3, 3) else pytest.raises(ImportError, match="RetryDecision")
    with expected:
        import airflow_provider_ideogram.retries  # noqa: F401


@ERRORS
def test_decision_follows_the_kind_of_error(kind: type[IdeogramError], policy: IdeogramRetryPolicy) -> None:
    decision = policy.evaluate(kind("reason"), try_number=1, max_tries=3)

    if kind.__name__ in NO_RETRY:
        assert decision.action.name == "FAIL"
        assert decision.reason == f"{kind.__name__}: a retry does not fix this error"
    else:
        assert decision.action.name == "DEFAULT"


@TEMPORARY
@pytest.mark.parametrize(("retry_after", "longest"), [(0.0, 5.0), (4.0, 9.0), (60.0, 90.0), (3600.0, 5400.0)])
def test_delay_is_at_least_the_servers_and_has_jitter(
    kind: type[IdeogramTemporaryError], retry_after: float, longest: float, policy: IdeogramRetryPolicy
) -> None:
    decisions = [policy.evaluate(kind("busy", retry_after=retry_after), 1, 3) for _ in range(20)]

    assert {decision.action.name for decision in decisions} == {"RETRY"}
    assert {decision.reason for decision in decisions} == {f"the server asked to wait {retry_after:.0f} s"}
    delays = {decision.retry_delay.total_seconds() for decision in decisions if decision.retry_delay}
    assert len(delays) == 20
    assert retry_after <= min(delays) < max(delays) <= longest


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt(), ValueError("not of this provider")])
def test_other_errors_follow_the_task(error: BaseException, policy: IdeogramRetryPolicy) -> None:
    assert policy.evaluate(error, 1, 3).action.name == "DEFAULT"


@ERRORS
@pytest.mark.parametrize("wrap", [False, True], ids=["raised by the hook", "raised by an operator"])
def test_airflow_follows_the_policy(
    kind: type[IdeogramError], wrap: bool, task_runner: TaskRunner, policy: IdeogramRetryPolicy
) -> None:
    run = task_runner(Fails(error=kind("reason"), wrap=wrap, task_id="t", retries=2, retry_policy=policy))
    assert run.execute().state == ("failed" if kind.__name__ in NO_RETRY else "up_for_retry")


@ERRORS
def test_operators_decide_the_same_without_the_policy(kind: type[IdeogramError], task_runner: TaskRunner) -> None:
    run = task_runner(Fails(error=kind("reason"), wrap=True, task_id="t", retries=2))
    assert run.execute().state == ("failed" if kind.__name__ in NO_RETRY else "up_for_retry")


def test_airflow_waits_for_the_servers_retry_after(task_runner: TaskRunner, policy: IdeogramRetryPolicy) -> None:
    from tests.support.task_sdk import SdkTaskRun

    error = exceptions.IdeogramRateLimited("429", retry_after=100)
    run = task_runner(Fails(error=error, wrap=True, task_id="t", retries=2, retry_policy=policy))

    assert run.execute().state == "up_for_retry"

    assert isinstance(run, SdkTaskRun)
    [body] = [line.split(" ", 2)[2] for line in run.api.received if "up_for_retry" in line]
    decision = json.loads(body)
    assert 100 <= decision["retry_delay_seconds"] <= 150
    assert decision["retry_reason"] == "the server asked to wait 100 s"


def test_policy_does_not_exceed_the_retries_of_the_task(task_runner: TaskRunner, policy: IdeogramRetryPolicy) -> None:
    error = exceptions.IdeogramRateLimited("429", retry_after=1)
    run = task_runner(Fails(error=error, task_id="t", retries=0, retry_policy=policy))
    assert run.execute().state == "failed"
