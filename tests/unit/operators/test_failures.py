from __future__ import annotations

import inspect

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_ideogram import exceptions
from airflow_provider_ideogram.exceptions import IdeogramError
from airflow_provider_ideogram.operators.failures import airflow_failures

KINDS = [kind for kind in vars(exceptions).values() if inspect.isclass(kind) and issubclass(kind, IdeogramError)]
# Whether another attempt of the task makes sense: always, never, or only where a ledger knows what was paid.
ALWAYS = {
    exceptions.IdeogramTemporaryError,
    exceptions.IdeogramRateLimited,
    exceptions.IdeogramServerUnavailable,
    exceptions.IdeogramTargetBusy,
    exceptions.IdeogramStorageError,
    exceptions.IdeogramLedgerError,
    exceptions.IdeogramJobFailed,
    exceptions.IdeogramDatasetFailed,
}
NEVER = {
    exceptions.IdeogramError,
    exceptions.IdeogramNotCharged,
    exceptions.IdeogramInvalidInput,
    exceptions.IdeogramAuthenticationError,
    exceptions.IdeogramPermissionError,
    exceptions.IdeogramInsufficientCredits,
    exceptions.IdeogramNotFound,
    exceptions.IdeogramObjectExists,
    exceptions.IdeogramContentBlocked,
    exceptions.IdeogramDatasetStopped,
}


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "not durable"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_task_is_retried_only_where_that_can_help_and_does_not_pay_twice(
    kind: type[IdeogramError], durable: bool
) -> None:
    error = kind("what happened")
    if kind in ALWAYS or (durable and kind not in NEVER):
        with pytest.raises(IdeogramError) as retried, airflow_failures(durable=durable):
            raise error
        assert retried.value is error
    else:
        with pytest.raises(AirflowFailException) as failed, airflow_failures(durable=durable):
            raise error
        assert str(failed.value) == f"{kind.__name__}: what happened"
        assert failed.value.__cause__ is error


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), airflow_failures(durable=True):
        _ = 1 / 0
