from __future__ import annotations

import logging
from contextlib import closing
from typing import TYPE_CHECKING

from airflow_provider_ideogram.datasets.earlier_images import EarlierImages
from airflow_provider_ideogram.datasets.plan import make_plan
from airflow_provider_ideogram.datasets.rows import RowChecker
from airflow_provider_ideogram.datasets.workspace import Workspace
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    import pytest
    from mypy_boto3_s3 import S3Client


def test_columns_of_others_forge_no_line_of_the_log(
    s3: S3Client, s3_bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    images = Target(s3_bucket, "day/")
    workspace = Workspace.of(ObjectStore(s3), images, "_ideogram/", "owner")
    rows = [("line 1", {"prompt": "a cat", "mine\nERROR all is lost\x1b[31m": 1, "x" * 10_000: 1})]

    with caplog.at_level(logging.INFO), closing(EarlierImages(ObjectStore(s3), images, "_ideogram/day/")) as earlier:
        plan = make_plan(rows, RowChecker({}, images, "{id}"), earlier, workspace, "reuse")

    assert (plan.total, plan.to_do) == (1, {"ideogram-2a-txt-2-img": 1})
    (said,) = [message for message in caplog.messages if message.startswith("Columns that are not parameters")]
    assert said.isprintable()
    assert "mine ERROR all is lost" in said
    assert len(said) < 400
