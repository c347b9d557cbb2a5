"""
Rows of Arrow tables, whose columns have one type for all rows.

Invariant: a row has what was written into it: a structure lacks the keys of other rows, and a map is a mapping.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

#: Rows that are converted at once.
BATCH = 500


def arrow_rows(batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """
    Yield the rows of record batches as plain Python.

    :raises ValueError: If two columns have the same name, or Python can't represent a value.
    """
    from pyarrow import types

    for batch in batches:
        names = batch.schema.names
        if len(set(names)) < len(names):
            raise ValueError("a column comes twice")
        nested = {field.name: field.type for field in batch.schema if types.is_nested(field.type)}
        for row in batch.to_pylist():
            for name, kind in nested.items():
                row[name] = _plain(row[name], kind)
            yield row


def without_nulls(value: Any) -> Any:
    """Return a value without the nulls in its structures: a table of one type for all rows adds them."""
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any, kind: Any) -> Any:
    from pyarrow import types

    if value is None:
        return None
    if types.is_map(kind):
        return {key: _plain(item, kind.item_type) for key, item in value}
    if types.is_struct(kind):
        return {field.name: _plain(value[field.name], field.type) for field in kind if value[field.name] is not None}
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [_plain(item, kind.value_type) for item in value]
    return value
