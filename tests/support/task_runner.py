"""
Run an operator in Airflow's own task runner, and its trigger as the triggerer does.

Invariant: Airflow's code renders, defers, resumes, stores XComs and handles failures. Data passes from one slice of a
task to the next as the JSON that Airflow stores. `tests.support.task_sdk` runs a slice on Airflow 3.0 and newer,
`tests.support.task_models` on 2.11.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest import mock

from airflow.providers.common.compat.module_loading import import_string

from tests.support.task_logs import captured_logs

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

#: The DAG of an operator without one.
DAG_ID = "dag_of_the_test"
RUN_ID = "manual__2026-01-02T00:00:00+00:00"
LOGICAL_DATE = datetime(2026, 1, 2, tzinfo=UTC)
#: Makes a task instance of an operator, or of a mapped one, by default of the run RUN_ID and not mapped. Those of one
#: test see each other's XComs if they are in the same DAG run. Options: ``run_id``, ``map_index``, ``conf``.
TaskRunner = Callable[..., "TaskRun"]


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


class TaskRun(ABC):
    """
    One task instance.

    :param operator: The operator, or a mapped one.
    """

    def __init__(self, operator: Any) -> None:
        self.operator = operator
        self.events: list[Any] = []
        self._logs: list[str] = []

    def execute(self) -> Slice:
        """Run the task to its next deferral or its end."""
        first_line = len(self._logs)
        with captured_logs(self._logs), _process_untouched():
            error = self._run()
        return Slice(self.state, error, "\n".join(self._logs[first_line:]))

    def trigger(self) -> BaseTrigger:
        """Make the trigger of the deferred task from the stored data, as a triggerer does."""
        deferral = self._deferred()
        trigger: BaseTrigger = import_string(deferral["classpath"])(**deferral["trigger_kwargs"])
        assert trigger.serialize() == (deferral["classpath"], deferral["trigger_kwargs"])
        return trigger

    def fire(self) -> Any:
        """Run the trigger on a new event loop, and return its event's payload."""
        return asyncio.run(self.afire())

    async def afire(self) -> Any:
        """Run the trigger on this loop until its first event, and return the payload after it was stored and read."""
        trigger = self.trigger()
        with captured_logs(self._logs):
            events = trigger.run()
            try:
                event = await anext(events)
            finally:
                await events.aclose()  # type: ignore[attr-defined]  # it is a generator
                await trigger.cleanup()
        payload = json.loads(json.dumps(event.payload))
        assert payload == event.payload
        self.events.append(payload)
        return payload

    def resume(self, event: Any) -> Slice:
        """Pass the event to the task, and run its next slice."""
        self._deferred()
        self._take_event(event)
        return self.execute()

    def time_out(self) -> Slice:
        """Let the deferral's timeout expire, which Airflow reports to the task as a failure."""
        self._deferred()
        self._take_timeout()
        return self.execute()

    def to_end(self) -> Slice:
        """Run the task and its trigger alternately until the task ends."""
        result = self.execute()
        while result.state == "deferred":
            result = self.resume(self.fire())
        return result

    def retry(self) -> Slice:
        """Start the next attempt with what Airflow keeps between attempts."""
        self._next_try(cleared=False)
        return self.execute()

    def clear(self) -> Slice:
        """Start a new attempt as after a clear, which grants all attempts again."""
        self._next_try(cleared=True)
        return self.execute()

    def xcom(self, key: str = "return_value") -> Any:
        """Return an XCom of the task, None if there is none."""
        return self.xcoms.get(key)

    @property
    def log_text(self) -> str:
        """The log of all slices and triggers of the task, at all levels."""
        return "\n".join(self._logs)

    def everything(self) -> str:
        """Return all data that Airflow stores of the tasks of the test, and this task's log."""
        return "\n".join([*self._stored(), json.dumps(self.events), self.log_text])

    def _deferred(self) -> dict[str, Any]:
        if self.state != "deferred" or self.deferral is None:
            raise AssertionError(f"the task is not deferred but {self.state}")
        return self.deferral

    @property
    @abstractmethod
    def state(self) -> str:
        """The task's state."""

    @property
    @abstractmethod
    def xcoms(self) -> dict[str, Any]:
        """All XComs of the task as they are stored."""

    @property
    @abstractmethod
    def deferral(self) -> dict[str, Any] | None:
        """
        The stored data of the last deferral: ``classpath``, ``trigger_kwargs``, ``next_method``.

        None if this attempt has not deferred.
        """

    @property
    @abstractmethod
    def rendered_fields(self) -> dict[str, Any]:
        """The template fields as rendered for the last slice."""

    @property
    @abstractmethod
    def asset_events(self) -> list[dict[str, Any]]:
        """The extras of the asset events that came with the task's success."""

    @property
    @abstractmethod
    def asset_uris(self) -> list[str]:
        """The assets of those events."""

    @abstractmethod
    def link(self, name: str) -> str:
        """Return the address of one of the operator's links, as Airflow's UI shows it."""

    @abstractmethod
    def _run(self) -> BaseException | None:
        """Run a slice, and return the exception that it raised."""

    @abstractmethod
    def _take_event(self, event: Any) -> None:
        """Store the event of the trigger and queue the task."""

    @abstractmethod
    def _take_timeout(self) -> None:
        """Store that the deferral's time is over and queue the task."""

    @abstractmethod
    def _next_try(self, *, cleared: bool) -> None:
        """Queue the next attempt."""

    @abstractmethod
    def _stored(self) -> list[str]:
        """Return all data that Airflow stores."""


@contextmanager
def _process_untouched() -> Iterator[None]:
    """Restore the process, which the task runner changes: in a deployment each task has its own."""
    handler = signal.getsignal(signal.SIGTERM)
    with mock.patch.dict(os.environ):
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, handler)
