from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_ideogram import exceptions
from airflow_provider_ideogram.exceptions import IdeogramError
from airflow_provider_ideogram.operators.failures import airflow_failures, failure_lines

KINDS = [kind for kind in vars(exceptions).values() if inspect.isclass(kind) and issubclass(kind, IdeogramError)]
#: Errors that are retried always, and never; all others only with a ledger.
ALWAYS = {
    exceptions.IdeogramTemporaryError,
    exceptions.IdeogramRateLimited,
    exceptions.IdeogramServerUnavailable,
    exceptions.IdeogramConnectionMissing,
    exceptions.IdeogramTargetBusy,
    exceptions.IdeogramStorageError,
    exceptions.IdeogramLedgerError,
    exceptions.IdeogramInvalidRecord,
    exceptions.IdeogramJobFailed,
    exceptions.IdeogramGateFailed,
    exceptions.IdeogramDatasetFailed,
}
NEVER = {
    exceptions.IdeogramError,
    exceptions.IdeogramNotCharged,
    exceptions.IdeogramInvalidInput,
    exceptions.IdeogramAuthenticationError,
    exceptions.IdeogramPermissionError,
    exceptions.IdeogramInsufficientCredits,
    exceptions.IdeogramSpendLimitReached,
    exceptions.IdeogramBudgetReached,
    exceptions.IdeogramModelRetired,
    exceptions.IdeogramNotFound,
    exceptions.IdeogramObjectExists,
    exceptions.IdeogramContentBlocked,
    exceptions.IdeogramImageRejected,
    exceptions.IdeogramNotApproved,
    exceptions.IdeogramReviewTimeout,
    exceptions.IdeogramDatasetStopped,
    exceptions.IdeogramStorageRefused,
    exceptions.IdeogramLedgerRefused,
}


class TaskInstance:
    """Keeps the XComs that are pushed."""

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "not durable"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_only_a_retry_that_can_help_is_permitted(kind: type[IdeogramError], durable: bool) -> None:
    error = kind("what happened")
    retried = kind in ALWAYS or (durable and kind not in NEVER)
    expected = IdeogramError if retried else AirflowFailException
    with pytest.raises(expected) as caught, airflow_failures(TaskInstance(), durable=durable):
        raise error
    assert str(caught.value) == "what happened"
    if not retried:
        assert caught.value.__context__ is error
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_failure_says_what_happened_the_money_and_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    error = exceptions.IdeogramTargetBusy("The target is in use", "Nothing was charged. Wait. Or choose another key.")
    with pytest.raises(exceptions.IdeogramTargetBusy), airflow_failures(TaskInstance(), durable=True):
        raise error
    lines = [(record.levelname, record.getMessage()) for record in caplog.records if record.levelname == "ERROR"]
    assert lines == [
        ("ERROR", "The target is in use"),
        ("ERROR", "Nothing was charged"),
        ("ERROR", "Wait. Or choose another key"),
    ]


def test_failed_items_are_in_the_exception_only() -> None:
    remedy = "A retry attempts only those that failed. s3://b/m has all of them"
    advice = f"0.05 USD were charged. {remedy}:\n  - a: b\n  - c: d"
    what = "2 of 5 items have no image"
    assert failure_lines(exceptions.IdeogramDatasetFailed(what, advice)) == [what, "0.05 USD were charged", remedy]


@pytest.mark.parametrize(
    ("charged", "said"),
    [(True, "The request was charged"), (False, "Nothing was charged"), (None, "It is not known whether")],
)
def test_failure_without_advice_says_whether_it_was_charged(charged: bool | None, said: str) -> None:
    what, money = failure_lines(IdeogramError("x" * 1000, charged=charged))
    assert len(what) <= 151
    assert money.startswith(said)


def test_skipped_task_logs_no_error(caplog: pytest.LogCaptureFixture) -> None:
    skipped = (exceptions.IdeogramContentBlocked,)
    with pytest.raises(AirflowSkipException), airflow_failures(TaskInstance(), durable=True, skipped=skipped):
        raise exceptions.IdeogramContentBlocked("blocked")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_pushed_as_an_xcom(kind: type[IdeogramError]) -> None:
    ti = TaskInstance()
    error = kind("what happened", "Nothing was charged. Wait.", charged=False, request_id="r-1")
    with pytest.raises((IdeogramError, AirflowFailException)), airflow_failures(ti, durable=True):
        raise error
    assert ti.xcoms == {
        "failure": {
            "reason": kind.code,
            "error": "what happened",
            "advice": "Nothing was charged. Wait.",
            "charged": False,
            "request_id": "r-1",
        }
    }
    assert re.fullmatch(r"[a-z0-9_]+", kind.code)


def test_skipped_error_is_pushed_too() -> None:
    ti = TaskInstance()
    skipped = (exceptions.IdeogramContentBlocked,)
    with pytest.raises(AirflowSkipException), airflow_failures(ti, durable=True, skipped=skipped):
        raise exceptions.IdeogramContentBlocked("blocked")
    assert ti.xcoms["failure"]["reason"] == "content_blocked"


def test_final_error_is_not_retried() -> None:
    final = (exceptions.IdeogramJobFailed,)
    with pytest.raises(AirflowFailException), airflow_failures(TaskInstance(), durable=True, final=final):
        raise exceptions.IdeogramJobFailed("failed")


def test_other_errors_pass() -> None:
    ti = TaskInstance()
    with pytest.raises(ZeroDivisionError), airflow_failures(ti, durable=True):
        _ = 1 / 0
    assert ti.xcoms == {}
