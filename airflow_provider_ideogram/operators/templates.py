"""
Which arguments have their final value while a DAG is parsed.

Invariant: rendering does not change a value that counts as literal, so it can be checked at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def has_template(text: str, environment: Environment) -> bool:
    """Return whether a text has what the environment of a DAG, which may have delimiters of its own, renders."""
    marks = (
        environment.variable_start_string,
        environment.block_start_string,
        environment.comment_start_string,
        environment.line_statement_prefix,
        environment.line_comment_prefix,
    )
    return any(mark in text for mark in marks if mark)


def is_literal(value: object) -> bool:
    """Return whether an operator's argument is a plain value: no Jinja template, no output of another task."""
    if isinstance(value, str):
        return "{{" not in value and "{%" not in value and "{#" not in value
    if isinstance(value, Mapping):
        return all(is_literal(key) and is_literal(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(is_literal(item) for item in value)
    return value is None or isinstance(value, bool | int | float | Decimal | bytes | date | timedelta | PathLike)
