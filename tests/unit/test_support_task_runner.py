"""The task runner of the tests keeps and loses between the slices of a task what Airflow keeps and loses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, AirflowSkipException, Asset, BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from tests.support.airflow_version import AIRFLOW
from tests.support.task_runner import TaskRunner


class EchoTrigger(BaseTrigger):
    """Fires what it was given, with the host of a connection."""

    def __init__(self, word: str, conn_id: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.word = word
        self.conn_id = conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.EchoTrigger", {"word": self.word, "conn_id": self.conn_id}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.sleep(0)
        self.log.info("the trigger says %s", self.word)
        connection = await get_async_connection(self.conn_id)
        yield TriggerEvent({"word": self.word, "host": connection.host})


class EchoOperator(BaseOperator):
    """Defers once, and returns what came back."""

    template_fields = ("word",)

    def __init__(self, word: str, fail: type[Exception] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.word = word
        self.fail = fail
        self.memory: str | None = None

    def execute(self, context: Any) -> None:
        if self.fail:
            raise self.fail("as told")
        self.memory = "lost when the task resumes"
        context["ti"].xcom_push(key="early", value=self.word)
        self.defer(
            trigger=EchoTrigger(f"{self.word} for the trigger", "echo"),
            method_name="execute_complete",
            kwargs={"and_this": f"{self.word} for later"},
        )

    def execute_complete(self, context: Any, event: dict[str, Any], and_this: str) -> dict[str, Any]:
        logging.getLogger("a.library").debug("says %s at the lowest level", event["word"])
        for asset in self.outlets:
            context["outlet_events"][asset].extra = {"word": f"{self.word} for the asset"}
        return {"word": self.word, "event": event, "and_this": and_this, "memory": self.memory}


class FailingOperator(BaseOperator):
    """Succeeds at the third attempt."""

    def execute(self, context: Any) -> int:
        attempt: int = context["ti"].try_number
        context["ti"].xcom_push(key=f"attempt_{attempt}", value=attempt)
        if attempt < 3:
            raise ValueError(f"attempt {attempt}")
        return attempt


@pytest.fixture(autouse=True)
def _connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ECHO", '{"conn_type": "http", "host": "echo.example"}')


def test_defers_fires_and_resumes(task_runner: TaskRunner) -> None:
    run = task_runner(EchoOperator(task_id="echo", word="hi {{ ds }} {{ dag_run.conf['n'] }}"), conf={"n": 7})

    deferred = run.execute()

    assert (deferred.state, deferred.error) == ("deferred", None)
    assert run.rendered_fields == {"word": "hi 2026-01-02 7"}
    assert run.xcoms == {"early": "hi 2026-01-02 7"}
    assert run.deferral is not None
    assert run.deferral["trigger_kwargs"] == {"word": "hi 2026-01-02 7 for the trigger", "conn_id": "echo"}
    event = run.fire()
    assert event == {"word": "hi 2026-01-02 7 for the trigger", "host": "echo.example"}
    assert run.resume(event).state == "success"
    assert run.xcoms == {
        "early": "hi 2026-01-02 7",
        "return_value": {
            "word": "hi 2026-01-02 7",
            "event": event,
            "and_this": "hi 2026-01-02 7 for later",
            "memory": None,
        },
    }


def test_downstream_task_receives_the_upstream_result(task_runner: TaskRunner) -> None:
    with DAG("two_tasks", schedule=None):
        first = EchoOperator(task_id="first", word="one")
        early: Any = first.output["early"]  # type: ignore[index]
        by_argument = EchoOperator(task_id="by_argument", word=early)
        by_template = EchoOperator(task_id="by_template", word="{{ ti.xcom_pull(task_ids='first')['word'] }}")
    assert task_runner(first).to_end().state == "success"

    for operator in (by_argument, by_template):
        run = task_runner(operator)
        run.execute()
        assert run.rendered_fields == {"word": "one"}


def test_mapped_instances_have_their_own_xcoms(task_runner: TaskRunner) -> None:
    with DAG("mapped", schedule=None):
        mapped = EchoOperator.partial(task_id="mapped").expand(word=["a", "b"])
        together = EchoOperator(task_id="together", word="{{ ti.xcom_pull(task_ids='mapped') | length }}")
    runs = [task_runner(mapped, map_index=index) for index in (0, 1)]

    assert [run.to_end().state for run in runs] == ["success", "success"]

    assert [run.xcom()["word"] for run in runs] == ["a", "b"]
    downstream = task_runner(together)
    downstream.execute()
    assert downstream.rendered_fields == {"word": "2"}


def test_a_retry_starts_from_the_beginning_without_xcoms(task_runner: TaskRunner) -> None:
    run = task_runner(FailingOperator(task_id="count", retries=1))

    first, second = run.execute(), run.retry()

    assert (first.state, str(first.error)) == ("up_for_retry", "attempt 1")
    assert (second.state, str(second.error)) == ("failed", "attempt 2")
    assert run.xcoms == {"attempt_2": 2}
    assert run.clear().state == "success"
    assert run.xcoms == {"attempt_3": 3, "return_value": 3}


def test_retry_while_deferred_executes_again(task_runner: TaskRunner) -> None:
    run = task_runner(EchoOperator(task_id="echo", word="hi", retries=1))
    run.execute()

    assert run.time_out().state == "up_for_retry"
    if AIRFLOW == (3, 0):  # which tells the next attempt the same again (apache/airflow#56704)
        assert run.retry().state == "failed"
        return
    assert run.retry().state == "deferred"
    assert run.resume(run.fire()).state == "success"


@pytest.mark.parametrize(
    ("error", "state"),
    [(AirflowFailException, "failed"), (ValueError, "up_for_retry"), (AirflowSkipException, "skipped")],
)
def test_errors_end_a_task_by_airflows_rules(task_runner: TaskRunner, error: type[Exception], state: str) -> None:
    run = task_runner(EchoOperator(task_id="echo", word="hi", fail=error, retries=1))

    result = run.execute()

    assert result.state == state
    assert "as told" in result.log_text
    assert isinstance(result.error, error) == (state != "skipped")


def test_everything_that_is_stored_or_logged_can_be_searched(task_runner: TaskRunner) -> None:
    image = Asset("s3://bucket/key")
    run = task_runner(EchoOperator(task_id="echo", word="needle", outlets=[image]))

    run.to_end()

    assert "the trigger says needle" in run.log_text
    assert "says needle for the trigger at the lowest level" in run.log_text
    assert run.asset_events == [{"word": "needle for the asset"}]
    stored = run.everything()
    assert all(words in stored for words in ("needle for the trigger", "needle for later", "needle for the asset"))


def test_task_that_is_not_deferred_cannot_resume(task_runner: TaskRunner) -> None:
    run = task_runner(EchoOperator(task_id="echo", word="hi"))

    with pytest.raises(AssertionError, match="not deferred but queued"):
        run.resume({})
