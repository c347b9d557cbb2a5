from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_ideogram.datasets.row_files import read_rows, version_of
from airflow_provider_ideogram.datasets.rows import Item, RowChecker
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target
from tests.support import hostile
from tests.support.s3 import NO_S3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX = Target("my-bucket", "day/")
#: The files of all examples may have the same name.
ONE_FOLDER = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
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
    return list(read_rows(str(path), NO_S3))


def test_row_is_a_prompt_or_a_mapping_with_defaults() -> None:
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
        ({"prompt": "x", "id": "a\0b"}, "must be printable"),
        ({"prompt": "x", "id": "a\u200bb"}, "must be printable"),
        ({"prompt": "x", "id": "a\u202eb"}, "must be printable"),
        ({"prompt": "x", "id": "a\ufeff"}, "must be printable"),
        ({"prompt": "x", "id": "../a"}, "without '/'"),
        ({"prompt": "x", "id": "..\\..\\a"}, "holds '.' or '..'"),
        ({"prompt": "x", "id": 1.5}, "must be text or an integer"),
        ({"prompt": float("nan")}, "has no prompt"),
        ({"prompt": "x", "Prompt ": "y"}, "has two columns 'prompt'"),
        ({"prompt": "x", "Resolutoin": 1}, "column 'Resolutoin' is not a parameter. Did you mean 'resolution'?"),
        ({"prompt": "x", "id": 10**5000}, "id an integer of thousands of digits must be text"),
        ({"prompt": "x", "id": ".."}, "holds '.' or '..'"),
        ({"prompt": "x", "id": "manifest.jsonl"}, "must not be the manifest's"),
        ({"prompt": "x", "id": "Manifest.JSONL"}, "must not be the manifest's"),
        ({"prompt": "x", "id": "y" * 2000}, "bytes long"),
        ({"prompt": "x", "id": {"a": 1}}, "must be text or an integer"),
        ({"prompt": "x", "id": True}, "must be text or an integer"),
        ({"prompt": "x", "resolutoin": 1}, "Did you mean 'resolution'?"),
        ({"prompt": "x", "seed": 1.5}, "is not an integer"),
        ({"prompt": "x", "seed": 1e999}, "inf is not an integer"),
        ({"prompt": "x", "seed": 1e300}, "is not within"),
        ({"prompt": "x", "model_params": {"a": float("inf")}}, "cannot be sent as JSON"),
        ({"prompt": "x", "model_params": '{"a": 1e999}'}, "cannot be sent as JSON"),
        ({"prompt": "x\0"}, "holds a NUL character"),
        ({"prompt": "x", "model_params": "{"}, "model_params: "),
        ({"prompt": "x" * 20_000}, "at most 10,000"),
    ],
)
def test_bad_row_is_told_with_its_reason(row: Any, said: str) -> None:
    assert said in problem(row)


def test_id_is_never_read_as_a_template() -> None:
    items, _ = check([{"prompt": "x", "id": "{row.__class__}"}])
    assert items[0].key == "day/{row.__class__}"


@pytest.mark.parametrize("template", ["{{ ds }}", "{% raw %}", "{{ var.value.secret }}"])
def test_row_is_never_read_as_a_template(template: str) -> None:
    items, _ = check([{"prompt": template, "id": template.replace("/", "")}])
    assert (items[0].request.prompt, items[0].key) == (template, f"day/{template}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("Cat", "cat"),
        ("\u00c9", "e\u0301"),
        ("STRASSE", "stra\u00dfe"),
        ("\u212b", "\u00e5"),
        ("\ufb01", "FI"),
    ],
)
def test_ids_with_the_same_key_on_a_disk_are_an_error(one: str, other: str) -> None:
    items, checker = check([{"id": one, "prompt": "a"}, {"id": other, "prompt": "b"}])
    assert [item.id for item in items] == [one]
    assert f"row 1: id {other!r} and id {one!r} have the same key" in checker.problems[0]
    assert check([{"id": one, "prompt": "a"}, {"id": other, "prompt": "b"}], template="{row}-{id}")[1].bad_rows == 0


@pytest.mark.parametrize(
    ("one", "other"), [("\u2460", "1"), ("m\u00b2", "m2"), ("\uff21", "A"), ("\u0430", "a"), ("a.", "a")]
)
def test_ids_that_only_look_alike_are_two(one: str, other: str) -> None:
    assert check([{"id": one, "prompt": "a"}, {"id": other, "prompt": "b"}])[1].bad_rows == 0


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "x", "id": "\n" * 1_000_000},
        {"prompt": "x", "style_type": "\x1b[31m" * 100_000},
        {"prompt": "x", "resolution": "x" * 1_000_000},
        {"prompt": "x", "x" * 1_000_000 + "\n": {"a": 1}, "id": True},
        {"prompt": "x", "resolutio\n": 1},
    ],
)
def test_problem_is_told_in_a_short_line_whatever_the_row(row: Any) -> None:
    said = problem(row)
    assert len(said) <= 520
    assert said.isprintable()


def test_other_columns_are_remembered_up_to_a_number() -> None:
    _, checker = check({"prompt": f"a {number}", f"mine {number}": 1} for number in range(100))
    assert checker.bad_rows == 0
    assert len(checker.unknown_columns) == 50
    assert (
        "Did you mean 'resolution'?"
        in check([*({"prompt": "x", f"m{n}": 1, "id": n} for n in range(60)), {"resolutoin": 1}])[1].problems[0]
    )


def test_key_that_ends_as_a_folder_is_refused() -> None:
    assert "must not end in '/'" in problem({"prompt": "x", "id": "a"}, template="{id}/")


