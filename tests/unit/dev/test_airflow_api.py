from __future__ import annotations

import httpx
import pytest

from dev import airflow_api
from dev.airflow_api import AirflowApi, DagImportFailed


@pytest.fixture
def answers():
    """What the server answers, in this order."""
    return []


@pytest.fixture
def api(answers, monkeypatch):
    monkeypatch.setattr(airflow_api.time, "sleep", lambda seconds: None)

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


def test_a_run_is_watched_until_it_has_ended(api, answers):
    answers += [(200, {"state": "running"}), (200, {"state": "failed"})]
    looks = []

    assert api.wait_for_run("dag", "run", 60, lambda: looks.append(len(answers))) == "failed"
    assert looks == [2, 1, 0]


def test_a_run_that_takes_too_long_is_an_error(api):
    with pytest.raises(TimeoutError, match="run of dag has not ended after 0 s"):
        api.wait_for_run("dag", "run", 0)


def test_reading_survives_a_locked_database_and_a_dropped_connection(api, answers):
    answers += [(500, {}), httpx.ReadError("dropped"), (200, {"value": 1})]

    assert api.xcom({"dag_id": "dag", "dag_run_id": "run", "task_id": "task", "map_index": -1}) == 1


def test_reading_gives_up_at_last(api, answers):
    answers += [(500, {})] * 4

    with pytest.raises(httpx.HTTPStatusError):
        api.wait_for_run("dag", "run", 60)


def test_task_instances_of_all_pages_come_in_their_order(api, answers):
    def instance(index):
        return {"task_id": "generate", "map_index": index}

    answers += [
        (200, {"task_instances": [instance(2), instance(0)], "total_entries": 3}),
        (200, {"task_instances": [instance(1)], "total_entries": 3}),
    ]

    assert [one["map_index"] for one in api.task_instances("dag", "run")] == [0, 1, 2]


def test_a_dag_that_cannot_be_imported_is_an_error(api, answers):
    answers += [(404, {}), (200, {"import_errors": []})]
    assert not api.has_dag("dag")

    answers += [(404, {}), (200, {"import_errors": [{"filename": "dag.py", "stack_trace": "SyntaxError"}]})]
    with pytest.raises(DagImportFailed, match=r"dag\.py: SyntaxError"):
        api.has_dag("dag")


def test_a_server_that_is_not_there_has_no_health(api, answers):
    answers += [httpx.ConnectError("refused"), (503, {}), (200, {"scheduler": {}})]

    assert [api.health(), api.health(), api.health()] == [None, None, {"scheduler": {}}]


def test_a_log_is_shown_as_lines_with_its_errors(api, answers):
    entries = [
        "plain",
        {"timestamp": "T", "level": "info", "event": "begun"},
        {"event": "Task failed", "level": "error", "error_detail": [{"exc_type": "ValueError", "exc_value": "no"}]},
    ]
    answers.append((200, {"content": entries}))

    task_instance = {"dag_id": "dag", "dag_run_id": "run", "task_id": "task", "map_index": -1, "try_number": 1}
    assert api.log(task_instance).splitlines() == ["plain", "T info begun", "error Task failed", "ValueError: no"]


def test_a_run_takes_from_its_queue_to_its_end(api, answers):
    answers.append((200, {"queued_at": "2026-01-01T00:00:59Z", "end_date": "2026-01-01T00:01:01.500Z"}))
    assert api.run_seconds("dag", "run") == 2.5
