"""
Drive an operator through Airflow's own task runner and its trigger as the triggerer would, without a database.

Invariant: rendering, deferring, resuming, XComs and failing are done by Airflow's code; what passes from one
slice of a task to the next passes as the JSON that Airflow would store.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import uuid4

import httpx

from tests.support.execution_api import ExecutionApi, StoredTask
from tests.support.task_logs import captured_logs

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.definitions.mappedoperator import MappedOperator
    from airflow.triggers.base import BaseTrigger

#: The DAG of an operator that was made outside of one.
DAG_ID = "dag_of_the_test"
RUN_ID = "manual__2026-01-02T00:00:00+00:00"


@dataclass(frozen=True)
class Slice:
    """
    How one slice of a task ended: at a deferral or for good.

    :param state: ``success``, ``failed``, ``up_for_retry``, ``skipped`` or ``deferred``.
    :param error: What was raised, None for success, a skip and a deferral.
    :param log_text: What was logged.
    """

    state: str
    error: BaseException | None
    log_text: str


class TaskRun:
    """
    One task instance.

    :param api: Keeps what Airflow's database would.
    :param operator: The operator, or a mapped one.
    :param run_id: The DAG run; runs with the same one see each other's XComs.
    :param map_index: Which instance of a mapped operator, -1 for an operator that is not mapped.
    :param conf: The DAG run's configuration.
    """

    def __init__(
        self,
        api: ExecutionApi,
        operator: BaseOperator | MappedOperator,
        *,
        run_id: str = RUN_ID,
        map_index: int = -1,
        conf: dict[str, Any] | None = None,
    ) -> None:
        from airflow.sdk import DAG

        if not operator.has_dag():
            DAG(DAG_ID, schedule=None).add_task(operator)
        self.operator = operator
        self._api = api
        key = (operator.dag_id, run_id, operator.task_id, map_index)
        self._task = StoredTask(key, max_tries=operator.retries, conf=conf or {})
        api.tasks.append(self._task)
        self.events: list[Any] = []
        self._logs: list[str] = []

    def execute(self) -> Slice:
        """Run the task from where it is to its next deferral or its end."""
        from airflow.sdk.api.client import Client
        from airflow.sdk.api.datamodels import _generated as datamodels
        from airflow.sdk.execution_time.supervisor import run_task_in_process

        dag_id, run_id, task_id, map_index = self._task.key
        instance = datamodels.TaskInstance(
            id=self._task.id,
            dag_id=dag_id,
            run_id=run_id,
            task_id=task_id,
            map_index=map_index,
            try_number=self._task.try_number,
            dag_version_id=uuid4(),
        )
        first_line = len(self._logs)
        with (
            captured_logs(self._logs),
            _process_untouched(),
            Client(base_url=None, token="", dry_run=True, transport=httpx.MockTransport(self._api)) as client,
        ):
            client.base_url = "http://execution-api.invalid/"
            result = run_task_in_process(instance, self.operator, client)
        return Slice(self._task.state, result.error, "\n".join(self._logs[first_line:]))

    def trigger(self) -> BaseTrigger:
        """Make the trigger that the task defers to, as a triggerer does from what is in the database."""
        from airflow.models.trigger import Trigger
        from airflow.sdk.module_loading import import_string
        from airflow.serialization.decoders import smart_decode_trigger_kwargs

        deferral = self._deferral
        stored = Trigger.encrypt_kwargs(deferral["trigger_kwargs"])
        kwargs = {name: smart_decode_trigger_kwargs(value) for name, value in Trigger._decrypt_kwargs(stored).items()}
        trigger: BaseTrigger = import_string(deferral["classpath"])(**kwargs)
        assert trigger.serialize() == (deferral["classpath"], deferral["trigger_kwargs"])
        return trigger

    def fire(self) -> Any:
        """Run the trigger on an event loop of its own and return its event's payload."""
        return asyncio.run(self.afire())

    async def afire(self) -> Any:
        """Run the trigger on this loop until its first event and return the payload, stored and read again."""
        trigger = self.trigger()
        with captured_logs(self._logs):
            events = trigger.run()
            try:
                event = await anext(events)
            finally:
                await events.aclose()
                await trigger.cleanup()
        payload = json.loads(json.dumps(event.payload))
        assert payload == event.payload
        self.events.append(payload)
        return payload

    def resume(self, event: Any) -> Slice:
        """Hand the event to the task and run its next slice."""
        from airflow.sdk.serde import deserialize, serialize

        kwargs = deserialize(self._deferral["next_kwargs"] or {})
        self._resume_with(serialize({**kwargs, "event": event}))
        return self.execute()

    def time_out(self) -> Slice:
        """Let the deferral's own timeout expire, which Airflow tells the task as a failure."""
        from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason

        assert self._deferral
        self._task.next_method = TRIGGER_FAIL_REPR
        self._resume_with({"error": TriggerFailureReason.TRIGGER_TIMEOUT})
        return self.execute()

    def to_end(self) -> Slice:
        """Run the task, its trigger and the task again until it does not defer any more."""
        result = self.execute()
        while result.state == "deferred":
            result = self.resume(self.fire())
        return result

    def retry(self) -> Slice:
        """Start the next attempt, with nothing but what Airflow keeps between attempts."""
        self._task.next_try()
        return self.execute()

    def clear(self) -> Slice:
        """Start again as after a person cleared the task, which grants it all its attempts anew."""
        self._task.max_tries = self._task.try_number + self.operator.retries
        return self.retry()

    def xcom(self, key: str = "return_value") -> Any:
        """Return an XCom of the task, None if there is none."""
        return self.xcoms.get(key)

    @property
    def xcoms(self) -> dict[str, Any]:
        """All XComs of the task as they are stored."""
        return self._api.xcoms.get(self._task.key, {})

    @property
    def state(self) -> str:
        """The task's state."""
        return self._task.state

    @property
    def deferral(self) -> dict[str, Any] | None:
        """
        What is stored of the last deferral: ``classpath``, ``trigger_kwargs``, ``trigger_timeout``, ``next_method``.

        None if this attempt has not deferred.
        """
        return self._task.deferral

    @property
    def rendered_fields(self) -> dict[str, Any]:
        """The template fields as rendered for the last slice."""
        return self._task.rendered_fields

    @property
    def outlet_events(self) -> list[dict[str, Any]]:
        """The asset events that came with the task's success."""
        return self._task.outlet_events

    @property
    def log_text(self) -> str:
        """Everything that all slices and triggers of the task logged, at all levels."""
        return "\n".join(self._logs)

    def everything(self) -> str:
        """Return all that Airflow was given to store or to log, of all tasks of the test and this task's log."""
        stored = [*self._api.received, repr(self._api.tasks), repr(self._api.xcoms), repr(self._api.task_state)]
        return "\n".join([*stored, json.dumps(self.events), self.log_text])

    @property
    def _deferral(self) -> dict[str, Any]:
        if self._task.state != "deferred" or self._task.deferral is None:
            raise AssertionError(f"the task is not deferred but {self._task.state}")
        return self._task.deferral

    def _resume_with(self, next_kwargs: Any) -> None:
        self._task.next_kwargs = json.loads(json.dumps(next_kwargs))
        self._task.state = "queued"


class TaskRunner:
    """Makes the task instances of a test, which see each other's XComs if they are in the same DAG run."""

    def __init__(self) -> None:
        self.api = ExecutionApi()

    def __call__(self, operator: BaseOperator | MappedOperator, **options: Any) -> TaskRun:
        """Return a task instance; for the options see :class:`TaskRun`."""
        return TaskRun(self.api, operator, **options)


@contextmanager
def _process_untouched() -> Iterator[None]:
    """Undo what the task runner does to its process, which in a deployment is the task's own."""
    handler = signal.getsignal(signal.SIGTERM)
    with mock.patch.dict(os.environ):
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, handler)