def test_twenty_bad_rows_are_listed_and_all_are_counted() -> None:
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
    items = list(RowChecker({}, PREFIX, "{row}").items(read_rows(str(tmp_path / "rows.parquet"), NO_S3)))
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
        ("rows.jsonl", b'"' + b"x" * (1 << 20) + b'"', "the row at line 1 is longer than 1,048,576 characters"),
        ("rows.csv", b'prompt\n"never closed\n' + b"x" * 200_000, "field larger than field limit"),
        ("rows.csv", b"prompt\n" + b"x" * (1 << 20), "the row at line 2 is longer than 1,048,576 characters"),
        ("rows.csv", b"prompt\n" + b'"a\n",' * (1 << 18), "is longer than 1,048,576 characters"),
        ("rows.csv", b"x" * 100_000 + b"\n", "has no column 'prompt'"),
        ("rows.csv", b"promt\nx\n", "the header ['promt'] has no column 'prompt'"),
        ("rows.csv", b"prompt,Prompt\nx,y\n", "has a column twice"),
        ("rows.parquet", b"PAR1 not", "the file is not Parquet"),
    ],
)
def test_file_that_can_not_be_read_is_an_error_of_the_input(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    with pytest.raises(IdeogramInvalidInput, match=None) as caught:
        read(tmp_path / name, content)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.jsonl.gz"])
def test_file_that_unfolds_to_one_endless_line_is_not_unfolded(name: str, tmp_path: Path) -> None:
    content = gzip.compress(b"prompt\n" * 100 + b"x" * (256 << 20), 1)
    path = tmp_path / name
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(IdeogramInvalidInput, match="the row at line 101 is longer"):
            list(read_rows(str(path), NO_S3))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def _parquet(columns: dict[str, Any]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def _not_utf8() -> Any:
    import pyarrow

    raw = pyarrow.array([b"\xff\xfe"], pyarrow.binary())
    return pyarrow.Array.from_buffers(pyarrow.string(), 1, raw.buffers())


def _beyond_any_date() -> Any:
    import pyarrow

    return pyarrow.array([1 << 62], pyarrow.timestamp("us"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: _parquet({"prompt": ["a cat"] * 50}).replace(b"a cat", b"\xff" * 5, 1)[:-30],
        lambda: _parquet({"prompt": ["a cat"] * 50})[:20] + b"\xff" * 8 + _parquet({"prompt": ["a cat"] * 50})[28:],
        lambda: _parquet({"prompt": _not_utf8()}),
        lambda: _parquet({"prompt": ["x"], "when": _beyond_any_date()}),
    ],
    ids=["end", "page", "not UTF-8", "date"],
)
def test_parquet_that_can_not_be_read_is_an_error_of_the_input(make: Callable[[], bytes], tmp_path: Path) -> None:
    with pytest.raises(IdeogramInvalidInput, match="is not Parquet, or has values that can't be read"):
        read(tmp_path / "rows.parquet", make())


def test_nested_types_of_parquet_are_problems_of_their_rows(tmp_path: Path) -> None:
    content = _parquet({"prompt": [{"a": ["x"]}, {"a": []}], "id": [[1], [2]], "mine": [b"\xff", b""]})
    (tmp_path / "rows.parquet").write_bytes(content)
    checker = RowChecker({}, PREFIX, "{row}")
    assert list(checker.items(read_rows(str(tmp_path / "rows.parquet"), NO_S3))) == []
    assert ["must be text, not dict" in said for said in checker.problems] == [True, True]


def test_file_that_is_not_there() -> None:
    for look in (lambda: list(read_rows("/nowhere/rows.csv", NO_S3)), lambda: version_of("/nowhere/rows.csv", NO_S3)):
        with pytest.raises(IdeogramInvalidInput, match="on this worker"):
            look()


def test_missing_object_is_invalid_input(s3: S3Client, s3_bucket: str) -> None:
    path, objects = f"s3://{s3_bucket}/rows.csv", ObjectStore(s3)
    for look in (lambda: list(read_rows(path, objects)), lambda: version_of(path, objects)):
        with pytest.raises(IdeogramInvalidInput, match=r"rows\.csv' does not exist"):
            look()


def test_version_of_a_file_changes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt\n")
    before = version_of(str(path), NO_S3)
    path.write_text("prompt\nmore\n")
    assert version_of(str(path), NO_S3) != before


def test_rows_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('"a"\n' * 100_000 + "not json")
    rows = read_rows(str(path), NO_S3)
    assert next(rows) == ("line 1", "a")
    rows.close()  # type: ignore[attr-defined]


@given(rows=st.lists(json_values, max_size=8))
def test_whatever_a_row_is_it_is_an_item_or_a_problem(rows: list[Any]) -> None:
    items, checker = check(rows)
    assert len(items) + checker.bad_rows == len(rows)
    assert len({item.key for item in items}) == len(items)


@pytest.mark.slow
@given(rows=st.lists(st.fixed_dictionaries({"prompt": json_values, "id": json_values}), max_size=6))
def test_whatever_an_id_is_its_key_stays_below_the_prefix(rows: list[Any]) -> None:
    items, _ = check(rows)
    assert all(item.key.startswith("day/") and "/" not in item.key.removeprefix("day/") for item in items)


@ONE_FOLDER
@given(rows=st.lists(json_values, max_size=6), zipped=st.booleans())
def test_what_was_written_is_what_is_read(rows: list[Any], zipped: bool, tmp_path: Path) -> None:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path = tmp_path / ("rows.jsonl.gz" if zipped else "rows.jsonl")
    assert [row for _, row in read(path, gzip.compress(content) if zipped else content)] == rows


@given(**hostile.FILES)
def test_any_file_yields_rows_or_an_input_error(file: tuple[str, bytes]) -> None:
    hostile.check_rows(file)
