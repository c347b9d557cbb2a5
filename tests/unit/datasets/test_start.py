from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_ideogram.datasets.start import input_digest
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.storage.target import Target
from tests.support.s3 import NO_S3
from tests.unit.datasets.examples import OPTIONS

CIRCULAR: dict[str, Any] = {"prompt": "x"}
CIRCULAR["mine"] = CIRCULAR


def digest(**options: Any) -> str:
    return input_digest(replace(OPTIONS, **{"prompts": ["x"], **options}), Target("my-bucket", "day/"), NO_S3)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompts": ["y"]},
        {"prompts": ["x", "x"]},
        {"prompt_template": "{prompt}!"},
        {"variants": 1},
        {"matrix": {"style_type": ["DESIGN"]}},
        {"key_template": "{id}.png"},
        {"defaults": {"style_type": "DESIGN"}},
    ],
)
def test_each_change_of_the_images_changes_the_digest(changes: dict[str, Any]) -> None:
    assert digest(**changes) != digest()
    assert digest(**changes) == digest(**changes)


def test_order_of_the_columns_does_not_matter() -> None:
    assert digest(prompts=[{"prompt": "x", "id": 1}]) == digest(prompts=[{"id": 1, "prompt": "x"}])


@pytest.mark.parametrize("row", [{1: "a", "b": 2}, {"mine": {1: "a", "b": 2}}, CIRCULAR, {"mine": object}, "\ud800"])
def test_row_that_json_does_not_have_is_digested(row: Any) -> None:
    assert digest(prompts=[row]) == digest(prompts=[row]) != digest()


def test_row_without_a_text_is_an_input_error() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for row in (10**5000, {"prompt": "x", "seed": 10**5000}, deep):
        with pytest.raises(IdeogramInvalidInput, match="prompts: item 1 can't be written as text"):
            digest(prompts=["x", row])
