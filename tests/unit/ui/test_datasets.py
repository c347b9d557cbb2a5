from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.datasets.workspace import Workspace
from airflow_provider_ideogram.storage.target import Target
from airflow_provider_ideogram.ui.datasets import Dataset
from airflow_provider_ideogram.ui.records import Instance
from tests.support.s3 import NO_S3
from tests.unit.ui.conftest import RUN, reader_of, workspace_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

TOLD = {"s3_prefix": "s3://bucket/cats"}
WORK = workspace_of("cats")
PARTS = f"s3://bucket/{WORK}part-"
MANIFEST = "s3://bucket/cats/manifest.jsonl"
PROGRESS = {"total": 9, "done": 5, "parts": PARTS}


def _dataset(rendered: dict[str, Any] | None = None, state: str = "running", **xcoms: Any) -> Dataset:
    return Dataset.of(Instance("cats", RUN, "generate", -1, state, xcoms, TOLD if rendered is None else rendered))


@pytest.fixture
def parts(s3: S3Client, s3_bucket: str) -> Dataset:
    for part, lines in enumerate([b"a\nb\n", b"", b"c\nd\ne\n"]):
        s3.put_object(Bucket=s3_bucket, Key=f"{WORK}part-{part:05}.jsonl", Body=lines)
    s3.put_object(Bucket=s3_bucket, Key=f"{WORK}state.json", Body=b"{}")
    told = {"s3_prefix": f"s3://{s3_bucket}/cats/"}
    return _dataset(told, progress=PROGRESS | {"parts": f"s3://{s3_bucket}/{WORK}part-"})


def test_nothing_is_known_before_the_first_progress() -> None:
    dataset = _dataset()
    assert (dataset.numbers, dataset.target, dataset.rows, dataset.problem) == ({}, None, 0, None)


def test_running_dataset_has_its_parts() -> None:
    dataset = _dataset(progress=PROGRESS | {"seconds_left": None})
    assert dataset.is_running
    assert (dataset.rows, dataset.in_parts, dataset.target) == (5, True, Target("bucket", f"{WORK}part-"))
    assert dataset.numbers == {"total": 9, "done": 5}


def test_ended_dataset_has_its_manifest() -> None:
    unreadable = {"failed": -1, "content_blocked": "many", "reused": math.inf, "expired": True}
    result = {"manifest_uri": MANIFEST, "total": 9, "cost_usd": 0.4} | unreadable
    dataset = _dataset(return_value=result, progress=PROGRESS)
    assert (dataset.rows, dataset.in_parts, dataset.target) == (9, False, Target("bucket", "cats/manifest.jsonl"))
    assert dataset.numbers == {"total": 9, "cost_usd": 0.4}
    assert dataset.problem is None


def test_failed_dataset_shows_its_own_manifest() -> None:
    dataset = _dataset(state="failed", progress=PROGRESS | {"manifest_uri": MANIFEST})
    assert (dataset.rows, dataset.in_parts, dataset.is_running) == (9, False, False)
    assert dataset.target == Target("bucket", "cats/manifest.jsonl")


def test_failed_dataset_without_a_manifest_shows_its_parts() -> None:
    dataset = _dataset(state="failed", progress=PROGRESS | {"done": 9})
    assert (dataset.rows, dataset.in_parts, dataset.is_running) == (9, True, False)


def test_manifest_of_an_unreadable_result_is_at_the_prefix() -> None:
    dataset = _dataset(state="success", return_value="s3://xcoms/1", progress=PROGRESS)
    assert (dataset.rows, dataset.in_parts, dataset.target) == (9, False, Target("bucket", "cats/manifest.jsonl"))
    assert dataset.problem is None


@pytest.mark.parametrize(
    "xcoms", [{"return_value": "s3://xcoms/1"}, {"progress": "s3://xcoms/2"}, {"return_value": "x", "progress": "y"}]
)
def test_unreadable_numbers_say_so(xcoms: dict[str, Any]) -> None:
    dataset = _dataset(state="success", **xcoms)
    assert (dataset.rows, dataset.target) == (0, None)
    assert "its number of rows is in a custom XCom backend" in (dataset.problem or "")


