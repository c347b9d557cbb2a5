from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_ideogram.datasets.rows import Item, RowChecker, read_rows, version_of
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.storage.target import Target

PREFIX = Target("my-bucket", "day/")
#: Property tests draw the same examples on every machine and don't look at the clock.
SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def check(rows: Iterable[Any], *, template: str = "{id}", **options: Any) -> tuple[list[Item], RowChecker]:
    checker = RowChecker({"style_type": "DESIGN"}, PREFIX, template, **options)
    return list(checker.items((f"row {number}", row) for number, row in enumerate(rows))), checker


def problem(row: Any, **options: Any) -> str:
    items, checker = check([row], **options)
    assert (items, checker.bad_rows) == ([], 1)
    with pytest.raises(IdeogramInvalidInput, match="1 of 1 rows can't be used"):
        checker.raise_for_bad_rows(1)
    return checker.problems[0]


def read(path: Path, content: bytes) -> list[Any]:
    path.write_bytes(content)
    return list(read_rows(str(path), None))


def test_row_is_a_prompt_or_a_mapping_whose_gaps_are_filled_with_the_defaults() -> None:
    items, _ = check(["a cat", {"id": 7, "prompt": "a dog", "seed": "3", "style_type": "", "mine": 1}])
    assert [(item.row, item.id, item.key) for item in items[1:]] == [(1, "7", "day/7")]
    assert (items[1].request.seed, items[1].request.style_type) == (3, "DESIGN")
    assert len(items[0].id) == 16
    assert Item.from_json(json.loads(json.dumps(items[1].to_json()))) == items[1]


def test_id_from_the_inputs_is_the_same_wherever_the_row_is() -> None:
    (one, _), _ = check(["a cat", "a dog"])
    (_, other), _ = check(["a dog", {"prompt": "a cat"}])
    assert one.id == other.id


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "has no prompt"),
        ({"prompt": None}, "has no prompt"),
        ({"prompt": " "}, "must not be empty"),
        (["a"], "must be a prompt or a mapping, not list"),
        (None, "must be a prompt or a mapping, not NoneType"),
        ({"prompt": "x", "id": " "}, "must be printable, not blank"),
        ({"prompt": "x", "id": "a/b"}, "without '/'"),
        ({"prompt": "x", "id": "a\nb"}, "must be printable"),
        ({"prompt": "x", "id": "\ud800"}, "must be printable"),
        ({"prompt": "x", "id": ".."}, "holds '.' or '..'"),
        ({"prompt": "x", "id": "manifest.jsonl"}, "nor be the manifest's"),
        ({"prompt": "x", "id": "y" * 2000}, "bytes long"),
        ({"prompt": "x", "id": {"a": 1}}, "must be text or an integer"),
        ({"prompt": "x", "id": True}, "must be text or an integer"),
        ({"prompt": "x", "resolutoin": 1}, "Did you mean 'resolution'?"),
        ({"prompt": "x", "seed": 1.5}, "is not an integer"),
        ({"prompt": "x", "model_params": "{"}, "model_params: "),
        ({"prompt": "x" * 20_000}, "at most 10,000"),
    ],
)
def test_bad_row_is_told_with_its_reason(row: Any, said: str) -> None:
    assert said in problem(row)


def test_id_is_never_read_as_a_template() -> None:
    items, _ = check([{"prompt": "x", "id": "{row.__class__}"}])
    assert items[0].key == "day/{row.__class__}"


def test_key_that_ends_as_a_folder_is_refused() -> None:
    assert "must not end in '/'" in problem({"prompt": "x", "id": "a"}, template="{id}/")


def test_no_more_than_twenty_bad_rows_are_listed_and_all_are_counted() -> None:
    _, checker = check([""] * 50)
    with pytest.raises(IdeogramInvalidInput) as caught:
        checker.raise_for_bad_rows(50)
    assert "50 of 50 rows can't be used" in str(caught.value)
    assert "… and 30 more bad rows" in str(caught.value)
    assert len(checker.problems) == 20


def test_duplicate_ids_and_keys_are_refused() -> None:
    assert check([{"id": 1, "prompt": "a"}, {"id": "1", "prompt": "b"}])[1].bad_rows == 1
    assert check(["same", "same"])[1].bad_rows == 1
    assert check([{"id": 1, "prompt": "a"}, {"id": 1, "prompt": "a"}], dedupe=True)[1].bad_rows == 1
    assert check([{"id": "ab", "prompt": "x"}, {"id": "ac", "prompt": "x"}], template="{id:.1}")[1].bad_rows == 1


def test_identical_inputs_are_copies_if_that_is_asked_for() -> None:
    items, checker = check([{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "x"}, "y", "y"], dedupe=True)
    assert checker.bad_rows == 0
    assert [item.copy_of for item in items] == ["", "day/a", "", items[2].key]


