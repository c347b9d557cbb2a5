"""
Outages of a distributed Airflow: machines that are killed, servers that are killed or frozen.

Invariant: each outage finds the affected tasks first, and leaves everything running at its end. Without an affected
task it does nothing, and is tried again later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any

import httpx

from dev.airflow_cluster import AirflowCluster, Component
from dev.postgres_server import PostgresServer
from dev.redis_server import RedisServer
from tests.system.experiment import ALL, EventLog, Outage, TaskKey, key_of

#: Seconds of an outage: longer than a poll or a heartbeat, shorter than a missed heartbeat's limit.
AWAY_SECONDS = 8.0
#: Seconds between two checks of a takeover, and seconds after which triggers without a triggerer count as stuck.
WATCH_SECONDS = 0.2
TAKEOVER_SECONDS = 180.0
TAKEN_OVER, ALL_FINISHED = "first trigger on another triggerer", "all its triggers fired"
#: A triggerer whose last heartbeat is older is not running: it has one every two seconds here.
MAX_HEARTBEAT_AGE = 6.0
LOST_WORKER = "kill -9 of a worker's machine"
LOST_TRIGGERER = "kill -9 of a triggerer's machine"

Json = dict[str, Any]


class Outages:
    """
    The outages; each method returns whether it affected a task.

    :param cluster: Airflow; each worker and triggerer represents a machine of its name.
    :param events: Records the outages.
    """

    def __init__(
        self,
        cluster: AirflowCluster,
        postgres: PostgresServer,
        redis: RedisServer,
        workers: Sequence[Component],
        triggerers: Sequence[Component],
        events: EventLog,
    ) -> None:
        self._cluster = cluster
        self._postgres = postgres
        self._redis = redis
        self._workers = {component.name: component for component in workers}
        self._triggerers = {component.name: component for component in triggerers}
        self._events = events
        # Airflow lists them as running until it misses their heartbeats.
        self._killed: set[tuple[TaskKey, int]] = set()

    def lose_worker(self) -> bool:
        """Kill the worker with the most tasks, and its tasks, and restart it."""
        running = [one for one in self._tasks("running") if _attempt(one) not in self._killed]
        name, affected = _busiest(self._workers, running, _machine_of_task)
        if not affected:
            return False
        self._killed.update(map(_attempt, affected))
        self._cluster.lose(self._workers[name])
        self._cluster.start(self._workers[name])
        self._note(LOST_WORKER, affected)
        return True

    def lose_triggerer(self) -> bool:
        """Kill the triggerer with the most triggers, and restart it when the other one has finished them."""
        deferred = [one for one in self._tasks("deferred") if _has_trigger_running(one)]
        name, deferred_tasks = _busiest(self._triggerers, deferred, _machine_of_trigger)
        if not any(map(_polls, deferred_tasks)):
            return False
        killed_at = time.monotonic()
        self._cluster.lose(self._triggerers[name])
        outage = self._note(LOST_TRIGGERER, deferred_tasks, TAKEN_OVER, ALL_FINISHED)
        polling = {one["trigger"]["id"] for one in deferred_tasks if _polls(one)}
        self._watch_takeover(outage, polling, name, killed_at)
        self._cluster.start(self._triggerers[name])
        return True

    def crash_redis(self) -> bool:
        """Kill Redis, and restart it with its append-only file."""
        return self._take_away("kill -9 of Redis", _stopped(self._redis))

    def crash_postgres(self) -> bool:
        """End PostgreSQL with all its connections, and restart it after some seconds."""
        return self._take_away("PostgreSQL stopped at once, and restarted", _stopped(self._postgres))

    def freeze_postgres(self) -> bool:
        """Freeze PostgreSQL for some seconds."""
        return self._take_away("PostgreSQL frozen", self._postgres.frozen())

    def _take_away(self, what: str, away: AbstractContextManager[None]) -> bool:
        """Make a server unavailable for some seconds, which affects all unfinished tasks."""
        affected = [one for state in ("queued", "running", "deferred") for one in self._tasks(state)]
        if not affected:
            return False
        with away:
            time.sleep(AWAY_SECONDS)
        self._note(what, affected)
        return True

    def _watch_takeover(self, outage: Outage, triggers: set[int], lost: str, since: float) -> None:
        """
        Measure the time until Airflow lists another triggerer for one of these triggers, and until all have fired.

        The task's later work on a worker does not count: it does not need the triggerer.
        """
        while time.monotonic() < since + TAKEOVER_SECONDS and outage.seconds[ALL_FINISHED] is None:
            time.sleep(WATCH_SECONDS)
            try:
                left = [one for one in self._tasks("deferred") if one["trigger"] and one["trigger"]["id"] in triggers]
            except httpx.HTTPError:
                continue
            passed = time.monotonic() - since
            taken_over = not left or any(_machine_of_trigger(one) not in (lost, "") for one in left)
            if taken_over and outage.seconds[TAKEN_OVER] is None:
                outage.seconds[TAKEN_OVER] = passed
            if not left:
                outage.seconds[ALL_FINISHED] = passed

    def _tasks(self, state: str) -> list[Json]:
        return self._cluster.api.task_instances(ALL, ALL, state)

    def _note(self, what: str, affected: list[Json], *awaited: str) -> Outage:
        tasks: list[TaskKey] = [key_of(one) for one in affected]
        outage = Outage(what, tasks, dict.fromkeys(awaited))
        self._events.outages.append(outage)
        return outage


@contextmanager
def _stopped(server: PostgresServer | RedisServer) -> Iterator[None]:
    server.crash()
    yield
    server.start()


def _attempt(task_instance: Json) -> tuple[TaskKey, int]:
    return key_of(task_instance), task_instance["try_number"]


def _has_trigger_running(deferred: Json) -> bool:
    """Return whether a running triggerer, by its heartbeat, has the trigger of a deferred task."""
    job = deferred["triggerer_job"]
    if job is None or job["latest_heartbeat"] is None:
        return False
    return time.time() - datetime.fromisoformat(job["latest_heartbeat"]).timestamp() < MAX_HEARTBEAT_AGE


def _polls(deferred: Json) -> bool:
    """Return whether a deferred task polls requests; another one waits for its turn, which may take minutes."""
    return not str(deferred["trigger"]["classpath"]).endswith(".IdeogramTurnTrigger")


def _busiest(
    components: Mapping[str, Component], tasks: list[Json], machine_of: Callable[[Json], str]
) -> tuple[str, list[Json]]:
    """Return the component with the most of these tasks, and its tasks."""
    by_machine = {name: [one for one in tasks if machine_of(one) == name] for name in components}
    return max(by_machine.items(), key=lambda entry: len(entry[1]))


def _machine_of_task(running: Json) -> str:
    return str(running["hostname"])


def _machine_of_trigger(deferred: Json) -> str:
    """Return the machine of the triggerer of a deferred task, "" if it has none yet."""
    return str((deferred["triggerer_job"] or {}).get("hostname", ""))
