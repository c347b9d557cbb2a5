"""
The template of the rows' prompts.

Invariant: a template reads whole columns of a row, not their attributes or items, and a value is never read as a
template: the rows may come from strangers. Imports nothing heavy: DAG files load it.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from numbers import Real
from typing import Any

from airflow_provider_ideogram.api.values import shown, whole_number
from airflow_provider_ideogram.datasets.columns import column_name

_DIRECTIVE_OF_A_DATE = re.compile(r"%[A-Za-z]")
_WIDE = re.compile(r"\d{5,}")
_WHOLE_NUMBER_TYPES = tuple("bcdoxX")
_NUMBER_TYPES = tuple("eEfFgGn%")


class PromptTemplate:
    """
    A text with the names of columns in braces, such as ``A photo of {product}, {price:.2f} EUR``.

    :param template: The text. Format specifications are Python's, for texts, numbers and dates.
    :raises ValueError: If it is not valid.
    """

    def __init__(self, template: Any) -> None:
        if not isinstance(template, str):
            raise ValueError(f"must be text, not {type(template).__name__}")
        self._parts = [
            (literal, None if name is None else (_column(name, spec or "", conversion), spec or ""))
            for literal, name, spec, conversion in string.Formatter().parse(template)
        ]
        if any("{" in literal or "}" in literal for literal, _ in self._parts):
            raise ValueError("has a doubled brace: a column's name is in single braces, and Jinja does not render it")
        #: The columns that each row must have, as :func:`column_name` returns them.
        self.columns = tuple(dict.fromkeys(field[0] for _, field in self._parts if field))
        if not self.columns:
            raise ValueError("names no column")

    def render(self, row: Mapping[str, Any]) -> str:
        """
        Return the prompt of a row.

        :param row: The values by the columns' names; None and blank text are empty.
        :raises ValueError: If a column is missing, empty, or has no value that the format takes.
        """
        return "".join(literal + (_text(row, *field) if field else "") for literal, field in self._parts)


def check_prompt_template(template: Any) -> list[str]:
    """Return the problems of a ``prompt_template``."""
    try:
        PromptTemplate(template)
    except ValueError as problem:
        return [f"prompt_template: {problem}"]
    return []


def _column(name: str, spec: str, conversion: str | None) -> str:
    field = f"{{{name}{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}}}"
    if not name.strip() or name.isdigit():
        raise ValueError(f"has {field}, which names no column")
    if conversion or any(character in name for character in ".[](){}"):
        raise ValueError(f"has {field}: only columns' names can be used, without attributes, indexes or conversions")
    if "{" in spec or _WIDE.search(spec):
        raise ValueError(f"has {field}, whose format is not a plain one of at most 9,999 characters")
    return column_name(name)


def _text(row: Mapping[str, Any], name: str, spec: str) -> str:
    if name not in row:
        raise ValueError(f"has no column {name!r}, which prompt_template names")
    value = row[name]
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"column {name!r} is empty, and prompt_template names it")
    try:
        return format(_readable(value, spec), spec)
    except (TypeError, ValueError, ArithmeticError) as problem:
        in_format = f" in the format {spec!r}" if spec else ""
        raise ValueError(f"column {name!r}: {shown(value)} can't be written{in_format}: {problem}") from None


def _readable(value: Any, spec: str) -> Any:
    """Return what is formatted; a text becomes the number or date that the format is for, as CSV has texts only."""
    if isinstance(value, str):
        if _DIRECTIVE_OF_A_DATE.search(spec):
            return datetime.fromisoformat(value.strip())
        if spec.endswith(_WHOLE_NUMBER_TYPES):
            return whole_number(value)
        if spec.endswith(_NUMBER_TYPES) or "," in spec:
            return _finite(_decimal(value))
        return value
    if isinstance(value, date | time):
        return value
    if isinstance(value, Real | Decimal) and not isinstance(value, bool):
        number = _finite(value)
        # pandas writes a column of whole numbers with gaps as floats.
        return int(number) if isinstance(number, float) and number.is_integer() and not spec else number
    raise ValueError("it is neither text, nor a number, nor a date")


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text.strip())
    except InvalidOperation:
        raise ValueError("it is not a number") from None


def _finite(value: Any) -> Any:
    if not math.isfinite(value):
        raise ValueError("it is not a finite number")
    return value
