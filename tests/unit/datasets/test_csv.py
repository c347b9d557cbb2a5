from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ideogram.datasets.row_files import read_rows
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from tests.support.s3 import NO_S3


def read(path: Path, content: bytes | str, name: str = "rows.csv", **options: Any) -> list[tuple[str, Any]]:
    (path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_rows(str(path / name), NO_S3, **options))


@pytest.mark.parametrize(
    "content",
    [
        "id,prompt\n1,a cat\n",
        "id;prompt\n1;a cat\n",
        "id\tprompt\n1\ta cat\n",
        "sep=;\nid;prompt\n1;a cat\n",
        '"sep=\t"\r\nid\tprompt\r\n1\ta cat\r\n',
        "SEP=|\nid|prompt\n1|a cat\n",
        "\n\nid;prompt\n\n1;a cat",
        "\ufeffid;prompt\r\n1;a cat\r\n",
        "\ufeffsep=,\nid,prompt\n1,a cat\n",
        '"id";"prompt"\n"1";"a cat"\n',
        "id,prompt,,\n1,a cat,,\n,,,\n,,,\n",
        "id;prompt;\n1;a cat\n;;\n;;\n",
        "id,prompt\n1,a cat,,,\n",
        ",id,prompt\n0,1,a cat\n",
        "id,,prompt\n1,x,a cat\n",
    ],
)
def test_csv_of_spreadsheets_is_read(content: str, tmp_path: Path) -> None:
    assert [row for _, row in read(tmp_path, content)] == [{"id": "1", "prompt": "a cat"}]


def test_other_delimiters_stay_in_the_values(tmp_path: Path) -> None:
    ((_, row),) = read(tmp_path, 'prompt,"a;b;c"\n"a cat; a dog",x\n')
    assert row == {"prompt": "a cat; a dog", "a;b;c": "x"}
    ((_, row),) = read(tmp_path, "prompt\na cat; a dog\n")
    assert row == {"prompt": "a cat; a dog"}


def test_delimiter_is_that_of_the_needed_columns(tmp_path: Path) -> None:
    ((_, row),) = read(tmp_path, "product;a,b,c\nmug;x\n", needed_columns=("product",))
    assert row == {"product": "mug", "a,b,c": "x"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1", "has 1 values, and the header has 2 columns"),
        ("1,a cat,more", "has 3 values, and the header has 2 columns"),
        ("1,a cat,,more", "has 4 values, and the header has 2 columns"),
    ],
)
def test_row_of_another_length_is_a_problem_of_its_line(row: str, said: str, tmp_path: Path) -> None:
    ((place, problem),) = read(tmp_path, f"id,prompt,\n{row}\n")
    assert (place, str(problem)) == ("line 2", said)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_other_encoding_is_told(name: str, encoding: str, tmp_path: Path) -> None:
    with pytest.raises(IdeogramInvalidInput, match="the file is UTF-16 or UTF-32; save it as UTF-8"):
        read(tmp_path, 'prompt\n"a cat"\n'.encode(encoding), name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("sep=\nid,prompt\n", "names no delimiter of one character"),
        ("sep=;;\nid,prompt\n", "names no delimiter of one character"),
        ("sep=;\nid,prompt\n", "the header ['id,prompt'] has no column 'prompt'"),
        ("prompt,PROMPT\n", "has a column twice"),
        ("id;name\n", "the header ['id', 'name'] has no column 'prompt'"),
    ],
)
def test_bad_header_is_told(content: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(IdeogramInvalidInput) as caught:
        read(tmp_path, content)
    assert said in str(caught.value)


def test_file_without_rows_has_none(tmp_path: Path) -> None:
    assert read(tmp_path, "") == read(tmp_path, "\n\n") == read(tmp_path, "id,prompt\n,\n") == []
    (tmp_path / "rows.csv").write_text("prompt\na cat\n")
    assert list(read_rows(f"file://{tmp_path}/rows.csv", NO_S3)) == [("line 2", {"prompt": "a cat"})]
