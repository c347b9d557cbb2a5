from __future__ import annotations

import subprocess
import sys
from collections import deque
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy
import pandas
import polars
import pyarrow
import pytest

from airflow_provider_ideogram.datasets.passed_rows import check_passed_rows, read_passed_rows
from airflow_provider_ideogram.datasets.rows import RowChecker
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.storage.target import Target

COLUMNS: dict[str, list[Any]] = {"prompt": ["a cat", "a dog"], "seed": [7, None], "mine": [None, 2.5]}
MAP = pyarrow.map_(pyarrow.string(), pyarrow.int64())


def requests(prompts: Any) -> list[tuple[str, int | None]]:
    checker = RowChecker({}, Target("b", "day/"), "{row}")
    items = list(checker.items(("row", row) for row in read_passed_rows(prompts)))
    assert checker.problems == []
    return [(item.request.prompt, item.request.seed) for item in items]


@pytest.mark.parametrize(
    "prompts",
    [
        [{"prompt": "a cat", "seed": 7}, "a dog"],
        ({"prompt": "a cat", "seed": 7}, {"prompt": "a dog", "seed": None}),
        deque([{"prompt": "a cat", "seed": 7.0}, {"prompt": "a dog", "seed": float("nan")}]),
        [{"Prompt": "a cat", "SEED ": "7.0"}, {"prompt": "a dog", "seed": Decimal("NaN")}],
        [{"prompt": "a cat", "seed": numpy.int64(7)}, {"prompt": "a dog", "seed": numpy.float32("nan")}],
        [{"prompt": "a cat", "seed": Decimal(7)}, {"prompt": "a dog", "seed": pandas.NA, "id": pandas.NaT}],
        pandas.DataFrame(COLUMNS),
        pandas.DataFrame(COLUMNS).convert_dtypes(),
        pandas.DataFrame(COLUMNS).astype(object),
        polars.DataFrame(COLUMNS),
        pyarrow.table(COLUMNS),
        pyarrow.RecordBatch.from_pydict(COLUMNS),
        numpy.array([("a cat", 7), ("a dog", None)], dtype=[("prompt", "U9"), ("seed", object)]),
    ],
)
def test_rows_of_every_form_are_read(prompts: Any) -> None:
    check_passed_rows(prompts)
    assert requests(prompts) == requests(prompts) == [("a cat", 7), ("a dog", None)]


@pytest.mark.parametrize(
    "prompts", [numpy.array(["a cat", "a dog"]), pandas.Series(["a cat", "a dog"]), polars.Series(["a cat", "a dog"])]
)
def test_columns_of_prompts_are_read(prompts: Any) -> None:
    assert requests(prompts) == [("a cat", None), ("a dog", None)]


def test_long_tables_are_read_whole() -> None:
    columns = {"prompt": [f"p {number}" for number in range(1200)]}
    expected = [(prompt, None) for prompt in columns["prompt"]]
    for table in (pandas.DataFrame(columns), polars.DataFrame(columns), pyarrow.table(columns)):
        assert requests(table) == expected


def test_structures_have_no_added_nulls_and_maps_are_mappings() -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "x", "model_params": {"a": 1, "b": {"c": 2}, "l": [{"d": 1}]}},
        {"prompt": "y", "model_params": {"b": {"e": 3}, "l": [{"f": 1}, {"d": 2}]}},
        {"prompt": "z", "model_params": None},
    ]
    tables: list[Any] = [pyarrow.Table.from_pylist(rows), polars.DataFrame(rows)]
    for table in tables:
        assert [row["model_params"] for row in read_passed_rows(table)] == [row["model_params"] for row in rows]
    maps = pyarrow.table({"model_params": pyarrow.array([{"a": 1, "b": None}, None], type=MAP)})
    assert [row["model_params"] for row in read_passed_rows(maps)] == [{"a": 1, "b": None}, None]


@pytest.mark.parametrize("name", ["7", 7, 7.0, Decimal("7.00"), numpy.int64(7), numpy.float64(7)])
def test_whole_number_is_an_id(name: Any) -> None:
    checker = RowChecker({}, Target("b", "day/"), "{id}")
    assert [item.id for item in checker.items([("row", {"prompt": "x", "id": name})])] == ["7"]


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (pandas.DataFrame([["a", "b"]], columns=["prompt", "prompt"]), "prompts: a column comes twice"),
        (pyarrow.table([["a"], ["b"]], names=["prompt", "prompt"]), "prompts: a column comes twice"),
        (numpy.array([["a", "b"]]), "prompts: an array of rows has one dimension, not 2"),
        (polars.LazyFrame(COLUMNS), "numpy, not LazyFrame"),
        (b"a cat", "numpy, not bytes"),
        ({"a cat": 1}.keys(), "numpy, not dict_keys"),
        (iter(["a cat"]), "prompts: is a list_iterator, which can be read once only"),
        (
            pyarrow.table({"at": pyarrow.array([2**62], type=pyarrow.timestamp("s"))}),
            "prompts: ",
        ),
    ],
)
def test_what_has_no_rows_is_an_input_error(prompts: Any, said: str) -> None:
    with pytest.raises(IdeogramInvalidInput) as caught:
        list(read_passed_rows(prompts))
    assert said in str(caught.value)


def test_dates_of_tables_are_dates() -> None:
    day = datetime(2026, 11, 26)
    for table in (pandas.DataFrame({"day": [day]}), polars.DataFrame({"day": [day]}), pyarrow.table({"day": [day]})):
        ((row),) = read_passed_rows(table)
        assert f"{row['day']:%d %B}" == "26 November"


def test_lists_are_read_without_a_table_library() -> None:
    program = (
        "import sys; from airflow_provider_ideogram.datasets.passed_rows import read_passed_rows;"
        "from airflow_provider_ideogram.datasets.row_files import read_rows;"
        "list(read_passed_rows(['a cat']));"
        "print(*{'pandas', 'polars', 'pyarrow', 'numpy'} & sys.modules.keys())"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout.split() == []
