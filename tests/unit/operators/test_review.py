from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.links import ideogram as links
from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator, IdeogramReviewOperator
from tests.support.airflow_version import need_airflow
from tests.unit.reviews.examples import image

need_airflow("3.1", "pages of plugins as tabs in its UI")


def _operator(**arguments: Any) -> IdeogramReviewOperator:
    return IdeogramReviewOperator(**{"task_id": "review", "images": [image()], **arguments})


@pytest.mark.parametrize(
    "arguments",
    [
        {"images": "{{ ti.xcom_pull('make') }}", "min_approved": 3},
        {"images": {"manifest_uri": "s3://bucket/cats/manifest.jsonl"}, "min_approved": 0.5, "on_timeout": "skip"},
        {"images": [[image(1)], None], "allow_redo": False, "timeout": 60.0, "on_timeout": "continue"},
    ],
)
def test_valid_arguments(arguments: dict[str, Any]) -> None:
    operator = _operator(**arguments)
    assert {name: getattr(operator, name) for name in arguments} == arguments


def test_output_of_another_task_is_taken_and_durations_are_read() -> None:
    with DAG("cats"):
        made = IdeogramGenerateImageOperator(task_id="make", prompt="a cat", s3_key="s3://bucket/cat.png")
        operator = _operator(images=made.output, timeout=timedelta(days=2))
    assert (operator.timeout, operator.upstream_task_ids) == (172800.0, {"make"})


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"images": 7}, "images: must be what tasks of this provider return, not int"),
        ({"images": {"uri": "s3://bucket/cat.png"}}, "images: must be what a task of this provider returns"),
        ({"min_approved": -1}, "min_approved: -1 is not a number from 0 up"),
        ({"min_approved": float("nan")}, "min_approved: nan is not a number from 0 up"),
        ({"min_approved": "many"}, "min_approved: 'many' is not a number from 0 up"),
        ({"allow_redo": "yes"}, "allow_redo: 'yes' is neither True nor False"),
        ({"timeout": 0}, "timeout: 0"),
        ({"on_timeout": "approve"}, "on_timeout: 'approve' is not valid"),
        ({"ledger_prefix": "x" * 65}, "ledger_prefix"),
    ],
)
def test_invalid_arguments(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(IdeogramInvalidInput) as error:
        _operator(**arguments)
    assert problem in str(error.value)


def test_airflow_without_the_gallery_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "__version__", "3.0.6")
    with pytest.raises(IdeogramInvalidInput, match=r"needs Airflow 3\.1"):
        _operator()
