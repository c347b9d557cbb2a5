from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.storage.target import Target
from airflow_provider_ideogram.ui import seek
from airflow_provider_ideogram.ui.lines import read_lines
from airflow_provider_ideogram.ui.objects import Reader
from airflow_provider_ideogram.ui.seek import place_before
from airflow_provider_ideogram.ui.work import Work
from tests.unit.ui.conftest import reader_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ROWS = 12_000


def _line(row: int) -> bytes:
    size = 900 if row < 2000 else 30 if row < 9000 else 200
    return b'{"row": %d, "x": "%s"}\n' % (row, b"x" * (size + row % 7))


@pytest.fixture
def manifest(s3: S3Client, s3_bucket: str) -> Target:
    s3.put_object(Bucket=s3_bucket, Key="manifest", Body=b"".join(map(_line, range(ROWS))))
    return Target(s3_bucket, "manifest")


@pytest.mark.parametrize("row", [0, 499, 500, 1999, 2000, 2001, 5000, 8999, 9000, 11_998, ROWS - 1])
def test_row_is_found_with_few_short_reads(
    row: int, s3: S3Client, manifest: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seek, "_NEAR_BYTES", 80_000)
    work = Work(max_bytes=1_200_000)
    reader = reader_of(s3, work)
    place = place_before(reader, manifest, row, ROWS)
    skipped, [(_, line)] = read_lines(reader, manifest, row - place.row, 1, place.offset)
    assert (skipped, line + b"\n") == (row - place.row, _line(row))
    if row >= 500:
        head = s3.head_object(Bucket=manifest.bucket, Key=manifest.key)
        assert place.offset <= head["ContentLength"] - len(_line(row))


@pytest.mark.parametrize("row", [960, 1980])
def test_row_of_even_lines_is_found_with_one_probe(
    row: int, s3: S3Client, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket=s3_bucket, Key="even", Body=b"".join(map(_line, range(2000))))
    reader = reader_of(s3)
    probes = []

    def read_range(target: Target, start: int, size: int) -> bytes:
        probes.append(start)
        return Reader.read_range(reader, target, start, size)

    monkeypatch.setattr(reader, "read_range", read_range)
    place = place_before(reader, Target(s3_bucket, "even"), row, 2000)
    assert len(probes) == 1
    assert 0 < abs(row - place.row) < 60


@pytest.mark.parametrize("rows", [10, ROWS * 50])
def test_wrong_number_of_rows_does_no_harm(rows: int, s3: S3Client, manifest: Target) -> None:
    place = place_before(reader_of(s3), manifest, 7000, rows)
    assert read_lines(reader_of(s3), manifest, 7000 - place.row, 1, place.offset)[1][0][1] + b"\n" == _line(7000)


def test_lines_that_are_no_rows_are_counted_from_the_start(s3: S3Client, manifest: Target) -> None:
    s3.put_object(Bucket=manifest.bucket, Key=manifest.key, Body=b"other text\n" * 100_000)
    assert place_before(reader_of(s3), manifest, 7000, ROWS) == seek.Place(0, 0)
