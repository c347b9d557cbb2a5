"""
Plain values of what users, templates, databases, numpy and pandas pass as arguments.

Invariant: a value that can't be read raises ValueError, whatever its type, with a text that suits one line of a log.
"""

from __future__ import annotations

import math
import numbers
import os
import re
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeGuard

#: What a template renders for a missing value: of Python, of numpy and of pandas.
MISSING_TEXTS = ("None", "nan", "<NA>")

_WHOLE_TEXT = re.compile(r"\s*([+-]?[0-9]{1,300})(?:\.0*)?\s*")
_MAX_SHOWN = 80
#: A timedelta, and Airflow's columns of times, hold more than this.
_MAX_SECONDS = 366 * 86_400.0


def shown(value: object) -> str:
    """Return a value as a message quotes it: texts and numbers themselves, shortened, and the type of all others."""
    if value is not None and not isinstance(value, str | numbers.Number | timedelta | os.PathLike):
        return f"a value of type {type(value).__name__}"
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "an integer of thousands of digits"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def is_missing_number(value: object) -> bool:
    """Return whether a value is a NaN, which pandas writes where a number is missing."""
    if isinstance(value, Decimal):
        return value.is_nan()  # a signaling NaN can't be compared
    return isinstance(value, numbers.Real) and value != value


def number(value: object) -> float:
    """Return a number as an int or float; raise ValueError for text, a boolean, infinity and NaN."""
    if _is_finite(value):
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    raise ValueError(f"{shown(value)} is not a number")


def whole_number(value: object) -> int:
    """Return a whole number, also one written as text, float or Decimal; raise ValueError for all others."""
    if isinstance(value, str):
        if digits := _WHOLE_TEXT.fullmatch(value):
            return int(digits[1])
    elif _is_finite(value) and value == int(value):
        return int(value)
    raise ValueError(f"{shown(value)} is not an integer")


def seconds(value: object) -> float:
    """Return a duration, given as seconds or as a timedelta, in seconds; raise ValueError unless it is above 0."""
    found = value.total_seconds() if isinstance(value, timedelta) else value
    if _is_finite(found) and 0 < found <= _MAX_SECONDS:
        return number(found)
    raise ValueError(f"{shown(value)} is not a number of seconds above 0 and at most a year, nor such a timedelta")


def path_text(value: Any) -> Any:
    """Return the text of an ``os.PathLike`` or of Airflow's ``ObjectStoragePath``; other values unchanged."""
    if hasattr(value, "protocol") and hasattr(value, "path"):  # ObjectStoragePath is no PathLike
        return str(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _is_finite(value: Any) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, numbers.Real | Decimal):
        return False
    try:
        return math.isfinite(value)
    except (OverflowError, ValueError):  # beyond a float, and a signaling NaN
        return False