@pytest.mark.parametrize("key", ["return_value", "progress"])
@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/dogs/manifest.jsonl",
        "s3://other/cats/manifest.jsonl",
        "s3://bucket/cats/other.jsonl",
        "s3://bucket/cats//manifest.jsonl",
        f"{PARTS}000000.jsonl",
        7,
    ],
)
def test_manifest_is_read_from_the_operators_prefix_only(uri: Any, key: str) -> None:
    changed: dict[str, Any] = {key: PROGRESS | {"manifest_uri": uri}}
    dataset = _dataset(**changed)
    assert (dataset.target, dataset.rows) == (None, 0)
    assert "names objects that are not the task's own" in (dataset.problem or "")


@pytest.mark.parametrize("told", [{}, {"s3_prefix": None}, {"s3_prefix": "***"}])
def test_manifest_of_an_unknown_prefix_is_not_read(told: dict[str, Any]) -> None:
    dataset = _dataset(told, return_value={"manifest_uri": MANIFEST, "total": 9})
    assert (dataset.target, dataset.rows) == (None, 0)
    assert "for the last runs only" in (dataset.problem or "")


def test_parts_of_an_unknown_prefix_are_not_read() -> None:
    dataset = _dataset({}, progress=PROGRESS)
    assert dataset.target is None
    assert "for the last runs only" in (dataset.problem or "")


@pytest.mark.parametrize("told", [{}, TOLD])
@pytest.mark.parametrize(
    "uri",
    [
        f"s3://bucket/{workspace_of('dogs')}part-",
        f"s3://bucket/{workspace_of('cats', map_index=0)}part-",
        f"s3://bucket/{WORK}",
        f"s3://bucket/{WORK}../part-",
        f"{PARTS}000000.jsonl",
        "s3://bucket/cats/",
    ],
)
def test_parts_are_read_in_the_instances_own_workspace_alone(uri: str, told: dict[str, Any]) -> None:
    assert _dataset(told, progress=PROGRESS | {"parts": uri}).target is None


def test_parts_are_read_below_the_images_prefix_only() -> None:
    assert _dataset(progress=PROGRESS | {"parts": PARTS.replace("bucket", "other")}).target is None
    assert _dataset({"s3_prefix": "s3://bucket/dogs"}, progress=PROGRESS).target is None


def test_workspace_is_the_one_that_the_operator_uses() -> None:
    workspace = Workspace.of(NO_S3, Target("bucket", "cats/"), "_ideogram/", f"cats/{RUN}/generate/-1")
    assert f"{workspace.uri}part-" == PARTS


@pytest.mark.parametrize("uri", [None, 7, "http://example.com/manifest", "s3://"])
def test_what_is_no_place_in_s3_is_nowhere(uri: Any, s3: S3Client) -> None:
    dataset = _dataset(progress=PROGRESS | {"parts": uri})
    assert dataset.rows == 0
    assert dataset.page(reader_of(s3), 0, 9) == []
    assert dataset.line(reader_of(s3), "p0.0") is None


def test_pages_go_through_all_parts(parts: Dataset, s3: S3Client) -> None:
    assert parts.page(reader_of(s3), 0, 3) == [("p0.0", b"a"), ("p0.2", b"b"), ("p2.0", b"c")]
    assert parts.page(reader_of(s3), 3, 9) == [("p2.2", b"d"), ("p2.4", b"e")]
    assert parts.page(reader_of(s3), 1, 1) == [("p0.2", b"b")]


def test_row_is_found_by_its_name(parts: Dataset, s3: S3Client) -> None:
    assert parts.line(reader_of(s3), "p2.2") == b"d"


@pytest.mark.parametrize("row", ["0", "p9.0", "p0.1", "p-1.0", "../x", "", "p0.0/../../state.json", "p0.0\n"])
def test_other_names_are_of_no_row(row: str, parts: Dataset, s3: S3Client) -> None:
    assert parts.line(reader_of(s3), row) is None


def test_names_of_the_running_dataset_are_none_of_the_finished(s3: S3Client, s3_bucket: str) -> None:
    s3.put_object(Bucket=s3_bucket, Key="cats/manifest.jsonl", Body=b"a\nb\n")
    told = {"s3_prefix": f"s3://{s3_bucket}/cats/"}
    dataset = _dataset(told, return_value={"manifest_uri": f"s3://{s3_bucket}/cats/manifest.jsonl", "total": 2})
    assert dataset.page(reader_of(s3), 0, 9) == [("0", b"a"), ("2", b"b")]
    assert dataset.line(reader_of(s3), "2") == b"b"
    assert dataset.line(reader_of(s3), "p0.2") is None