def test_jsonl_is_read_with_its_line_numbers(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf"a"\r\n\r\n{"prompt": "\xc3\xa9"}\n' + b"[" * 100_000 + b'\n\xff\n"last"'
    rows = read(tmp_path / "rows.ndjson", content)
    assert [place for place, _ in rows] == ["line 1", "line 3", "line 4", "line 5", "line 6"]
    assert [value for _, value in rows if not isinstance(value, ValueError)] == ["a", {"prompt": "é"}, "last"]
    assert "is not UTF-8" in str(rows[3][1])


def test_csv_is_read_with_its_line_numbers(tmp_path: Path) -> None:
    content = b'id, prompt\n1,"two\nlines"\n\n2\n3,a,b\n4,\xff\n5,"a ""cat"""\n'
    rows = read(tmp_path / "rows.csv", content)
    assert [place for place, _ in rows] == ["line 3", "line 5", "line 6", "line 7", "line 8"]
    assert rows[0][1] == {"id": "1", "prompt": "two\nlines"}
    assert [str(value) for _, value in rows[1:4]] == [
        "has 1 values, and the header has 2 columns",
        "has 3 values, and the header has 2 columns",
        "is not UTF-8",
    ]
    assert rows[4][1]["prompt"] == 'a "cat"'


def test_parquet_is_read_row_by_row(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"prompt": f"p {number}", "seed": float(number) if number % 2 else None} for number in range(1200)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    items = list(RowChecker({}, PREFIX, "{row}").items(read_rows(str(tmp_path / "rows.parquet"), None)))
    assert len(items) == 1200
    assert (items[7].request.seed, items[8].request.seed) == (7, None)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.txt", b"", "does not end in .jsonl, .csv"),
        ("rows.parquet.gz", b"", "does not end in .jsonl, .csv"),
        ("rows.jsonl.gz", b"plain", "can't be read"),
        ("rows.jsonl.gz", gzip.compress(b'"a"\n' * 9, mtime=0)[:-12], "can't be read"),
        ("rows.jsonl.gz", gzip.compress(b'"a"\n', mtime=0)[:10] + b"\xff" * 40, "can't be read"),
        ("rows.jsonl", b'"' + b"x" * (1 << 20) + b'"', "line 1 is longer than 1,048,576 characters"),
        ("rows.csv", b'prompt\n"never closed\n' + b"x" * 200_000, "field larger than field limit"),
        ("rows.csv", b"promt\nx\n", "names no prompt, or a column twice"),
        ("rows.csv", b"prompt,prompt\nx,y\n", "names no prompt, or a column twice"),
        ("rows.parquet", b"PAR1 not", "the file is not Parquet"),
    ],
)
def test_file_that_can_not_be_read_is_an_error_of_the_input(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    with pytest.raises(IdeogramInvalidInput, match=None) as caught:
        read(tmp_path / name, content)
    assert said in str(caught.value)


def test_file_that_is_not_there() -> None:
    for look in (lambda: list(read_rows("/nowhere/rows.csv", None)), lambda: version_of("/nowhere/rows.csv", None)):
        with pytest.raises(IdeogramInvalidInput, match="on this worker"):
            look()


def test_version_of_a_file_changes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt\n")
    before = version_of(str(path), None)
    path.write_text("prompt\nmore\n")
    assert version_of(str(path), None) != before


def test_rows_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('"a"\n' * 100_000 + "not json")
    rows = read_rows(str(path), None)
    assert next(rows) == ("line 1", "a")
    rows.close()  # type: ignore[attr-defined]


@SETTINGS
@given(rows=st.lists(json_values, max_size=8))
def test_whatever_a_row_is_it_is_an_item_or_a_problem(rows: list[Any]) -> None:
    items, checker = check(rows)
    assert len(items) + checker.bad_rows == len(rows)
    assert len({item.key for item in items}) == len(items)


@SETTINGS
@given(rows=st.lists(st.fixed_dictionaries({"prompt": json_values, "id": json_values}), max_size=6))
def test_whatever_an_id_is_its_key_stays_below_the_prefix(rows: list[Any]) -> None:
    items, _ = check(rows)
    assert all(item.key.startswith("day/") and "/" not in item.key.removeprefix("day/") for item in items)


@SETTINGS
@given(rows=st.lists(json_values, max_size=6), zipped=st.booleans())
def test_what_was_written_is_what_is_read(rows: list[Any], zipped: bool, tmp_path: Path) -> None:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path = tmp_path / ("rows.jsonl.gz" if zipped else "rows.jsonl")
    assert [row for _, row in read(path, gzip.compress(content) if zipped else content)] == rows


@SETTINGS
@given(content=st.binary(max_size=200), name=st.sampled_from(["x.jsonl", "x.csv", "x.jsonl.gz", "x.csv.gz", "x.pq"]))
def test_whatever_a_file_holds_it_is_rows_or_an_error_of_the_input(content: bytes, name: str, tmp_path: Path) -> None:
    try:
        rows = read(tmp_path / name, content)
    except IdeogramInvalidInput:
        return
    items, checker = check(value for _, value in rows)
    assert len(items) + checker.bad_rows == len(rows)
