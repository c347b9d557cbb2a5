"""
The rows that are passed to the operator: a sequence, a table or an array.

Invariant: they can be read several times, and are the same each time. No table library is imported: a table that is
passed comes from a library that is loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_ideogram.datasets.arrow_rows import BATCH, arrow_rows, without_nulls
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput


def check_passed_rows(prompts: Any) -> None:
    """Raise ValueError if a value is not one whose rows can be read."""
    if isinstance(prompts, Iterator):
        raise ValueError(
            f"is a {type(prompts).__name__}, which can be read once only, and each attempt reads the rows again; "
            "pass a list"
        )
    if _reader_of(prompts) is None:
        advice = "; pass a file as prompts_path" if isinstance(prompts, str | os.PathLike) else ""
        raise ValueError(
            "must be a list of rows, or a table of pandas, polars, pyarrow or numpy, "
            f"not {type(prompts).__name__}{advice}"
        )


def read_passed_rows(prompts: Any) -> Iterator[Any]:
    """
    Yield the rows.

    :raises IdeogramInvalidInput: If they can't be read.
    """
    try:
        check_passed_rows(prompts)
        read = _reader_of(prompts) or iter
        yield from read(prompts)
    except (ValueError, TypeError, OverflowError) as problem:
        raise IdeogramInvalidInput.of([f"prompts: {problem}"]) from problem


def _reader_of(prompts: Any) -> Callable[[Any], Iterator[Any]] | None:
    if isinstance(prompts, Sequence):
        return None if isinstance(prompts, str | bytes | bytearray | memoryview) else iter
    for (module, name), read in _TABLES.items():
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(prompts, kind):
            return read
    return None


def _pandas(frame: Any) -> Iterator[Mapping[Any, Any]]:
    if not frame.columns.is_unique:
        raise ValueError("a column comes twice")
    for start in range(0, len(frame), BATCH):
        yield from frame.iloc[start : start + BATCH].to_dict("records")


def _polars(frame: Any) -> Iterator[Mapping[str, Any]]:
    for row in frame.iter_rows(named=True):
        yield {name: without_nulls(value) for name, value in row.items()}


def _arrow(table: Any) -> Iterator[Mapping[str, Any]]:
    return arrow_rows(table.to_batches(max_chunksize=BATCH))


def _numpy(array: Any) -> Iterator[Any]:
    if array.ndim != 1:
        raise ValueError(f"an array of rows has one dimension, not {array.ndim}")
    for row in array.tolist():
        yield row if array.dtype.names is None else dict(zip(array.dtype.names, row, strict=True))


#: The readers of tables, and of columns of prompts.
_TABLES: Mapping[tuple[str, str], Callable[[Any], Iterator[Any]]] = {
    ("pandas", "DataFrame"): _pandas,
    ("pandas", "Series"): lambda series: iter(series.tolist()),
    ("polars", "DataFrame"): _polars,
    ("polars", "Series"): lambda series: iter(series.to_list()),
    ("pyarrow", "Table"): _arrow,
    ("pyarrow", "RecordBatch"): lambda batch: arrow_rows([batch]),
    ("numpy", "ndarray"): _numpy,
}
