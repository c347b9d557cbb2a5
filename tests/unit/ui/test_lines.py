from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.jobs.record import MAX_BYTES as MAX_RECORD_BYTES
from airflow_provider_ideogram.storage.target import Target
from airflow_provider_ideogram.ui.lines import MAX_LINE_BYTES, Lines, iter_lines, read_line, read_lines
from tests.unit.ui.conftest import reader_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LINES = [b"one", b"", b"three is longer", b"4", b"the last has no end"]
CONTENT = b"\n".join(LINES)
OFFSETS = [0, *itertools.accumulate(len(line) + 1 for line in LINES[:-1])]


def _chunks(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 16, 1000])
@pytest.mark.parametrize("skip", range(8))
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_lines_are_those_of_a_split(size: int, skip: int, end: bytes) -> None:
    lines = Lines(_chunks(CONTENT + end, size))
    assert lines.skip(skip) == min(skip, len(LINES))
    rest = list(zip(OFFSETS, LINES, strict=True))[skip:]
    assert list(iter(lines.next, None)) == rest


def test_what_is_skipped_is_not_kept() -> None:
    lines = Lines(b"x" * 10_000 for _ in range(1000))
    assert lines.skip(1) == 1
    assert lines.next() is None

    kept: list[int] = []

    def chunks() -> Iterator[bytes]:
        for _ in range(1000):
            kept.append(len(lines._buffer))
            yield b"x" * 10_000 + b"\n"

    lines = Lines(chunks())
    lines.skip(999)
    assert max(kept) < 20_010


def test_endless_line_is_cut() -> None:
    lines = Lines(itertools.repeat(b"x" * 65_536))
    found = lines.next()
    assert found is not None
    assert len(found[1]) == MAX_LINE_BYTES


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize("size", [MAX_LINE_BYTES + 1, MAX_LINE_BYTES + 65_537, MAX_LINE_BYTES * 2])
def test_line_above_the_limit_is_one_line(size: int, end: bytes) -> None:
    content = b"first\n" + b"x" * size + b"\nnext\n" + b"y" * size + end
    lines = Lines(_chunks(content, 65_536))
    found = list(iter(lines.next, None))
    assert [(offset, line[:9]) for offset, line in found] == [
        (0, b"first"),
        (6, b"x" * 9),
        (7 + size, b"next"),
        (12 + size, b"y" * 9),
    ]
    lines = Lines(_chunks(content, 65_536))
    assert (lines.next(), lines.next()) == (found[0], found[1])
    assert lines.skip(1) == 1
    assert lines.next() == found[3]


@pytest.fixture
def target(s3: S3Client, s3_bucket: str) -> Target:
    s3.put_object(Bucket=s3_bucket, Key="lines", Body=CONTENT)
    return Target(s3_bucket, "lines")


def test_read_lines(s3: S3Client, target: Target) -> None:
    assert read_lines(reader_of(s3), target, 1, 2) == (1, [(4, b""), (5, LINES[2])])
    assert read_lines(reader_of(s3), target, 9, 2) == (5, [])


def test_lines_are_read_from_an_offset_on(s3: S3Client, target: Target) -> None:
    assert read_lines(reader_of(s3), target, 1, 9, OFFSETS[2]) == (1, list(zip(OFFSETS, LINES, strict=True))[3:])


def test_empty_lines_are_left_out(s3: S3Client, target: Target) -> None:
    assert list(iter_lines(reader_of(s3), target)) == [found for found in zip(OFFSETS, LINES, strict=True) if found[1]]


@pytest.mark.parametrize("number", [0, 2, 3, 4])
def test_read_line_where_it_begins(s3: S3Client, target: Target, number: int) -> None:
    assert read_line(reader_of(s3), target, OFFSETS[number]) == LINES[number]


@pytest.mark.parametrize("offset", [1, 3, 4, 6, len(CONTENT), 10**12])
def test_no_line_begins_elsewhere(s3: S3Client, target: Target, offset: int) -> None:
    assert read_line(reader_of(s3), target, offset) is None


@pytest.mark.parametrize("size", [50_000, 300_000, MAX_RECORD_BYTES + 100_000])
def test_long_line_is_read_whole_and_an_endless_one_not_at_all(s3: S3Client, s3_bucket: str, size: int) -> None:
    long = b"y" * size
    s3.put_object(Bucket=s3_bucket, Key="long", Body=b"first\n" + long + b"\n" + b"z" * (MAX_LINE_BYTES + 1))
    assert read_line(reader_of(s3), Target(s3_bucket, "long"), 6) == long
    assert read_line(reader_of(s3), Target(s3_bucket, "long"), 6 + len(long) + 1) is None
    assert [len(line) for _, line in read_lines(reader_of(s3), Target(s3_bucket, "long"), 0, 9)[1]] == [
        len(b"first"),
        size,
        MAX_LINE_BYTES,
    ]


def test_missing_object_is_an_error(s3: S3Client, s3_bucket: str) -> None:
    with pytest.raises(IdeogramStorageError, match="is missing"):
        read_line(reader_of(s3), Target(s3_bucket, "nothing"), 0)
