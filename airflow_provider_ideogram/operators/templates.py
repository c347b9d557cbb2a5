"""
Which arguments have their final value while a DAG is parsed.

Invariant: rendering does not change a value that counts as literal, so it can be checked at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date


def is_literal(value: object) -> bool:
    """Return whether an operator's argument is a plain value: no Jinja template, no output of another task."""
    if isinstance(value, str):
        return "{{" not in value and "{%" not in value and "{#" not in value
    if isinstance(value, Mapping):
        return all(is_literal(key) and is_literal(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(is_literal(item) for item in value)
    return value is None or isinstance(value, bool | int | float | bytes | date)
