"""
Airflow's execution API in memory.

Invariant: it responds to the task runner as Airflow's API server does, and keeps what the server would keep in its
database, so that a test can read all of it. An unknown call fails the test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote
from uuid import UUID, uuid4

from airflow.sdk.api.datamodels._generated import DagRun

from tests.support.airflow_version import AIRFLOW, sdk_httpx
from tests.support.task_runner import LOGICAL_DATE

#: The key of a task instance: DAG, run, task and map index.
TaskKey = tuple[str, str, str, int]


@dataclass
class StoredTask:
    """
    A task instance as in Airflow's database.

    :param key: DAG, run, task and map index.
    :param max_tries: Attempts after the first one, as ``retries`` of the operator.
    :param conf: The DAG run's configuration.
    """

    key: TaskKey
    max_tries: int
    conf: dict[str, Any]
    id: UUID = field(default_factory=uuid4)
    try_number: int = 1
    state: str = "queued"
    next_method: str | None = None
    next_kwargs: dict[str, Any] | None = None
    deferral: dict[str, Any] | None = None
    rendered_fields: dict[str, Any] = field(default_factory=dict)
    outlet_events: list[dict[str, Any]] = field(default_factory=list)

    def next_try(self) -> None:
        """Start a new attempt from the beginning and with a new id, as Airflow's scheduler does."""
        if AIRFLOW > (3, 0) or self.state != "up_for_retry":  # Airflow 3.0 resumes where the failed attempt was
            self.next_method = self.next_kwargs = None
        self.id, self.try_number, self.state, self.deferral = uuid4(), self.try_number + 1, "queued", None


