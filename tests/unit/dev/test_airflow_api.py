from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from dev.airflow_api import AirflowApi, DagImportFailed

#: A status with a JSON body, or what the transport raises.
Answers = list[tuple[int, Any] | Exception]


@pytest.fixture
def answers() -> Answers:
    """Return the server's responses, in this order."""
    return []


@pytest.fixture
def api(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> Iterator[AirflowApi]:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def answer(request: httpx.Request) -> httpx.Response:
        following = answers.pop(0)
        if isinstance(following, Exception):
            raise following
        status, body = following
        return httpx.Response(status, json=body)

    api = AirflowApi("http://airflow.test")
    api.close()
    api._http = httpx.Client(base_url=api.url, transport=httpx.MockTransport(answer))
    yield api
    api.close()


def test_wait_for_run_watches_until_the_end(api: AirflowApi, answers: Answers) -> None:
    answers += [(200, {"state": "running"}), (200, {"state": "failed"})]
    calls: list[int] = []

    assert api.wait_for_run("dag", "run", 60, lambda: calls.append(len(answers))) == "failed"
    assert calls == [2, 1, 0]


def test_wait_for_run_times_out(api: AirflowApi) -> None:
    with pytest.raises(TimeoutError, match="run of dag has not ended after 0 s"):
        api.wait_for_run("dag", "run", 0)


def test_reads_are_repeated_after_temporary_errors(api: AirflowApi, answers: Answers) -> None:
    answers += [(500, {}), httpx.ReadError("dropped"), (200, {"value": 1})]

    assert api.xcom({"dag_id": "dag", "dag_run_id": "run", "task_id": "task", "map_index": -1}) == 1


def test_reads_fail_after_the_last_attempt(api: AirflowApi, answers: Answers) -> None:
    answers += [(500, {})] * 4

    with pytest.raises(httpx.HTTPStatusError):
        api.wait_for_run("dag", "run", 60)


def test_task_instances_of_all_pages_are_in_order(api: AirflowApi, answers: Answers) -> None:
    def instance(index: int) -> dict[str, Any]:
        return {"task_id": "generate", "map_index": index}

    answers += [
        (200, {"task_instances": [instance(2), instance(0)], "total_entries": 3}),
        (200, {"task_instances": [instance(1)], "total_entries": 3}),
    ]

    assert [one["map_index"] for one in api.task_instances("dag", "run")] == [0, 1, 2]


def test_import_error_of_a_dag_is_raised(api: AirflowApi, answers: Answers) -> None:
    answers += [(404, {}), (200, {"import_errors": []})]
    assert not api.has_dag("dag")

    answers += [(404, {}), (200, {"import_errors": [{"filename": "dag.py", "stack_trace": "SyntaxError"}]})]
    with pytest.raises(DagImportFailed, match=r"dag\.py: SyntaxError"):
        api.has_dag("dag")


def test_unavailable_server_has_no_health(api: AirflowApi, answers: Answers) -> None:
    answers += [httpx.ConnectError("refused"), (503, {}), (200, {"scheduler": {}})]

    assert [api.health(), api.health(), api.health()] == [None, None, {"scheduler": {}}]


def test_log_has_lines_with_its_errors(api: AirflowApi, answers: Answers) -> None:
    entries = [
        "plain",
        {"timestamp": "T", "level": "info", "event": "begun"},
        {"event": "Task failed", "level": "error", "error_detail": [{"exc_type": "ValueError", "exc_value": "no"}]},
    ]
    answers.append((200, {"content": entries}))

    task_instance = {"dag_id": "dag", "dag_run_id": "run", "task_id": "task", "map_index": -1, "try_number": 1}
    assert api.log(task_instance).splitlines() == ["plain", "T info begun", "error Task failed", "ValueError: no"]


def test_run_seconds_count_from_the_queue(api: AirflowApi, answers: Answers) -> None:
    answers.append((200, {"queued_at": "2026-01-01T00:00:59Z", "end_date": "2026-01-01T00:01:01.500Z"}))
    assert api.run_seconds("dag", "run") == 2.5
