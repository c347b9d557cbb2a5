from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.storage.target import Target
from airflow_provider_ideogram.ui.datasets import Dataset
from airflow_provider_ideogram.ui.records import Instance

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def _dataset(**xcoms: Any) -> Dataset:
    return Dataset.of(Instance("cats", "run", "generate", -1, "running", xcoms, {}))


@pytest.fixture
def parts(s3: S3Client, s3_bucket: str) -> Dataset:
    for part, lines in enumerate([b"a\nb\n", b"", b"c\nd\ne\n"]):
        s3.put_object(Bucket=s3_bucket, Key=f"work/part-{part:05}.jsonl", Body=lines)
    s3.put_object(Bucket=s3_bucket, Key="work/state.json", Body=b"{}")
    return _dataset(progress={"total": 9, "done": 5, "parts": f"s3://{s3_bucket}/work/part-"})


def test_nothing_is_known_before_the_first_progress() -> None:
    dataset = _dataset()
    assert (dataset.numbers, dataset.target, dataset.rows) == ({}, None, 0)


def test_running_dataset_has_its_parts() -> None:
    dataset = _dataset(progress={"total": 9, "done": 5, "seconds_left": None, "parts": "s3://bucket/work/part-"})
    assert dataset.is_running
    assert (dataset.rows, dataset.in_parts, dataset.target) == (5, True, Target("bucket", "work/part-"))
    assert dataset.numbers == {"total": 9, "done": 5}


def test_ended_dataset_has_its_manifest() -> None:
    result = {
        "manifest_uri": "s3://bucket/manifest.jsonl",
        "total": 9,
        "cost_usd": 0.4,
        "failed": -1,
        "blocked": "many",
    }
    dataset = _dataset(return_value=result, progress={"total": 9, "done": 5, "parts": "s3://bucket/work/part-"})
    assert (dataset.rows, dataset.in_parts, dataset.target) == (9, False, Target("bucket", "manifest.jsonl"))
    assert dataset.numbers == {"total": 9, "cost_usd": 0.4}


def test_failed_dataset_keeps_its_parts_and_runs_no_more() -> None:
    progress = {"total": 9, "done": 9, "parts": "s3://bucket/work/part-"}
    dataset = Dataset.of(Instance("cats", "run", "generate", -1, "failed", {"progress": progress}, {}))
    assert (dataset.rows, dataset.in_parts, dataset.is_running) == (9, True, False)


@pytest.mark.parametrize("uri", [None, 7, "http://example.com/manifest", "s3://"])
def test_what_is_no_place_in_s3_is_nowhere(uri: Any, s3: S3Client) -> None:
    dataset = _dataset(progress={"total": 9, "done": 5, "parts": uri})
    assert dataset.rows == 0
    assert dataset.page(s3, 0, 9) == []
    assert dataset.line(s3, "p0.0") is None


def test_pages_go_through_all_parts(parts: Dataset, s3: S3Client) -> None:
    assert parts.page(s3, 0, 3) == [("p0.0", b"a"), ("p0.2", b"b"), ("p2.0", b"c")]
    assert parts.page(s3, 3, 9) == [("p2.2", b"d"), ("p2.4", b"e")]
    assert parts.page(s3, 1, 1) == [("p0.2", b"b")]


def test_row_is_found_by_its_name(parts: Dataset, s3: S3Client) -> None:
    assert parts.line(s3, "p2.2") == b"d"


@pytest.mark.parametrize("row", ["0", "p9.0", "p0.1", "p-1.0", "../x", "", "p0.0/../../state.json", "p0.0\n"])
def test_other_names_are_of_no_row(row: str, parts: Dataset, s3: S3Client) -> None:
    assert parts.line(s3, row) is None


def test_names_of_the_running_dataset_are_none_of_the_finished(s3: S3Client, s3_bucket: str) -> None:
    s3.put_object(Bucket=s3_bucket, Key="manifest.jsonl", Body=b"a\nb\n")
    dataset = _dataset(return_value={"manifest_uri": f"s3://{s3_bucket}/manifest.jsonl", "total": 2})
    assert dataset.page(s3, 0, 9) == [("0", b"a"), ("2", b"b")]
    assert dataset.line(s3, "2") == b"b"
    assert dataset.line(s3, "p0.2") is None
