from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.datasets.workspace import STATE, PlanLost, Workspace, chunk_name, part_name
from airflow_provider_ideogram.exceptions import IdeogramDatasetFailed, IdeogramInvalidRecord, IdeogramStorageError
from airflow_provider_ideogram.storage.objects import ObjectStore
from tests.support.s3 import answered, conditions_refused, intercepted, s3_response

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.fixture
def workspace(s3: S3Client, s3_bucket: str) -> Workspace:
    return Workspace(ObjectStore(s3), s3_bucket, "_ideogram/day/.dataset/0123/")


def test_state_replaces_the_version_that_was_read(workspace: Workspace) -> None:
    version = workspace.write_state({"slices": 1}, None)
    assert workspace.read_state() == ({"slices": 1}, version)
    version = workspace.write_state({"slices": 2}, version)
    assert workspace.read_state() == ({"slices": 2}, version)


def test_two_slices_that_begin_at_once_are_one(workspace: Workspace) -> None:
    workspace.write_state({"slices": 1, "owner": "a"}, None)
    with pytest.raises(IdeogramDatasetFailed, match="Another slice of the task has continued the run"):
        workspace.write_state({"slices": 1, "owner": "b"}, None)
    assert workspace.read_state()[0]["owner"] == "a"


def test_slice_that_was_replaced_does_not_undo_a_later_one(workspace: Workspace) -> None:
    replaced = workspace.write_state({"slices": 1}, None)
    workspace.write_state({"slices": 2}, replaced)
    with pytest.raises(IdeogramDatasetFailed):
        workspace.write_state({"slices": 1, "late": True}, replaced)
    assert workspace.read_state()[0] == {"slices": 2}


def test_slice_that_was_replaced_restores_no_finished_run(workspace: Workspace) -> None:
    replaced = workspace.write_state({"slices": 1}, None)
    workspace.clear()
    with pytest.raises(IdeogramDatasetFailed):
        workspace.write_state({"slices": 1, "late": True}, replaced)
    assert workspace.read_state() == (None, None)


def test_write_whose_response_was_lost_is_the_slices_own(workspace: Workspace) -> None:
    before = workspace.write_state({"slices": 1}, None)
    version = workspace.write_state({"slices": 2}, before)
    assert workspace.write_state({"slices": 2}, before) == version


@pytest.mark.parametrize("status", [409, 412])
def test_single_refusal_whose_condition_holds_is_repeated(status: int, workspace: Workspace, s3: S3Client) -> None:
    before = workspace.write_state({"slices": 1}, None)
    answers = [status]
    refuse_once = intercepted(
        s3, "PutObject", lambda request: s3_response(request, answers.pop(), "Conflict") if answers else None
    )

    with refuse_once:
        version = workspace.write_state({"slices": 2}, before)

    assert workspace.read_state() == ({"slices": 2}, version)


def test_conflict_that_stays_is_left_to_a_retry(workspace: Workspace, s3: S3Client) -> None:
    before = workspace.write_state({"slices": 1}, None)
    conflict = answered(s3, "PutObject", 409, "ConditionalRequestConflict")
    with conflict, pytest.raises(IdeogramStorageError, match="S3 answers with a conflict"):
        workspace.write_state({"slices": 2}, before)


@pytest.mark.parametrize("body", [b"not json", b"[" * 100_000])
def test_state_that_is_not_json_is_an_invalid_record(
    body: bytes, workspace: Workspace, s3: S3Client, s3_bucket: str
) -> None:
    s3.put_object(Bucket=s3_bucket, Key=workspace.prefix + STATE, Body=body)
    with pytest.raises(IdeogramInvalidRecord, match="can't be understood"):
        workspace.read_state()


def test_lines_of_a_plan_are_those_of_its_slices_in_order(workspace: Workspace) -> None:
    for plan, slice_number, number in ((1, 2, 0), (3, 10, 0), (3, 9, 1), (3, 9, 0), (4, 4, 0)):
        workspace.write_lines(part_name(plan, slice_number, number), [{"slice": slice_number, "number": number}])

    lines = [json.loads(line) for line in workspace.part_lines(3)]

    assert [(line["slice"], line["number"]) for line in lines] == [(9, 0), (9, 1), (10, 0)]


def test_objects_of_other_plans_are_deleted(workspace: Workspace) -> None:
    version = workspace.write_state({}, None)
    for plan in (1, 2):
        for name in (chunk_name(plan, "todo", 0), chunk_name(plan, "copy", 0), part_name(plan, plan, 0)):
            workspace.write_lines(name, [{"plan": plan}])

    workspace.delete_other_plans(2)

    assert workspace.read_state() == ({}, version)
    assert workspace.read_lines(chunk_name(2, "todo", 0)) == [{"plan": 2}]
    assert len(list(workspace.part_lines(2))) == 1
    for name in (chunk_name(1, "todo", 0), chunk_name(1, "copy", 0), part_name(1, 1, 0)):
        with pytest.raises(PlanLost):
            workspace.read_lines(name)


def test_store_without_conditions_is_read_before_a_write(workspace: Workspace, s3: S3Client) -> None:
    with conditions_refused(s3):
        version = workspace.write_state({"slices": 1}, None)
        workspace.write_state({"slices": 2}, version)
        with pytest.raises(IdeogramDatasetFailed):
            workspace.write_state({"slices": 3}, version)
    assert workspace.read_state()[0] == {"slices": 2}
