"""
A run of the system test: DAG runs, crashes of components, clears by a person, until all tasks have ended.

Invariant: it does only what a supervisor, the system or a person could do, and records what it did.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from dev.airflow_cluster import STANDARD_COMPONENTS, AirflowCluster, Component
from tests.system.plan import CLEARED_STATES, PlannedRun
from tests.system.task_logs import TaskLogs

POLL_SECONDS = 2.0
REPORT_SECONDS = 20.0
ENDED = ("success", "failed")
#: Stands for all DAGs or all runs in Airflow's API.
ALL = "~"
#: The reason of a failure without the XCom `failure`, whose process was killed.
KILLED = "killed"
#: Failures after which a person clears the task, as the message says: once S3 permits access again, for instance.
CLEARED_FAILURES = ("unknown_submit", "submit_failed", "storage_refused", "ledger_refused", KILLED)
#: How often a person does that for one task.
MAX_CLEARS_OF_FAILURES = 4

TaskKey = tuple[str, int]
#: Does something to the system; returns whether it was possible, otherwise it is tried again.
Event = Callable[[], bool]


@dataclass(frozen=True)
class Failure:
    """
    The reason of a failure.

    :param reason: The reason in the XCom `failure`, `killed`, or "" if there is none.
    :param text: What happened, and what to do.
    """

    reason: str
    text: str


@dataclass(frozen=True)
class Outage:
    """
    A machine or a server that was killed or frozen.

    :param what: What was done.
    :param tasks: The affected tasks.
    :param seconds: Seconds until each awaited event; None if it did not happen.
    """

    what: str
    tasks: list[TaskKey]
    seconds: dict[str, float | None] = field(default_factory=dict)


@dataclass
class EventLog:
    """
    What was done to the system, and how tasks failed.

    :param crashes: How often each component was killed.
    :param exits: How often each component ended by itself.
    :param clears: The tasks that a person cleared at random, with their state.
    :param clears_of_failures: How often each task was cleared because the message of its failure says so.
    :param failures: The failure of each attempt after which a task was `failed`, by task and try number.
    :param outages: The outages, with the affected tasks.
    """

    crashes: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    clears: list[tuple[str, TaskKey]] = field(default_factory=list)
    clears_of_failures: Counter[TaskKey] = field(default_factory=Counter)
    failures: dict[tuple[TaskKey, int], Failure] = field(default_factory=dict)
    outages: list[Outage] = field(default_factory=list)

    def failure(self, one: dict[str, Any]) -> Failure:
        """Return the reason of a failed task instance, empty if it was not read."""
        return self.failures.get((key_of(one), one["try_number"]), Failure("", ""))


class Experiment:
    """
    A run of the system test.

    :param cluster: Airflow.
    :param logs: Its tasks' logs.
    :param runs: The DAG runs.
    :param tasks: The number of their tasks.
    :param seed: Decides which tasks are cleared.
    :param components: The components that are restarted when they end by themselves.
    """

    def __init__(
        self,
        cluster: AirflowCluster,
        logs: TaskLogs,
        runs: list[PlannedRun],
        tasks: int,
        seed: int,
        components: Sequence[Component] = STANDARD_COMPONENTS,
    ) -> None:
        self._cluster = cluster
        self._logs = logs
        self._runs = runs
        self._tasks = tasks
        self._components = components
        self._rng = random.Random(f"{seed} tasks to clear")
        self._planned: list[tuple[float, Event]] = []
        self.events = EventLog()

    def plan(self, moments: list[float], event: Event) -> None:
        """Plan an event at these shares of the progress."""
        self._planned += [(moment, event) for moment in moments]
        self._planned.sort(key=lambda planned: planned[0])

    def plan_crashes(self, component: Component, moments: list[float]) -> None:
        """Kill a component at these shares of the progress."""
        self.plan(moments, partial(self._crash, component))

    def plan_clears(self, moments: list[float]) -> None:
        """Clear a task at these shares of the progress; the states of the tasks alternate."""
        for number, moment in enumerate(moments):
            self.plan([moment], partial(self._clear, number))

    def run(self, timeout: float, report: Callable[[str], None]) -> list[dict[str, Any]]:
        """
        Run all DAG runs, and return all task instances as they are at the end or at the timeout.

        :param timeout: Seconds.
        :param report: Receives a line about the progress.
        """
        for run in self._runs:
            self._cluster.api.trigger_run(run.dag_id, run.conf, run.run_id)
        deadline = time.monotonic() + timeout
        counts: Counter[str] = Counter()
        events, reported, furthest = self.events, 0.0, 0.0
        while time.monotonic() < deadline:
            self._restart_ended_components()
            try:
                counts = self._counts()
                furthest = max(furthest, sum(counts[state] for state in ENDED) / self._tasks)
                self._run_planned_events(furthest)
                self._clear_failures()
                if self._has_ended():
                    break
            except httpx.HTTPError as problem:
                report(f"Airflow's API does not respond: {problem!r}")
            if time.monotonic() > reported + REPORT_SECONDS:
                reported = time.monotonic()
                report(
                    f"{dict(counts)} {dict(events.crashes)} {dict(events.exits)} clears {len(events.clears)} "
                    f"outages {len(events.outages)}"
                )
            time.sleep(POLL_SECONDS)
        return self._cluster.api.task_instances(ALL, ALL)

    def _run_planned_events(self, progress: float) -> None:
        while self._planned and self._planned[0][0] <= progress and self._planned[0][1]():
            self._planned.pop(0)

    def _counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for state in (*ENDED, "running", "deferred", "up_for_retry"):
            counts[state] = self._cluster.api.count_task_instances(ALL, ALL, state)
        return counts

    def _has_ended(self) -> bool:
        """Return whether all runs have ended; a clear restarts a run."""
        if set(self._cluster.api.run_states(ALL).values()) - set(ENDED):
            return False
        return not self._clear_failures()

    def _restart_ended_components(self) -> None:
        """Restart components that ended by themselves, as a supervisor would."""
        for component in self._components:
            if self._cluster.components[component.name].returncode is not None:
                self._cluster.crash(component)
                self.events.exits[component.name] += 1

    def _crash(self, component: Component) -> bool:
        self._cluster.crash(component)
        self.events.crashes[component.name] += 1
        return True

    def _clear(self, number: int) -> bool:
        for offset in range(len(CLEARED_STATES)):
            state = CLEARED_STATES[(number + offset) % len(CLEARED_STATES)]
            found = self._cluster.api.task_instances(ALL, ALL, state)
            if found and self._try_to_clear(one := self._rng.choice(found)):
                self.events.clears.append((state, key_of(one)))
                break
        return True

    def _clear_failures(self) -> bool:
        """Read why tasks failed, and clear those whose message says so; return whether any was cleared."""
        cleared = False
        for one in self._cluster.api.task_instances(ALL, ALL, "failed"):
            key, try_number = key_of(one), one["try_number"]
            if (key, try_number) in self.events.failures:
                continue
            self.events.failures[key, try_number] = failure = self._read_failure(one)
            if failure.reason not in CLEARED_FAILURES or self.events.clears_of_failures[key] >= MAX_CLEARS_OF_FAILURES:
                continue
            if self._try_to_clear(one):
                self.events.clears_of_failures[key] += 1
                cleared = True
        return cleared

    def _read_failure(self, one: dict[str, Any]) -> Failure:
        try:
            xcom = self._cluster.api.xcom(one, "failure")
        except httpx.HTTPStatusError as missing:
            if missing.response.status_code != httpx.codes.NOT_FOUND:
                raise
            line = self._logs.kill(key_of(one), one["try_number"])
            return Failure(KILLED if line else "", line)
        return Failure(xcom["reason"], f"{xcom['error']}. {xcom['advice']}")

    def _try_to_clear(self, one: dict[str, Any]) -> bool:
        try:
            self._cluster.api.clear(one)
        except httpx.HTTPError:  # the database was locked; a later clear follows
            return False
        return True


def key_of(task_instance: dict[str, Any]) -> TaskKey:
    """Return a task instance's run id and map index."""
    return task_instance["dag_run_id"], task_instance["map_index"]
