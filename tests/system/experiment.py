"""
Driving a run: the DAG runs, the crashes of components, the clears by a person, until all tasks have ended.

Invariant: it only does what a supervisor, the system or a person could do, and writes down what it did.
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
from tests.system.task_logs import Failure, TaskLogs

POLL_SECONDS = 2.0
REPORT_SECONDS = 20.0
ENDED = ("success", "failed")
#: To Airflow's API, all DAGs or all runs.
ALL = "~"
#: Failures that a person who reads them answers by clearing the task.
CONSENTED = ("IdeogramUnknownSubmit", "killed")
#: How often a person does that for one task.
MAX_CONSENTS = 4

TaskKey = tuple[str, int]
#: What is done to the system; it tells whether it was, or is to be tried again.
Event = Callable[[], bool]


@dataclass(frozen=True)
class Outage:
    """
    A machine or a server that died or stood still.

    :param what: What was done.
    :param tasks: The tasks that it struck.
    :param seconds: What was waited for, and after how long it came; None if it did not.
    """

    what: str
    tasks: list[TaskKey]
    seconds: dict[str, float | None] = field(default_factory=dict)


@dataclass
class Diary:
    """
    What was done and seen.

    :param crashes: How often each component was killed.
    :param deaths: How often each component ended by itself.
    :param clears: In which state which task was cleared by a person who just does so.
    :param consents: How often which task was cleared after it failed and said what a clear would do.
    :param failures: Each end of a task in `failed`, by task and try number.
    :param outages: What died or stood still, with those whom it struck.
    """

    crashes: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    clears: list[tuple[str, TaskKey]] = field(default_factory=list)
    consents: Counter[TaskKey] = field(default_factory=Counter)
    failures: dict[tuple[TaskKey, int], Failure] = field(default_factory=dict)
    outages: list[Outage] = field(default_factory=list)


class Experiment:
    """
    A run of the system test.

    :param cluster: Airflow.
    :param logs: Its tasks' logs.
    :param runs: What to run.
    :param tasks: How many tasks that makes.
    :param seed: Decides which tasks are cleared.
    :param components: What is started again when it ends by itself.
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
        self._events: list[tuple[float, Event]] = []
        self.diary = Diary()

    def plan(self, moments: list[float], event: Event) -> None:
        """Let something happen at these shares of the progress."""
        self._events += [(moment, event) for moment in moments]
        self._events.sort(key=lambda planned: planned[0])

    def plan_crashes(self, component: Component, moments: list[float]) -> None:
        """Kill a component at these shares of the progress."""
        self.plan(moments, partial(self._crash, component))

    def plan_clears(self, moments: list[float]) -> None:
        """Clear a task at these shares of the progress, in every state in turn."""
        for number, moment in enumerate(moments):
            self.plan([moment], partial(self._clear, number))

    def run(self, timeout: float, report: Callable[[str], None]) -> list[dict[str, Any]]:
        """
        Run all, and return all task instances as they are at the end or when the time is over.

        :param timeout: Seconds.
        :param report: Takes a line about the progress.
        """
        for run in self._runs:
            self._cluster.api.trigger_run(run.dag_id, run.conf, run.run_id)
        deadline = time.monotonic() + timeout
        counts: Counter[str] = Counter()
        diary, reported, furthest = self.diary, 0.0, 0.0
        while time.monotonic() < deadline:
            self._restart_the_dead()
            try:
                counts = self._counts()
                furthest = max(furthest, sum(counts[state] for state in ENDED) / self._tasks)
                self._do_what_is_planned(furthest)
                self._answer_failures()
                if self._has_ended():
                    break
            except httpx.HTTPError as problem:
                report(f"Airflow's API does not answer: {problem!r}")
            if time.monotonic() > reported + REPORT_SECONDS:
                reported = time.monotonic()
                report(
                    f"{dict(counts)} {dict(diary.crashes)} {dict(diary.deaths)} clears {len(diary.clears)} "
                    f"outages {len(diary.outages)}"
                )
            time.sleep(POLL_SECONDS)
        return self._cluster.api.task_instances(ALL, ALL)

    def _do_what_is_planned(self, progress: float) -> None:
        while self._events and self._events[0][0] <= progress and self._events[0][1]():
            self._events.pop(0)

    def _counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for state in (*ENDED, "running", "deferred", "up_for_retry"):
            counts[state] = self._cluster.api.count_task_instances(ALL, ALL, state)
        return counts

    def _has_ended(self) -> bool:
        """Tell whether all runs have; a clear makes a run that had ended go on."""
        if set(self._cluster.api.run_states(ALL).values()) - set(ENDED):
            return False
        return not self._answer_failures()

    def _restart_the_dead(self) -> None:
        """Start components again that ended by themselves, as a supervisor would."""
        for component in self._components:
            if self._cluster.components[component.name].returncode is not None:
                self._cluster.crash(component)
                self.diary.deaths[component.name] += 1

    def _crash(self, component: Component) -> bool:
        self._cluster.crash(component)
        self.diary.crashes[component.name] += 1
        return True

    def _clear(self, number: int) -> bool:
        for offset in range(len(CLEARED_STATES)):
            state = CLEARED_STATES[(number + offset) % len(CLEARED_STATES)]
            found = self._cluster.api.task_instances(ALL, ALL, state)
            if found and self._try_to_clear(one := self._rng.choice(found)):
                self.diary.clears.append((state, key_of(one)))
                break
        return True

    def _answer_failures(self) -> bool:
        """Read why tasks failed, clear those whose message asks a person to, and tell whether any was cleared."""
        cleared = False
        for one in self._cluster.api.task_instances(ALL, ALL, "failed"):
            key, try_number = key_of(one), one["try_number"]
            if (key, try_number) in self.diary.failures:
                continue
            failure = self._logs.failure(key, try_number)
            self.diary.failures[key, try_number] = failure
            if failure.kind in CONSENTED and self.diary.consents[key] < MAX_CONSENTS and self._try_to_clear(one):
                self.diary.consents[key] += 1
                cleared = True
        return cleared

    def _try_to_clear(self, one: dict[str, Any]) -> bool:
        try:
            self._cluster.api.clear(one)
        except httpx.HTTPError:  # the database was locked: a person would try again, here another moment comes
            return False
        return True


def key_of(task_instance: dict[str, Any]) -> TaskKey:
    """Return a task instance's run id and map index."""
    return task_instance["dag_run_id"], task_instance["map_index"]
