from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_ideogram.operators.task_states import is_at_work

OWNER = "night/manual__2026-01-02T00:00:00+00:00/make/-1"


def asking(states: dict[str, Any]) -> Any:
    def get_task_states(dag_id: str, run_ids: list[str], task_ids: list[str]) -> dict[str, Any]:
        assert (dag_id, run_ids, task_ids) == ("night", ["manual__2026-01-02T00:00:00+00:00"], ["make"])
        return {run_ids[0]: states}

    return SimpleNamespace(get_task_states=get_task_states)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("scheduled", True),
        ("queued", True),
        ("running", True),
        ("deferred", True),
        ("restarting", True),
        ("up_for_retry", False),
        ("success", False),
        ("failed", False),
        ("removed", False),
        (None, False),
    ],
)
def test_state_says_whether_a_task_is_at_work(state: str | None, expected: bool) -> None:
    assert is_at_work(asking({"make": state}), OWNER) is expected
    assert is_at_work(asking({"make_7": state}), OWNER.replace("/-1", "/7")) is expected
    assert is_at_work(asking({"make_7": state}), OWNER.replace("/-1", "/7@0f.2")) is expected


def test_task_that_airflow_does_not_know_is_not_at_work() -> None:
    assert not is_at_work(asking({}), OWNER)
    assert not is_at_work(asking({"make_1": "running"}), OWNER)
