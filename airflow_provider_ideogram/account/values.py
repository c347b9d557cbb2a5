"""
The plain values of a state that was read from S3.

Invariant: a value of another type or size raises ValueError: a budget that is not a number would keep nothing.
"""

from __future__ import annotations

#: The largest number in a state: times in seconds, and amounts in millionths of a USD, are far below.
_MOST = 10**15


def real(value: object) -> float:
    """Return a number."""
    if type(value) not in (int, float) or not -_MOST <= value <= _MOST:  # type: ignore[operator]
        raise ValueError(f"{value!r:.80} is not a number of a state")
    return value  # type: ignore[return-value]


def count(value: object) -> int:
    """Return a whole number from 0 up."""
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ValueError(f"{value!r:.80} is not a whole number from 0 up")
    return value


def text(value: object) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.80} is not a text")
    return value
