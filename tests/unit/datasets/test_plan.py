from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.earlier_images import EarlierImages
from airflow_provider_ideogram.datasets.manifest import failed_line, stored_line
from airflow_provider_ideogram.datasets.plan import Plan, make_plan, plan_failed_items
from airflow_provider_ideogram.datasets.rows import Item, RowChecker
from airflow_provider_ideogram.datasets.state import DelayedItem, UnsettledRequest
from airflow_provider_ideogram.datasets.workspace import PlanLost, Workspace, chunk_name, part_name
from airflow_provider_ideogram.exceptions import IdeogramJobFailed, IdeogramObjectExists
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target
from tests.unit.datasets.examples import NOW, make_in_flight, make_item, make_record, make_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mypy_boto3_s3 import S3Client


def test_columns_of_others_forge_no_line_of_the_log(
    s3: S3Client, s3_bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    images = Target(s3_bucket, "day/")
    workspace = Workspace.of(ObjectStore(s3), images, "_ideogram/", "owner")
    rows = [("line 1", {"prompt": "a cat", "mine\nERROR all is lost\x1b[31m": 1, "x" * 10_000: 1})]

    with (
        caplog.at_level(logging.INFO),
        closing(EarlierImages(ObjectStore(s3), images, "_ideogram/day/", "own/")) as earlier,
    ):
        plan = make_plan(rows, RowChecker({}, images, "{id}"), earlier, workspace, 1, "reuse", {})

    assert (plan.total, plan.to_do) == (1, {"ideogram-2a-txt-2-img": 1})
    (said,) = [message for message in caplog.messages if message.startswith("Columns that are not parameters")]
    assert said.isprintable()
    assert "mine ERROR all is lost" in said
    assert len(said) < 400


def test_retry_plans_no_row_that_waits_or_runs(s3: S3Client, s3_bucket: str) -> None:
    def write(kind: str, number: int, items: Sequence[Item]) -> None:
        workspace.write_lines(chunk_name(1, kind, number), [item.to_json() for item in items])

    workspace = Workspace.of(ObjectStore(s3), Target(s3_bucket, "day/"), "_ideogram/", "owner")
    items = [replace(make_item(f"cat-{row}"), row=row) for row in range(6)]
    write("todo", 0, items[:2])
    write("todo", 1, items[2:4])
    write("copy", 0, items[4:5])
    write("copy", 1, items[5:])
    lines = [failed_line(item, IdeogramJobFailed("failed"), 0.0) for item in items]
    workspace.write_lines(part_name(1, 1, 0), lines)
    state = make_state()
    state.plan, state.todo_chunks, state.copy_chunks, state.copied_chunks = 1, 2, 2, 1
    state.next_chunk, state.next_offset = 1, 1  # row 3 is still to be taken
    state.in_flight = [make_in_flight(items[0])]
    state.delayed = [DelayedItem(items[1], NOW, NOW)]
    state.counts[ImageStatus.FAILED] = 2  # rows 2 and 4: the others are undecided

    plan_failed_items(workspace, state, [ImageStatus.FAILED])

    assert state.counts[ImageStatus.FAILED] == 0
    assert [line["row"] for line in workspace.read_lines(chunk_name(1, "todo", 2))] == [2]
    assert [line["row"] for line in workspace.read_lines(chunk_name(1, "copy", 2))] == [4]


def test_copy_of_an_image_that_is_gone_is_planned_anew(s3: S3Client, s3_bucket: str) -> None:
    workspace = Workspace.of(ObjectStore(s3), Target(s3_bucket, "day/"), "_ideogram/", "owner")
    source = make_item("cat")
    copy = replace(source, row=1, id="twin", key="set/twin.png", copy_of=source.key)
    workspace.write_lines(chunk_name(1, "copy", 0), [copy.to_json()])
    lines = [stored_line(source, make_record(source, 0.05)), failed_line(copy, IdeogramJobFailed("failed"), 0.0)]
    workspace.write_lines(part_name(1, 1, 0), lines)
    state = make_state()
    state.plan, state.todo_chunks, state.copy_chunks, state.copied_chunks = 1, 0, 1, 1
    state.counts |= {ImageStatus.GENERATED: 1, ImageStatus.FAILED: 1}

    with pytest.raises(PlanLost, match=r"set/cat\.png was replaced or deleted since it was stored"):
        plan_failed_items(workspace, state, [ImageStatus.FAILED])

    assert state.counts[ImageStatus.FAILED] == 1


def test_image_whose_line_is_missing_does_not_stop_its_own_run(s3: S3Client, s3_bucket: str) -> None:
    images = Target(s3_bucket, "day/")
    workspace = Workspace.of(ObjectStore(s3), images, "_ideogram/", "owner")
    s3.put_object(Bucket=s3_bucket, Key="day/0", Body=b"an image", Metadata={"ideogram-request-id": "r-1"})
    request = GenerationRequest("a cat")
    open_requests = {"day/0": UnsettledRequest("r-1", 0.0, 0.05, request.fingerprint)}
    rows = [("line 1", {"id": "0", "prompt": "a cat"})]

    def plan(requests: dict[str, UnsettledRequest]) -> Plan:
        with closing(EarlierImages(ObjectStore(s3), images, "_ideogram/day/", "own/")) as earlier:
            return make_plan(rows, RowChecker({}, images, "{id}"), earlier, workspace, 1, "fail", requests)

    assert plan(open_requests).todo_chunks == 1
    with pytest.raises(IdeogramObjectExists):
        plan({})
