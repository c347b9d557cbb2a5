"""
What Airflow does with a task instance: attempts, deferrals, triggers, retries, clears, and its faults.

Invariant: a slice is a new process with a new operator. From one slice to the next passes only what Airflow stores, as
JSON; from one attempt to the next nothing but the number of tries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.module_loading import import_string
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred
from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason

from airflow_provider_ideogram.jobs.identity import owner_id
from tests.simulation.kernel import EPOCH, Process, Signal
from tests.simulation.polling import await_event

if TYPE_CHECKING:
    from airflow_provider_ideogram.triggers.request import IdeogramTrigger
    from tests.simulation.checks import Checks
    from tests.simulation.servers import Servers
    from tests.simulation.vendor import Vendor

#: Seconds: until a worker is free, between attempts, until Airflow notices that a worker died, and until a person acts.
_QUEUED, _RETRY_DELAY, _NOTICED, _CLEARED = (0.3, 3.0), (5.0, 300.0), (5.0, 200.0), (60.0, 4_000.0, 20_000.0)
_HOURS, _DAYS = (1_000.0, 15_000.0), (86_400.0, 9 * 86_400.0)
_INTERRUPTED_WITHIN = 20.0


@dataclass(eq=False)
class TaskInstance:
    """
    A task instance.

    :param name: Its name in the trace.
    :param make: Makes its operator for a slice; the DAG may have changed since the last one.
    :param retries: The task's retries.
    :param clears_left: How often a person clears it.
    :param begins_at: Seconds from the beginning until it is scheduled.
    :param after: The task instance that has to succeed before.
    """

    name: str
    make: Callable[[TaskInstance], Any]
    retries: int = 2
    clears_left: int = 0
    begins_at: float = 0.0
    after: TaskInstance | None = None
    dag_id: str = "dag"
    task_id: str = "task"
    map_index: int = -1
    try_number: int = 1
    state: str = "scheduled"
    error: BaseException | None = None
    result: Any = None
    xcoms: dict[str, Any] = field(default_factory=dict)
    #: The result of the last attempt that succeeded.
    last_result: Any = None
    max_tries: int = field(init=False)
    #: When its DAG run, which a clear starts again, and its attempt began, in seconds since the epoch.
    run_started_at: float = EPOCH
    started_at: float = EPOCH
    #: Set when nothing more happens to it until the world is healed.
    ended: Signal = field(default_factory=Signal)
    #: How often its function was called.
    calls: int = 0
    #: How often the task's inputs were changed, which takes effect with the next attempt.
    version: int = 0
    #: Whether it waits for its image, though its author may have said otherwise.
    must_wait: bool = False
    #: Whether a person has raised its ``max_cost_usd``.
    is_limit_raised: bool = False
    #: How often Airflow lost a process of it, which may run on.
    deaths: int = 0

    def __post_init__(self) -> None:
        self.max_tries = self.retries

    @property
    def run_id(self) -> str:
        """The DAG run."""
        return f"run-{self.name}"

    @property
    def owner(self) -> str:
        """Its id in the ledger."""
        return owner_id(self)

    @property
    def can_begin(self) -> bool:
        """Whether the task before it has succeeded."""
        return self.after is None or self.after.last_result is not None

    def fail(self, error: BaseException | None, *, is_final: bool = False) -> None:
        """End the attempt without success."""
        self.error = error
        self.state = "failed" if is_final or self.try_number > self.max_tries else "up_for_retry"

    def clear(self) -> None:
        """Grant all attempts again, as a clear does."""
        self.max_tries = self.try_number + self.retries
        self.try_number += 1
        self.state = "scheduled"


class SimulatedTi:
    """
    A task instance as its code sees it.

    :param task: The task instance.
    :param process: The process that runs it.
    :param servers: The way to Airflow.
    :param tasks: All task instances that have begun.
    """

    def __init__(self, task: TaskInstance, process: Process, servers: Servers, tasks: Sequence[TaskInstance]) -> None:
        self._task, self._process, self._servers, self._tasks = task, process, servers, tasks
        self.dag_id, self.run_id, self.task_id, self.map_index = task.dag_id, task.run_id, task.task_id, task.map_index
        self.try_number, self.max_tries = task.try_number, task.max_tries
        self.start_date = datetime.fromtimestamp(task.started_at, UTC)

    def xcom_push(self, key: str, value: Any) -> None:
        """Store an XCom; Airflow ignores a process whose task it has failed."""
        stored = json.loads(json.dumps(value))

        def push() -> None:
            if not self._process.is_orphan:
                self._task.xcoms[key] = stored

        self._servers.exchange("airflow", "push XCom", key, push)

    def get_task_states(self, dag_id: str, run_ids: list[str], task_ids: list[str]) -> dict[str, dict[str, str]]:
        """Return the states of task instances by DAG run and task."""
        return {
            task.run_id: {task.task_id: task.state}
            for task in self._tasks
            if (task.dag_id, task.run_id, task.task_id) == (dag_id, *run_ids, *task_ids)
        }


@dataclass(frozen=True, slots=True)
class _End:
    """How a slice ended."""

    state: str
    result: Any = None
    error: BaseException | None = None
    is_final: bool = False
    deferral: Any = None


class Airflow:
    """
    Runs task instances.

    :param servers: The way to all servers.
    :param vendor: The vendor, for the triggerer's polls.
    :param checks: What must hold.
    """

    def __init__(self, servers: Servers, vendor: Vendor, checks: Checks) -> None:
        self._servers, self._vendor, self._checks = servers, vendor, checks
        self._kernel, self._faults = servers.kernel, servers.faults
        self._rng = servers.kernel.rng
        self._tasks: list[TaskInstance] = []

    def run(self, task: TaskInstance) -> None:
        """Run a task instance until nothing more happens to it."""
        self._tasks.append(task)
        while True:
            self._attempt(task)
            self._kernel.note(f"{task.name} is {task.state}" + (f": {task.error}" if task.error else ""))
            if task.state == "up_for_retry":
                self._kernel.sleep(self._rng.uniform(*_RETRY_DELAY))
                task.try_number += 1
            elif task.state == "cleared" or task.clears_left:
                if task.state != "cleared":
                    task.clears_left -= 1
                    self._kernel.sleep(self._rng.uniform(1.0, self._rng.choice(_CLEARED)))
                self.clear(task)
            else:
                return

    def clear(self, task: TaskInstance) -> None:
        """Clear a task instance, perhaps after its inputs were changed."""
        if self._faults.happens("inputs changed"):
            task.version += 1
        task.clear()
        task.run_started_at = self._kernel.now
        self._checks.count(f"cleared after {task.error and type(task.error).__name__}")
        self._kernel.note(f"{task.name} is cleared")

    def _attempt(self, task: TaskInstance) -> None:
        """Run an attempt to its end."""
        method: str | None = None
        kwargs: dict[str, Any] = {}
        number = 0
        task.xcoms, task.error, task.result, task.state = {}, None, None, "running"
        while True:
            self._wait_for_worker()
            task.started_at = task.started_at if number else self._kernel.now
            process = Process(f"{task.name}{task.try_number}.{number}", task)
            end = self._run_slice(task, process, method, kwargs)
            if end is None or end.deferral is None:
                return
            number += 1
            try:
                event = self._event(task, end.deferral, number - 1)
            except TimeoutError:
                method, kwargs = TRIGGER_FAIL_REPR, {"error": TriggerFailureReason.TRIGGER_TIMEOUT}
                continue
            if event is None:
                return
            method, kwargs = end.deferral.method_name, {**(end.deferral.kwargs or {}), "event": event}

    def _wait_for_worker(self) -> None:
        seconds = self._rng.uniform(*_QUEUED)
        if self._faults.happens("waits hours for a worker"):
            seconds = self._rng.uniform(*_HOURS)
        if self._faults.happens("waits days for a worker"):
            seconds = self._rng.uniform(*_DAYS)
        self._kernel.sleep(seconds)

    def _run_slice(
        self, task: TaskInstance, process: Process, method: str | None, kwargs: Mapping[str, Any]
    ) -> _End | None:
        """Run a slice; None if Airflow does not see its end."""
        ended = self._kernel.spawn(process, partial(self._slice, task, process, method, kwargs))
        if self._faults.happens("failed while running") and not self._ends_soon(ended):
            process.is_orphan = True
            task.deaths += 1
            self._kernel.note(f"Airflow fails {task.name}, and {process.name} runs on")
            task.fail(None)
            return None
        if self._may_be_cleared(task, "running") and not self._ends_soon(ended):
            process.is_alive = False
            task.deaths += 1
            task.clears_left -= 1
            task.state = "cleared"
            return None
        self._kernel.wait(ended)
        end: _End | None = ended.value
        if end is None:
            task.deaths += 1
            self._kernel.sleep(self._rng.uniform(*_NOTICED))
            task.fail(None)
            return None
        task.result = end.result
        if end.state in ("success", "skipped"):
            task.state = end.state
            task.last_result = end.result or task.last_result
        elif end.state == "failed":
            task.fail(end.error, is_final=end.is_final)
        return end

    def _ends_soon(self, ended: Signal) -> bool:
        return self._kernel.wait(ended, self._rng.uniform(0.0, self._rng.choice((1.0, _INTERRUPTED_WITHIN))))

    def _may_be_cleared(self, task: TaskInstance, state: str) -> bool:
        return task.clears_left > 0 and self._faults.happens(f"cleared while {state}")

    def _slice(self, task: TaskInstance, process: Process, method: str | None, kwargs: Mapping[str, Any]) -> _End:
        """Run the operator's code in a process of its own."""
        ti = SimulatedTi(task, process, self._servers, self._tasks)
        dag_run = SimpleNamespace(start_date=datetime.fromtimestamp(task.run_started_at, UTC))
        context: dict[str, Any] = {"ti": ti, "dag_run": dag_run, "outlet_events": {}}
        process.context = context
        end = self._execute(task, context, method, kwargs)
        self._kernel.note(f"slice ends: {end.state} {end.error or ''}")
        self._checks.on_slice_end(task, process, end.state, end.result, end.error)
        return end

    def _execute(
        self, task: TaskInstance, context: Mapping[str, Any], method: str | None, kwargs: Mapping[str, Any]
    ) -> _End:
        operator = task.make(task)
        try:
            if method is None:
                result = operator.execute(context)
            else:
                result = operator.resume_execution(method, dict(kwargs), context)
        except TaskDeferred as deferral:
            return _End("deferred", deferral=deferral)
        except AirflowSkipException as skip:
            return _End("skipped", error=skip)
        except AirflowFailException as error:
            return _End("failed", error=error, is_final=True)
        except Exception as error:
            return _End("failed", error=error)
        return _End("success", json.loads(json.dumps(result)))

    def _event(self, task: TaskInstance, deferral: Any, number: int) -> Mapping[str, Any] | None:
        """Run the trigger; return its event, None if the task is cleared before; raise TimeoutError if it is late."""
        path, kwargs = deferral.trigger.serialize()
        timeout = deferral.timeout.total_seconds()
        if self._faults.happens("trigger too late"):
            self._kernel.sleep(timeout)
            raise TimeoutError
        stored = json.dumps(kwargs)
        fired = self._spawn_trigger(task, number, path, stored)
        if self._faults.happens("trigger twice"):
            self._spawn_trigger(task, number, path, stored)
        if self._may_be_cleared(task, "deferred") and not self._ends_soon(fired):
            task.clears_left -= 1
            task.state = "cleared"
            return None
        if not self._kernel.wait(fired, timeout):
            raise TimeoutError
        event: Mapping[str, Any] = json.loads(json.dumps(fired.value))
        self._checks.on_event(event)
        return event

    def _spawn_trigger(self, task: TaskInstance, number: int, path: str, stored: str) -> Signal:
        """Start the trigger in a triggerer, which may end and leave it to another one."""
        trigger: IdeogramTrigger = import_string(path)(**json.loads(stored))
        process = Process(f"{task.name}{task.try_number}.{number}t")
        watched = self._kernel.spawn(process, partial(await_event, self._kernel, self._vendor, trigger))
        if self._faults.happens("trigger restarted") and not self._ends_soon(watched):
            process.is_alive = False
            self._kernel.sleep(self._rng.uniform(1.0, 60.0))
            return self._spawn_trigger(task, number, path, stored)
        return watched
