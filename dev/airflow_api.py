"""The calls of Airflow's REST API that a launcher needs: trigger a run, wait for it, read its results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import httpx

POLL_SECONDS = 1.0
# Seconds between attempts to read: SQLite may be locked for a moment.
RETRY_SECONDS = (1.0, 2.0, 4.0)
PAGE = 100
ENDED_STATES = frozenset({"success", "failed"})

Json = dict[str, Any]


class DagImportFailed(Exception):
    """A DAG file could not be imported; the message shows its path and the traceback."""


class AirflowApi:
    """
    A client of one Airflow whose simple auth manager makes every caller an administrator.

    :param base_url: address of the API server.
    """

    _prefix = "/api/v2"
    _health = "/api/v2/monitor/health"

    def __init__(self, base_url: str) -> None:
        self.url = base_url
        # Loopback addresses are not reached through a proxy of the environment.
        self._http = httpx.Client(base_url=base_url, timeout=30, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def health(self) -> Json | None:
        """Return each component's health, None while the server does not respond."""
        try:
            response = self._http.get(self._health, timeout=5)
        except httpx.TransportError:
            return None
        return response.json() if response.is_success else None

    def log_in(self) -> None:
        """Get a token, to be sent with all further calls."""
        response = self._http.get("/auth/token").raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {response.json()['access_token']}"

    @property
    def authorization(self) -> dict[str, str]:
        """The header of the token; KeyError before a login."""
        return {"Authorization": self._http.headers["Authorization"]}

    def has_dag(self, dag_id: str) -> bool:
        """
        Return whether the DAG processor has stored this DAG.

        :raises DagImportFailed: a DAG file could not be imported.
        """
        if self._http.get(f"{self._prefix}/dags/{dag_id}").is_success:
            return True
        errors = self._get("/importErrors")["import_errors"]
        if errors:
            raise DagImportFailed("\n".join(f"{error['filename']}: {error['stack_trace']}" for error in errors))
        return False

    def trigger_run(self, dag_id: str, conf: Mapping[str, Any] | None = None, run_id: str | None = None) -> str:
        """
        Start a run whose logical date is now, and return its id.

        :param run_id: the id, None leaves it to Airflow.
        """
        body = {"logical_date": datetime.now(UTC).isoformat(), "conf": dict(conf or {})}
        if run_id is not None:
            body["dag_run_id"] = run_id
        response = self._http.post(f"{self._prefix}/dags/{dag_id}/dagRuns", json=body).raise_for_status()
        created: str = response.json()["dag_run_id"]
        return created

    def wait_for_run(self, dag_id: str, run_id: str, timeout: float, watch: Callable[[], None] = lambda: None) -> str:
        """
        Wait until a run has ended, and return its state.

        :param timeout: seconds.
        :param watch: called before each check and once after the end; it reports progress, or ends the wait by raising.
        :raises TimeoutError: it was still running.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            watch()
            state: str = self._get(f"/dags/{dag_id}/dagRuns/{run_id}")["state"]
            if state in ENDED_STATES:
                watch()
                return state
            time.sleep(POLL_SECONDS)
        raise TimeoutError(f"run {run_id} of {dag_id} has not ended after {timeout:.0f} s")

    def run_seconds(self, dag_id: str, run_id: str) -> float:
        """Return how long a run that has ended took since it was queued, by Airflow's own times."""
        run = self._get(f"/dags/{dag_id}/dagRuns/{run_id}")
        queued, ended = (datetime.fromisoformat(run[name]) for name in ("queued_at", "end_date"))
        return (ended - queued).total_seconds()

    def run_states(self, dag_id: str) -> dict[str, str]:
        """Return the state of each of a DAG's newest runs, at most a page of them, by its id."""
        runs = self._get(f"/dags/{dag_id}/dagRuns", limit=PAGE, order_by="-id")["dag_runs"]
        return {run["dag_run_id"]: run["state"] for run in runs}

    def clear(self, task_instance: Json) -> None:
        """Clear a task instance in any state, so that it runs again."""
        target = [task_instance["task_id"], task_instance["map_index"]]
        body = {
            "dry_run": False,
            "only_failed": False,
            "dag_run_id": task_instance["dag_run_id"],
            "task_ids": [target if task_instance["map_index"] >= 0 else target[0]],
        }
        path = f"{self._prefix}/dags/{task_instance['dag_id']}/clearTaskInstances"
        self._http.post(path, json=body).raise_for_status()

    def count_task_instances(self, dag_id: str, run_id: str, state: str) -> int:
        """Return how many task instances of a run ("~" for all) are in a state."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        count: int = self._get(path, state=state, limit=1)["total_entries"]
        return count

    def task_instances(self, dag_id: str, run_id: str, state: str | None = None) -> list[Json]:
        """
        Return all task instances of a run, mapped ones included, in their order.

        :param run_id: the run, "~" for all.
        :param state: the state that they are in, None for any.
        """
        found: list[Json] = []
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        where = {} if state is None else {"state": state}
        while True:
            page = self._get(path, limit=PAGE, offset=len(found), order_by="id", **where)
            found += page["task_instances"]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                return sorted(found, key=lambda instance: (instance["task_id"], instance["map_index"]))

    def xcom(self, task_instance: Json, key: str = "return_value") -> Any:
        """Return one XCom of a task instance."""
        return self._get(
            f"{self._path(task_instance)}/xcomEntries/{key}",
            map_index=task_instance["map_index"],
            deserialize=True,
        )["value"]

    def log(self, task_instance: Json) -> str:
        """Return the log of a task instance's last attempt as lines of text."""
        content = self._get(
            f"{self._path(task_instance)}/logs/{task_instance['try_number']}",
            map_index=task_instance["map_index"],
            full_content=True,
        )["content"]
        return "\n".join(_log_line(entry) for entry in content)

    def _path(self, task_instance: Json) -> str:
        dag_id, run_id, task_id = (task_instance[name] for name in ("dag_id", "dag_run_id", "task_id"))
        return f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"

    def _get(self, path: str, **parameters: Any) -> Any:
        path = f"{self._prefix}{path}"
        for seconds in RETRY_SECONDS:
            with suppress(httpx.TransportError):
                response = self._http.get(path, params=parameters)
                if not response.is_server_error:
                    break
            time.sleep(seconds)
        else:
            response = self._http.get(path, params=parameters)
        return response.raise_for_status().json()


class Airflow2Api(AirflowApi):
    """A client of Airflow 2's webserver without authentication, for runs and their states only."""

    _prefix = "/api/v1"
    _health = "/api/v1/health"

    def log_in(self) -> None:
        """Do nothing: every caller is an administrator."""


def _log_line(entry: str | Json) -> str:
    if isinstance(entry, str):
        return entry
    lines = [f"{entry.get('timestamp') or ''} {entry.get('level', '')} {entry.get('event', '')}".strip()]
    lines += [f"{error['exc_type']}: {error['exc_value']}" for error in entry.get("error_detail") or []]
    return "\n".join(lines)
