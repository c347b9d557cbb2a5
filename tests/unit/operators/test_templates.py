from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import pytest

from airflow_provider_ideogram.operators.templates import is_literal


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "a {cat}",
        "100 %",
        7,
        0.5,
        True,
        [],
        (1, "a"),
        {},
        {"a": [{"b": None}]},
        "}} {",
        b"{{",
        date(2026, 1, 1),
        Decimal(1),
        PurePosixPath("a"),
    ],
)
def test_literal(value: Any) -> None:
    assert is_literal(value)


@pytest.mark.parametrize(
    "value",
    [
        "{{ ds }}",
        "a {% if x %}cat{% endif %}",
        "{# a cat #}",
        ["a", "{{ ds }}"],
        ("{{ ds }}",),
        {"a": {"b": ["{{ ds }}"]}},
        {"{{ ds }}": 1},
        object(),
        [object()],
    ],
)
def test_what_rendering_may_change_is_no_literal(value: Any) -> None:
    assert not is_literal(value)