class ExecutionApi:
    """The task instances and XComs of a test, served to Airflow's own client."""

    def __init__(self) -> None:
        self.tasks: list[StoredTask] = []
        self.xcoms: dict[TaskKey, dict[str, Any]] = {}
        #: All requests, as text.
        self.received: list[str] = []
        xcom = r"xcoms/(?P<dag>[^/]+)/(?P<run>[^/]+)/(?P<task>[^/]+)/(?P<name>[^/]+)"
        task = r"task-instances/(?P<ti_id>[^/]+)"
        self._routes: list[tuple[str, str, Callable[..., sdk_httpx.Response]]] = [
            ("GET", "task-instances/states", self._states),
            ("PATCH", f"{task}/run", self._start),
            ("PATCH", f"{task}/state", self._set_state),
            ("PUT", f"{task}/rtif", self._set_rendered_fields),
            ("PATCH", f"{task}/rendered-map-index", self._accept),
            ("GET", f"{task}/validate-inlets-and-outlets", self._no_inactive_assets),
            ("POST", xcom, self._set_xcom),
            ("GET", xcom, self._get_xcom),
            ("DELETE", xcom, self._delete_xcom),
            ("HEAD", xcom, self._count_xcoms),
            ("GET", f"{xcom}/slice", self._slice_xcoms),
            ("GET", rf"{xcom}/item/(?P<offset>\d+)", self._get_xcom_item),
            ("GET", "(connections|variables)/(?P<name>[^/]+)", self._not_here),
        ]

    def __call__(self, request: sdk_httpx.Request) -> sdk_httpx.Response:
        """Respond to a request; the handler for :class:`sdk_httpx.MockTransport`."""
        body = request.read()
        path = request.url.raw_path.decode().partition("?")[0].lstrip("/")
        self.received.append(f"{request.method} {unquote(path)} {body.decode()}")
        for method, pattern, respond in self._routes:
            if request.method == method and (found := re.fullmatch(pattern, path)):
                parts = {name: unquote(part) for name, part in found.groupdict().items()}
                return respond(request, json.loads(body) if body else None, **parts)
        raise AssertionError(f"the execution API of the tests has no {request.method} {path}")

    def find(self, task_id: str) -> StoredTask:
        """Return the task instance with an id."""
        return next(task for task in self.tasks if str(task.id) == task_id)

    # Task instances

    def _start(self, _: sdk_httpx.Request, body: Any, ti_id: str) -> sdk_httpx.Response:
        task = self.find(ti_id)
        if task.state != "queued":
            raise AssertionError(f"a task that is {task.state} was started")
        task.state = body["state"]
        dag_id, run_id, _task_id, _map_index = task.key
        date = LOGICAL_DATE.isoformat()
        run: dict[str, Any] = {
            "dag_id": dag_id,
            "run_id": run_id,
            "logical_date": date,
            "data_interval_start": date,
            "data_interval_end": date,
            "run_after": date,
            "start_date": date,
            "end_date": None,
            "run_type": "manual",
            "state": "running",
            "conf": task.conf,
            "consumed_asset_events": [],
            "partition_key": None,
        }
        context = {
            # Each version of Airflow accepts its own fields only.
            "dag_run": {name: value for name, value in run.items() if name in DagRun.model_fields},
            "max_tries": task.max_tries,
            "should_retry": task.max_tries > 0 and task.try_number <= task.max_tries,
            # A new attempt starts without the XComs of the last; one that resumes keeps them.
            "xcom_keys_to_clear": [] if task.next_method else list(self.xcoms.get(task.key, {})),
            "next_method": task.next_method,
            "next_kwargs": task.next_kwargs,
        }
        return sdk_httpx.Response(200, json=context)

    def _set_state(self, _: sdk_httpx.Request, body: Any, ti_id: str) -> sdk_httpx.Response:
        task = self.find(ti_id)
        task.state = body["state"]
        task.outlet_events = body.get("outlet_events") or []
        if task.state == "deferred":
            task.deferral = body
            task.next_method, task.next_kwargs = body["next_method"], body["next_kwargs"]
        return sdk_httpx.Response(204)

    def _set_rendered_fields(self, _: sdk_httpx.Request, body: Any, ti_id: str) -> sdk_httpx.Response:
        self.find(ti_id).rendered_fields = body
        return sdk_httpx.Response(201)

    def _accept(self, *_: Any, **__: str) -> sdk_httpx.Response:
        return sdk_httpx.Response(204)

    def _no_inactive_assets(self, *_: Any, **__: str) -> sdk_httpx.Response:
        return sdk_httpx.Response(200, json={"inactive_assets": []})

    def _states(self, request: sdk_httpx.Request, _: Any) -> sdk_httpx.Response:
        params = request.url.params
        states: dict[str, dict[str, str]] = {}
        for task in self.tasks:
            dag_id, run_id, task_id, map_index = task.key
            if (dag_id, run_id, task_id) == (params["dag_id"], params["run_ids"], params["task_ids"]):
                name = task_id if map_index < 0 else f"{task_id}_{map_index}"
                states.setdefault(run_id, {})[name] = task.state
        return sdk_httpx.Response(200, json={"task_states": states})

    # XComs

    def _set_xcom(self, request: sdk_httpx.Request, body: Any, name: str, **place: str) -> sdk_httpx.Response:
        self.xcoms.setdefault(_task_key(request, **place), {})[name] = body
        return sdk_httpx.Response(201)

    def _get_xcom(self, request: sdk_httpx.Request, _: Any, name: str, **place: str) -> sdk_httpx.Response:
        stored = self.xcoms.get(_task_key(request, **place), {})
        return sdk_httpx.Response(200, json={"key": name, "value": stored[name]}) if name in stored else _not_found()

    def _delete_xcom(self, request: sdk_httpx.Request, _: Any, name: str, **place: str) -> sdk_httpx.Response:
        self.xcoms.get(_task_key(request, **place), {}).pop(name, None)
        return sdk_httpx.Response(204)

    def _count_xcoms(self, _: sdk_httpx.Request, __: Any, **place: str) -> sdk_httpx.Response:
        return sdk_httpx.Response(200, headers={"Content-Range": f"map_indexes {len(self._mapped(**place))}"})

    def _slice_xcoms(self, request: sdk_httpx.Request, _: Any, **place: str) -> sdk_httpx.Response:
        bounds = (request.url.params.get(bound) for bound in ("start", "stop", "step"))
        selected = slice(*(None if bound is None else int(bound) for bound in bounds))
        return sdk_httpx.Response(200, json=self._mapped(**place)[selected])

    def _get_xcom_item(self, _: sdk_httpx.Request, __: Any, offset: str, **place: str) -> sdk_httpx.Response:
        values = self._mapped(**place)
        return sdk_httpx.Response(200, json=values[int(offset)]) if int(offset) < len(values) else _not_found()

    def _mapped(self, dag: str, run: str, task: str, name: str) -> list[Any]:
        """Return the values of all map indexes in their order."""
        return [
            values[name] for key, values in sorted(self.xcoms.items()) if key[:3] == (dag, run, task) and name in values
        ]

    def _not_here(self, *_: Any, **__: str) -> sdk_httpx.Response:
        """Connections and variables of a test are in environment variables."""
        return _not_found()


def _task_key(request: sdk_httpx.Request, dag: str, run: str, task: str) -> TaskKey:
    return dag, run, task, int(request.url.params.get("map_index", -1))


def _not_found() -> sdk_httpx.Response:
    return sdk_httpx.Response(404, json={"detail": {"reason": "not_found", "message": "not found"}})
