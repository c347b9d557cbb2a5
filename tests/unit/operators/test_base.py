"""Which attempt a deferral belongs to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator


class Operator(IdeogramGenerateImageOperator):
    """Says where it was begun or resumed."""

    def execute(self, context: Any) -> Any:
        return "from the beginning"

    def execute_complete(self, context: Any, event: Any) -> Any:
        return event


@pytest.mark.parametrize(
    ("attempt", "expected"),
    [
        ({"attempt": 2}, "the event"),
        ({"attempt": 1}, "from the beginning"),  # as Airflow 3.0 and 3.1.0 resume the attempt after a failed one
        ({}, "the event"),  # of an older version of the provider
    ],
)
def test_deferral_of_another_attempt_is_not_resumed(attempt: dict[str, int], expected: str) -> None:
    operator = Operator(task_id="images", prompt="A cat", s3_key="s3://my-bucket/cat.png")
    stored = {**attempt, "event": "the event"}

    result = operator.resume_execution("execute_complete", stored, {"ti": SimpleNamespace(try_number=2)})  # type: ignore[typeddict-item]

    assert result == expected
    assert stored == {**attempt, "event": "the event"}
