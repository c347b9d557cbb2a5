"""The requests of tasks in Airflow's database, and the images of rejected attempts."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_provider_ideogram.cli.evidence import Evidence, requests_of_tasks
from airflow_provider_ideogram.datasets.attempts import FOLDER
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target
from tests.unit.ui.conftest import NOW, Database, database, engine

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["database", "engine"]


def test_image_that_a_gate_rejected_is_no_missing_one(s3: S3Client, s3_bucket: str) -> None:
    key = f"_ideogram/{FOLDER}0123"
    s3.put_object(Bucket=s3_bucket, Key=key, Body=b"an image", Metadata={"ideogram-request-id": "r-1"})
    with closing(Evidence(ObjectStore(s3), "_ideogram/", 0.0)) as evidence:
        evidence.add_place(Target(s3_bucket, "set/"))
        assert evidence.image_of("r-1") == f"s3://{s3_bucket}/{key}"


def test_requests_of_tasks_since_a_time(database: Database) -> None:
    database.add_run("cats")
    database.add_task("cats", xcoms={"request_id": "request-1", "return_value": {"uri": "s3://bucket/cat.png"}})
    database.add_task("cats", "running", xcoms={"request_id": '"request-2"', "progress": {}})
    database.add_task("cats", "number", xcoms={"request_id": "12e4"})
    found = sorted(requests_of_tasks(NOW.timestamp()))
    assert found == [("12e4", None), ("request-1", {"uri": "s3://bucket/cat.png"}), ("request-2", None)]
    assert list(requests_of_tasks((NOW + timedelta(seconds=1)).timestamp())) == []
