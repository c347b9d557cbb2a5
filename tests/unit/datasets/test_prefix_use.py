from __future__ import annotations

import io
import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.datasets.prefix_use import PrefixUse
from airflow_provider_ideogram.datasets.workspace import STATE, Workspace
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramStorageError, IdeogramTargetBusy
from airflow_provider_ideogram.storage.objects import ObjectStore, PreconditionFailed
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

OWN, OTHER_TASK, OTHER_RUN = "dag/run-1/make/0", "dag/run-1/make/1", "dag/run-2/make/0"
MANIFEST = "day/manifest.jsonl"


class World:
    def __init__(self, s3: S3Client, bucket: str) -> None:
        self.s3, self.bucket = s3, bucket
        self.images = Target(bucket, "day/")
        self.objects = ObjectStore(s3)
        self.workspaces = Workspace.all_of(self.images, "_ideogram/")

    def use(self, owner: str = OWN) -> PrefixUse:
        return PrefixUse(self.objects, self.images, owner, 0)

    def workspace(self, owner: str) -> Workspace:
        return Workspace.of(self.objects, self.images, "_ideogram/", owner)

    def check(self, owner: str = OWN, *, at_work: tuple[str, ...] = ()) -> None:
        self.use(owner).check_others(self.workspace(owner), self.workspaces, at_work.__contains__)

    def write(self, owner: str, replaces: str | None) -> None:
        self.use(owner).write_manifest(io.BytesIO(owner.encode()), replaces, {"ContentType": "text/plain"})

    @property
    def manifest(self) -> bytes:
        return self.s3.get_object(Bucket=self.bucket, Key=MANIFEST)["Body"].read()


@pytest.fixture
def world(s3: S3Client, s3_bucket: str) -> World:
    return World(s3, s3_bucket)


def test_own_state_and_those_of_ended_runs_are_no_obstacle(world: World) -> None:
    for owner in (OWN, OTHER_RUN):
        world.workspace(owner).write_state({"owner": owner}, None)
    world.check(at_work=(OWN,))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"owner": 5}', b'{"owner": null}', b"[" * 100_000])
def test_state_of_another_form_is_no_obstacle(body: bytes, world: World) -> None:
    world.s3.put_object(Bucket=world.bucket, Key=world.workspace(OTHER_TASK).prefix + STATE, Body=body)
    world.check()


def test_task_of_the_same_run_is_an_obstacle(world: World) -> None:
    world.workspace(OTHER_TASK).write_state({"owner": OTHER_TASK}, None)
    with pytest.raises(IdeogramInvalidInput, match="'dag/run-1/make/1' of the same DAG run has the prefix"):
        world.check()


def test_task_of_another_run_is_an_obstacle_while_it_is_at_work(world: World) -> None:
    world.workspace(OTHER_RUN).write_state({"owner": OTHER_RUN}, None)
    with pytest.raises(IdeogramTargetBusy, match="'dag/run-2/make/0' is at work") as caught:
        world.check(at_work=(OTHER_RUN,))
    assert caught.value.charged is False
    world.check()


def test_manifest_of_the_same_run_is_an_obstacle(world: World) -> None:
    assert world.use().manifest_version() is None
    world.write(OWN, None)
    assert world.use().manifest_version() == world.use(OTHER_RUN).manifest_version() is not None
    with pytest.raises(IdeogramInvalidInput, match="Another task instance of the same DAG run"):
        world.use(OTHER_TASK).manifest_version()


@pytest.mark.parametrize("replaces", [None, '"an older one"'])
def test_manifest_that_was_written_meanwhile_is_kept(replaces: str | None, world: World) -> None:
    world.write(OTHER_RUN, None)
    with pytest.raises(IdeogramTargetBusy, match=r"Another task has written s3://.*/day/manifest.jsonl"):
        world.write(OWN, replaces)
    assert world.manifest == OTHER_RUN.encode()


def test_manifest_that_was_there_or_is_own_is_replaced(world: World) -> None:
    world.write(OTHER_RUN, None)
    world.write(OWN, world.use().manifest_version())
    world.write(OWN, '"an older one"')
    assert world.manifest == OWN.encode()
    assert world.s3.head_object(Bucket=world.bucket, Key=MANIFEST)["ContentType"] == "text/plain"


def test_manifest_written_between_look_and_write_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    put = world.objects.put

    def put_late(*place: Any, **arguments: Any) -> Any:
        world.s3.put_object(Bucket=world.bucket, Key=MANIFEST, Body=json.dumps("other").encode())
        return put(*place, **arguments)

    monkeypatch.setattr(world.objects, "put", put_late)
    with pytest.raises(IdeogramTargetBusy, match="Another task has written"):
        world.write(OWN, None)
    assert world.manifest == b'"other"'


@pytest.mark.parametrize(("conflicts", "error"), [(2, None), (3, "S3 answers with conflicts")])
def test_single_conflicts_of_s3_are_no_other_task(
    conflicts: int, error: str | None, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, left = world.objects.put, [PreconditionFailed()] * conflicts

    def put_later(*place: Any, **arguments: Any) -> Any:
        if left:
            place[2].read()
            raise left.pop()
        return put(*place, **arguments)

    monkeypatch.setattr(world.objects, "put", put_later)
    with pytest.raises(IdeogramStorageError, match=error) if error else nullcontext():
        world.write(OWN, None)
    if not error:
        assert world.manifest == OWN.encode()


def test_store_without_conditions_is_written_all_the_same(world: World) -> None:
    world.objects.writes_conditionally = False
    world.write(OWN, None)
    world.write(OWN, world.use().manifest_version())
    assert world.manifest == OWN.encode()
