"""
Machines and servers of a distributed Airflow that die or stand still.

Invariant: each finds out whom it strikes before it strikes, and leaves everything running again. It strikes only while
there is somebody to be struck; until then it waits for its moment.
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
from tests.system.experiment import ALL, Diary, Outage, TaskKey, key_of

#: How long a server is away: longer than a poll or a heartbeat, shorter than what counts as a death.
AWAY_SECONDS = 8.0
#: How closely a takeover is watched, and how long: the jobs of a triggerer that nobody took over count as stuck.
WATCH_SECONDS = 0.2
TAKEOVER_SECONDS = 180.0
TAKEN_OVER, ALL_FINISHED = "first job taken over", "all its jobs finished"
#: A triggerer's heart beats every two seconds here.
ALIVE_SECONDS = 6.0
LOST_WORKER = "kill -9 of a worker's machine"
LOST_TRIGGERER = "kill -9 of a triggerer's machine"

Json = dict[str, Any]


class Outages:
    """
    What can happen; each method tells whether it did.

    :param cluster: Airflow, each of whose workers and triggerers runs on the machine of its name.
    :param diary: Where it is noted.
    """

    def __init__(
        self,
        cluster: AirflowCluster,
        postgres: PostgresServer,
        redis: RedisServer,
        workers: Sequence[Component],
        triggerers: Sequence[Component],
        diary: Diary,
    ) -> None:
        self._cluster = cluster
        self._postgres = postgres
        self._redis = redis
        self._workers = {component.name: component for component in workers}
        self._triggerers = {component.name: component for component in triggerers}
        self._diary = diary
        # Airflow's books call them running until it misses their heartbeats.
        self._dead: set[tuple[TaskKey, int]] = set()

    def lose_worker(self) -> bool:
        """Kill the worker that is busiest, with its tasks, and start it again."""
        running = [one for one in self._tasks("running") if _attempt(one) not in self._dead]
        name, struck = _busiest(self._workers, running, _machine_of_task)
        if not struck:
            return False
        self._dead.update(map(_attempt, struck))
        self._cluster.lose(self._workers[name])
        self._cluster.start(self._workers[name])
        self._note(LOST_WORKER, struck)
        return True

    def lose_triggerer(self) -> bool:
        """Kill the triggerer that carries most jobs, and start it again when the other one has finished them."""
        deferred = [one for one in self._tasks("deferred") if _is_carried(one)]
        name, carried = _busiest(self._triggerers, deferred, _machine_of_trigger)
        if not carried:
            return False
        killed_at = time.monotonic()
        self._cluster.lose(self._triggerers[name])
        outage = self._note(LOST_TRIGGERER, carried, TAKEN_OVER, ALL_FINISHED)
        self._watch_takeover(outage, {one["trigger"]["id"] for one in carried}, name, killed_at)
        self._cluster.start(self._triggerers[name])
        return True

    def crash_redis(self) -> bool:
        """Kill Redis, and start it again with its append-only file."""
        return self._take_away("kill -9 of Redis", _stopped(self._redis))

    def crash_postgres(self) -> bool:
        """End PostgreSQL with all its connections, and start it again after a while."""
        return self._take_away("PostgreSQL stopped at once, and started again", _stopped(self._postgres))

    def freeze_postgres(self) -> bool:
        """Let PostgreSQL answer nothing for a while."""
        return self._take_away("PostgreSQL stood still", self._postgres.frozen())

    def _take_away(self, what: str, away: AbstractContextManager[None]) -> bool:
        """Let a server be away for a while, which strikes all tasks that are under way."""
        struck = [one for state in ("queued", "running", "deferred") for one in self._tasks(state)]
        if not struck:
            return False
        with away:
            time.sleep(AWAY_SECONDS)
        self._note(what, struck)
        return True

    def _watch_takeover(self, outage: Outage, triggers: set[int], lost: str, since: float) -> None:
        """
        Measure until Airflow's books name another triggerer for one of these triggers, and until all have fired.

        A job is finished when its trigger has fired: what its task then does on a worker is none of the triggerer's.
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

    def _note(self, what: str, struck: list[Json], *awaited: str) -> Outage:
        tasks: list[TaskKey] = [key_of(one) for one in struck]
        outage = Outage(what, tasks, dict.fromkeys(awaited))
        self._diary.outages.append(outage)
        return outage


@contextmanager
def _stopped(server: PostgresServer | RedisServer) -> Iterator[None]:
    server.crash()
    yield
    server.start()


def _attempt(task_instance: Json) -> tuple[TaskKey, int]:
    return key_of(task_instance), task_instance["try_number"]


def _is_carried(deferred: Json) -> bool:
    """Tell whether a triggerer carries a deferred task: not one that died, as its heartbeat shows."""
    job = deferred["triggerer_job"]
    if job is None or job["latest_heartbeat"] is None:
        return False
    return time.time() - datetime.fromisoformat(job["latest_heartbeat"]).timestamp() < ALIVE_SECONDS


def _busiest(
    components: Mapping[str, Component], tasks: list[Json], machine_of: Callable[[Json], str]
) -> tuple[str, list[Json]]:
    """Return the component that most of these tasks are with, and those tasks; none if they are with others."""
    by_machine = {name: [one for one in tasks if machine_of(one) == name] for name in components}
    return max(by_machine.items(), key=lambda entry: len(entry[1]))


def _machine_of_task(running: Json) -> str:
    return str(running["hostname"])


def _machine_of_trigger(deferred: Json) -> str:
    """Return the machine of the triggerer that carries a deferred task, "" if none does yet."""
    return str((deferred["triggerer_job"] or {}).get("hostname", ""))
