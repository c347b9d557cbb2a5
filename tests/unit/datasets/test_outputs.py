from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow
import pytest
from pyarrow.parquet import ParquetFile

from airflow_provider_ideogram.datasets import outputs
from airflow_provider_ideogram.datasets.manifest import LINE_FIELDS, failed_line, stored_line
from airflow_provider_ideogram.datasets.outputs import check_outputs, missing_packages, write_outputs
from airflow_provider_ideogram.datasets.prefix_use import PrefixUse
from airflow_provider_ideogram.datasets.row_files import read_rows
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramTargetBusy
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target
from tests.unit.datasets.examples import make_item, make_record

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CAT, DOG, FISH = make_item("cat"), make_item("dog"), make_item("fish")
TIME = "2026-11-23T00:00:00.250+00:00"
LINES = [
    stored_line(CAT, make_record(CAT, 0.05, submitted_at=TIME)) | {"model_params": {"palette": ["warm"]}},
    failed_line(DOG, IdeogramInvalidInput("no dog"), None),
    stored_line(FISH, make_record(FISH, 0.0, reused=True)) | {"added by a later version": 1},
]
NAMES = ("parquet", "imagefolder")


class World:
    def __init__(self, s3: S3Client, bucket: str) -> None:
        self.s3, self.bucket = s3, bucket

    def use(self, owner: str = "dag/run/make/-1") -> PrefixUse:
        return PrefixUse(ObjectStore(self.s3), Target(self.bucket, "set/"), owner, 0)

    def write(self, lines: list[dict[str, Any]] = LINES) -> None:
        manifest = io.BytesIO("".join(json.dumps(line) + "\n" for line in lines).encode())
        self.use().write_manifest(manifest, None, {})
        write_outputs(NAMES, manifest, self.use(), Target(self.bucket, "set/"), {})

    def read(self, name: str) -> bytes:
        return self.s3.get_object(Bucket=self.bucket, Key=f"set/{name}")["Body"].read()

    @property
    def parquet(self) -> ParquetFile:
        return ParquetFile(io.BytesIO(self.read("manifest.parquet")))


@pytest.fixture
def world(s3: S3Client, s3_bucket: str) -> World:
    return World(s3, s3_bucket)


def test_parquet_has_the_lines_with_types(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "_BATCH", 2)
    world.write()

    table = world.parquet.read()
    assert table.column_names == list(LINE_FIELDS)
    cat, dog, fish = table.to_pylist()
    assert cat == LINES[0] | {"submitted_at": datetime.fromisoformat(TIME), "model_params": '{"palette": ["warm"]}'}
    assert (dog["error"], dog["cost_usd"], dog["uri"]) == ("no dog", None, None)
    assert (fish["id"], fish["reused"]) == ("fish", True)
    kinds = {name: str(table.schema.field(name).type) for name in ("seed", "width", "cost_usd", "reused", "id")}
    assert kinds == {"seed": "int64", "width": "int32", "cost_usd": "double", "reused": "bool", "id": "string"}
    assert table.schema.field("submitted_at").type == pyarrow.timestamp("ms", "UTC")
    assert world.parquet.num_row_groups == 2


def test_parquet_of_no_lines_has_the_same_columns(world: World) -> None:
    world.write([])
    assert world.parquet.schema_arrow.names == list(LINE_FIELDS)
    assert world.read("metadata.jsonl") == b""


def test_value_of_another_type_is_null(world: World) -> None:
    odd = {
        "width": "wide",
        "height": 1 << 40,
        "seed": True,
        "cost_usd": "free",
        "prompt": 7,
        "reused": 1,
        "gates": "all",
    }
    world.write([LINES[0] | odd | {"submitted_at": "yesterday", "completed_at": "2026-11-23T00:00:00"}])
    [row] = world.parquet.read().to_pylist()
    assert {row[name] for name in (*odd, "submitted_at", "completed_at")} == {None}


def test_parquet_has_the_rejected_attempts(world: World) -> None:
    attempt = {
        **{"attempt": 1, "gate": "blank", "reason": "it is near-uniform", "seed": 7, "request_id": "r-0"},
        **{"uri": "s3://b/k", "sha256": "0" * 64, "cost_usd": 0.05, "cost_is_estimate": False},
    }
    world.write([LINES[0] | {"gates": ["blank", 3], "rejected_attempts": [attempt, "edited"]}])
    [row] = world.parquet.read().to_pylist()
    assert row["gates"] == ["blank", None]
    assert row["rejected_attempts"] == [attempt, None]


def test_parquet_is_a_file_of_rows(world: World) -> None:
    world.write()
    rows = [row for _, row in read_rows(f"s3://{world.bucket}/set/manifest.parquet", ObjectStore(world.s3))]
    assert (rows[0]["id"], rows[0]["prompt"], rows[0]["seed"]) == ("cat", "a cat", 7)
    assert rows[0]["submitted_at"] == datetime(2026, 11, 23, 0, 0, 0, 250_000, UTC)


def test_metadata_has_the_images_with_their_file_names(world: World) -> None:
    world.write()
    cat, fish = (json.loads(line) for line in world.read("metadata.jsonl").splitlines())
    assert (cat["file_name"], fish["file_name"]) == ("cat.png", "fish.png")
    assert (cat["id"], cat["prompt"], cat["seed"], cat["width"]) == ("cat", "a cat", 7, 1024)
    assert not {"error", "cost_usd", "uri"} & cat.keys()


def test_files_replace_those_of_the_last_manifest(world: World) -> None:
    world.write()
    world.write(LINES[:1])
    assert world.parquet.metadata.num_rows == len(world.read("metadata.jsonl").splitlines()) == 1


def test_file_of_another_tasks_manifest_is_kept(world: World) -> None:
    world.write()
    world.use("dag/other/make/-1").write_manifest(io.BytesIO(b""), world.use().manifest_version(), {})
    with pytest.raises(IdeogramTargetBusy, match=r"Another task has written s3://.*/set/manifest.jsonl"):
        write_outputs(NAMES, io.BytesIO(b""), world.use(), Target(world.bucket, "set/"), {})
    assert world.parquet.metadata.num_rows == len(LINES)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("parquet", "must be a list of parquet and imagefolder, not str"),
        (["parqet"], "outputs: 'parqet' is not valid. Did you mean 'parquet'?"),
        ([None], "outputs: must be text, not NoneType"),
        (["imagefolder"], "an image folder needs keys that end in .png"),
    ],
)
def test_outputs_are_checked(given: Any, problem: str) -> None:
    [found] = check_outputs(given, "{id}")
    assert problem in found


def test_valid_outputs_have_no_problem() -> None:
    assert check_outputs(NAMES, "{row}/{id}.PNG") == check_outputs([], "{id}") == missing_packages(NAMES) == []


def test_missing_package_is_a_problem_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "find_spec", lambda name: None)
    assert missing_packages(["imagefolder"]) == []
    assert "extra 'parquet' (pyarrow)" in missing_packages(["parquet"])[0]
