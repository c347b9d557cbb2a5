"""
The columns of a row by the names that the operator knows.

Invariant: a column's name counts regardless of case and of spaces around it, and a value that pandas or a database
writes for a missing one is empty. A column that looks like a misspelt parameter is an error.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_ideogram.api.parameters import CHECKS
from airflow_provider_ideogram.api.values import is_missing_number

ID = "id"
PROMPT = "prompt"
#: Names of unknown columns that are kept for the log.
_MAX_UNKNOWN = 50
#: The similarity from which a column's name counts as a misspelt parameter. Others are the user's own columns.
_MISSPELT = 0.8


def column_name(name: object) -> str:
    """Return the form of a column's name in which names are compared."""
    return str(name).strip().casefold()


class Columns:
    """
    The columns that rows may have.

    :param others: Names of columns that are neither the id nor a parameter, as :func:`column_name` returns them.
    """

    def __init__(self, others: Sequence[str] = ()) -> None:
        self._known = {*CHECKS, ID, *others}
        self.unknown: set[str] = set()

    def read(self, row: Mapping[Any, Any]) -> dict[str, Any]:
        """
        Return the values of the known columns by name, None where they are empty.

        :raises ValueError: If two columns have the same name, or one looks like a misspelt parameter.
        """
        values: dict[str, Any] = {}
        for own_name, value in row.items():
            name = column_name(own_name)
            if name not in self._known:
                self._add_unknown(str(own_name), name, value)
            elif name in values:
                raise ValueError(f"has two columns {name!r}: case and spaces around a name do not count")
            else:
                values[name] = None if _is_empty(value) else value
        return values

    def _add_unknown(self, own_name: str, name: str, value: Any) -> None:
        if own_name in self.unknown or _is_empty(value):
            return
        if meant := _misspelt_parameter(name):
            raise ValueError(f"column {own_name!r} is not a parameter. Did you mean {meant!r}?")
        if len(self.unknown) < _MAX_UNKNOWN:
            self.unknown.add(own_name)


def _is_empty(value: Any) -> bool:
    if value is None or isinstance(value, str):
        return not value
    return is_missing_number(value) or type(value).__name__ in ("NAType", "NaTType")  # of pandas


@functools.lru_cache(maxsize=1000)
def _misspelt_parameter(name: str) -> str | None:
    """Return the parameter that a column's name resembles, None for one of the user's own columns."""
    return next(iter(difflib.get_close_matches(name, CHECKS, n=1, cutoff=_MISSPELT)), None)
