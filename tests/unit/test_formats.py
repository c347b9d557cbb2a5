"""
What is written today and read by a later version: in Airflow's database and in S3.

``tests/fixtures/formats/`` has a folder for each version that changed a form: all are read, and the newest is written.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar
from unittest import mock

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from packaging.version import Version

from airflow_provider_ideogram import __version__
from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.parsing import RequestStatus
from airflow_provider_ideogram.api.polling import Outcome, RequestPoll
from airflow_provider_ideogram.api.rate_limiter import RateLimiter
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.earlier_images import EarlierImages
from airflow_provider_ideogram.datasets.manifest import failed_line, manifest_lines, stored_line
from airflow_provider_ideogram.datasets.outage import SubmitOutage
from airflow_provider_ideogram.datasets.plan import plan_failed_items
from airflow_provider_ideogram.datasets.prefix_use import PrefixUse
from airflow_provider_ideogram.datasets.rows import Item
from airflow_provider_ideogram.datasets.runner import DatasetRunner, read_state
from airflow_provider_ideogram.datasets.state import DatasetState, DelayedItem, InFlightItem, UnsettledRequest
from airflow_provider_ideogram.datasets.waiting import Wait
from airflow_provider_ideogram.datasets.workspace import STATE, Workspace, chunk_name, part_name
from airflow_provider_ideogram.exceptions import IdeogramContentBlocked, IdeogramRateLimited, IdeogramServerUnavailable
from airflow_provider_ideogram.hooks.image import SpooledImage
from airflow_provider_ideogram.jobs.ledger import Ledger
from airflow_provider_ideogram.jobs.reconciliation import RetryLater
from airflow_provider_ideogram.jobs.record import Intent, LedgerRecord
from airflow_provider_ideogram.jobs.submission import Submitter
from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator, IdeogramGenerateImageOperator, base
from airflow_provider_ideogram.storage.image_record import Completion, ImageRecord, made_by, made_from, paid_by_group
from airflow_provider_ideogram.storage.image_store import ImageStore
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target
from airflow_provider_ideogram.triggers import IdeogramTrigger

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")
FORMATS = Path(__file__).resolve().parents[1] / "fixtures" / "formats"
VERSIONS = sorted((folder.name for folder in FORMATS.iterdir()), key=Version)
CHANGED = """\
{name} is not written as it was by {version}. Running tasks and buckets hold the old form when the worker is upgraded:
keep reading it, and leave its files as they are, unless {version} is not released. Then set the coming version in
airflow_provider_ideogram/__init__.py, and write the new form down beside the old ones with
    WRITE_FORMATS=1 .venv/bin/python -m pytest tests/unit/test_formats.py
"""

NOW = 1795392000.25
BUCKET = "formats"
IMAGE = b"the bytes of an image"
ASKED = GenerationRequest("a lighthouse \u2013 \U0001f30a", resolution="1280x800", model_params={"palette": ["warm"]})
SENT = replace(ASKED, seed=1234)
TARGET = Target(BUCKET, "images/lighthouse.png")
OWNER = "night/scheduled__2026-11-23/image/-1"
INTENT = Intent(SENT, ASKED.fingerprint, TARGET.uri, NOW, OWNER, max_tries=2)
ENTRY = LedgerRecord("_ideogram/images/lighthouse.png.json", "", INTENT)
JOB = replace(ENTRY, request_id="request-1", etag='"etag-1"').job
COMPLETION = Completion(completed_at=NOW + 13.5, inference_seconds=12.4, cost_usd=0.05)
RECORD = ImageRecord(
    uri=TARGET.uri,
    bucket=TARGET.bucket,
    key=TARGET.key,
    etag=hashlib.md5(IMAGE).hexdigest(),
    version_id=None,
    content_type="image/png",
    size_bytes=len(IMAGE),
    width=1280,
    height=800,
    sha256=hashlib.sha256(IMAGE).hexdigest(),
    request_id="request-1",
    model="ideogram-2a-txt-2-img",
    prompt=SENT.prompt,
    magic_prompt_option="AUTO",
    resolution="RESOLUTION_1280_800",
    style_type="GENERAL",
    seed=1234,
    inference_seconds=12.4,
    cost_usd=0.05,
    original_cost_usd=0.05,
    cost_is_estimate=False,
    reused=False,
    submitted_at="2026-11-23T00:00:00.250+00:00",
    completed_at="2026-11-23T00:00:13.750+00:00",
)

IMAGES = Target(BUCKET, "images/")
WORKSPACE = "_ideogram/images/.dataset/0123/"
WITH_IMAGES = {"manifest.jsonl": "images/manifest.jsonl", "dataset-part.jsonl": WORKSPACE + part_name(1, 1, 0)}
TO_DO = Item(0, "lighthouse", ASKED, TARGET.key, absent=True)
COPY = Item(1, "twin", ASKED, "images/twin.png", copy_of=TARGET.key)
FAILED = Item(2, "failed", replace(ASKED, prompt="fails"), "images/failed.png")
BLOCKED = Item(3, "blocked", replace(ASKED, prompt="is blocked"), "images/blocked.png")
ATTEMPT = {"attempt": 1, "gate": "blank", "reason": "it is near-uniform", "seed": 7, "request_id": "request-0"}
ATTEMPT |= {"uri": "s3://formats/kept", "sha256": "0" * 64, "cost_usd": 0.05, "cost_is_estimate": False}
PART = [
    failed_line(BLOCKED, IdeogramContentBlocked("Request request-3 was blocked", request_id="request-3"), 0.0),
    stored_line(replace(TO_DO, rejected=(ATTEMPT,)), RECORD, ["blank"]),
    failed_line(FAILED, IdeogramServerUnavailable("The API failed"), None),
    stored_line(COPY, replace(RECORD, uri=f"{IMAGES.uri}twin.png", key=COPY.key, reused=True, cost_usd=0.0)),
]
STATE_OF_RUN = DatasetState(
    owner=OWNER,
    replaced_manifest='"etag-2"',
    input_digest="0123",
    plan=1,
    total=6,
    todo_chunks=1,
    started_at=NOW,
    written_at=NOW + 50,
    idle_seconds=5.0,
    rate_limiter=RateLimiter(
        limit=50.0, rate=45.0, burst=16, ramping_up=True, tokens=1.5, tokens_at=NOW, sent=[NOW], blocked_until=NOW + 9
    ),
    next_chunk=1,
    next_offset=3,
    parts=1,
    counts={ImageStatus.GENERATED: 1, ImageStatus.REUSED: 1, ImageStatus.CONTENT_BLOCKED: 1, ImageStatus.FAILED: 1},
    cost_usd=0.15,
    abandoned_usd=0.1,
    original_cost_usd=0.2,
    cost_is_estimate=True,
    observed_costs={"ideogram-2a-txt-2-img": 0.05},
    images_without_cost=1,
    slices=4,
    max_tries=2,
    finished_at=NOW + 60,
    outage=SubmitOutage(since=NOW, failures=1, retry_at=NOW + 5, reason="502"),
    last_failure="The API failed",
    last_failure_is_temporary=True,
    consecutive_same_failures=1,
    unsettled_requests={FAILED.key: UnsettledRequest("request-4", counted_usd=0.0, estimate_usd=0.05, fingerprint="f")},
    counted_usd={"request-5": 0.05},
    examples=["failed: The API failed"],
    copy_chunks=1,
    copied_chunks=1,
    in_flight=[InFlightItem(TO_DO, JOB)],
    delayed=[DelayedItem(FAILED.redone(ATTEMPT), NOW + 30, NOW)],
)


def read(version: str, name: str) -> Any:
    return json.loads((FORMATS / version / name).read_text())


def read_lines(version: str, name: str) -> list[Any]:
    return [json.loads(line) for line in (FORMATS / version / name).read_text().splitlines()]


def check_written(name: str, text: str) -> None:
    """Compare a document, or one a line, with the newest version's; or write it down if that is asked for."""
    in_lines = name.endswith(".jsonl")
    if os.environ.get("WRITE_FORMATS"):
        file = FORMATS / __version__ / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text if in_lines else json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n")
        pytest.skip(f"written to {file}")
    written = [json.loads(line) for line in text.splitlines()] if in_lines else json.loads(text)
    assert written == (read_lines if in_lines else read)(VERSIONS[-1], name), CHANGED.format(
        name=name, version=VERSIONS[-1]
    )


every_version = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)


@pytest.fixture
def bucket(s3: S3Client, monkeypatch: pytest.MonkeyPatch) -> S3Client:
    """A client of the local S3, with the example's bucket, which is empty, and a connection to the API."""
    monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", '{"conn_type": "ideogram", "password": "a-key-of-tests"}')
    s3.create_bucket(Bucket=BUCKET)
    ObjectStore(s3).delete_many(BUCKET, [item.key for item in ObjectStore(s3).list(BUCKET, "")])
    return s3


def put(s3: S3Client, key: str, version: str, name: str) -> None:
    s3.put_object(Bucket=BUCKET, Key=key, Body=(FORMATS / version / name).read_bytes())


def content(s3: S3Client, key: str) -> str:
    return s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()


def context() -> Any:
    dag_id, run_id, task_id, _ = OWNER.split("/")
    ti = SimpleNamespace(
        dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=-1, try_number=1, max_tries=2, xcom_push=mock.Mock()
    )
    return {"ti": ti}


def image_operator() -> IdeogramGenerateImageOperator:
    return IdeogramGenerateImageOperator(
        task_id="image",
        prompt=ASKED.prompt,
        resolution=ASKED.resolution,
        model_params=ASKED.model_params,
        s3_key=TARGET.uri,
        poll_interval=2.5,
    )


def dataset_operator() -> IdeogramGenerateDatasetOperator:
    return IdeogramGenerateDatasetOperator(task_id="images", prompts=["a lighthouse"], s3_prefix=IMAGES.uri)


def deferred(act: Callable[[], Any]) -> TaskDeferred:
    with mock.patch.object(base, "get_current_context", context), pytest.raises(TaskDeferred) as raised:
        act()
    return raised.value


def wait_for_job() -> TaskDeferred:
    return deferred(lambda: image_operator()._defer_until_done(JOB))


def wait_for_storage() -> TaskDeferred:
    return deferred(lambda: image_operator()._defer_fetch(JOB, IdeogramServerUnavailable("S3 is away")))


def wait_to_submit() -> TaskDeferred:
    limited = RetryLater(30.0, IdeogramRateLimited("The rate limit is reached"))
    with mock.patch.object(Submitter, "get_or_submit", side_effect=limited):
        return deferred(lambda: image_operator().execute(context()))


def wait_for_slice() -> TaskDeferred:
    operator = dataset_operator()
    wait = Wait({JOB.request_id: NOW}, not_before=NOW + 5, deadline=NOW + 600, min_settled=1)
    runner: Any = SimpleNamespace(workspace=SimpleNamespace(prefix=WORKSPACE), output_prefix=IMAGES)
    trigger = operator._trigger(wait, runner)
    return deferred(lambda: operator._defer_to(trigger, "execute_complete"))


WAITS = {
    "trigger-image.json": wait_for_job,
    "trigger-fetch.json": wait_for_storage,
    "trigger-submit-again.json": wait_to_submit,
    "trigger-dataset.json": wait_for_slice,
}


def only(kind: type[T], called: mock.Mock) -> T:
    """Return the argument of this kind."""
    [found] = [argument for argument in called.call_args.args if isinstance(argument, kind)]
    return found


def as_stored(wait: TaskDeferred) -> dict[str, Any]:
    """Return what Airflow's database keeps of a deferred task."""
    path, arguments = wait.trigger.serialize()
    return {"classpath": path, "kwargs": arguments, "method_name": wait.method_name}


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("name", WAITS)
def test_deferral_is_written_as_before(name: str) -> None:
    check_written(name, json.dumps(as_stored(WAITS[name]())))


@pytest.mark.usefixtures("bucket")
@every_version
@pytest.mark.parametrize("name", WAITS)
def test_deferral_of_every_version_makes_the_trigger_again(name: str, version: str) -> None:
    stored = read(version, name)
    trigger = IdeogramTrigger(**stored["kwargs"])

    assert as_stored(TaskDeferred(trigger=trigger, method_name=stored["method_name"])) == as_stored(WAITS[name]())


async def fire(trigger: IdeogramTrigger) -> Mapping[str, Any]:
    """Return the event of a trigger whose job is done at the first look."""

    async def watch(self: IdeogramTrigger) -> bool:
        self._polls[0].on_status(RequestStatus("COMPLETED", 12.4), NOW + 13.5)
        return True

    with mock.patch.object(IdeogramTrigger, "_watch", watch):
        event = await anext(trigger.run())
    payload: Mapping[str, Any] = event.payload
    return payload


async def test_event_is_written_as_before() -> None:
    check_written("event.json", json.dumps(await fire(wait_for_job().trigger)))


@every_version
def test_event_of_every_version_is_taken_up(version: str) -> None:
    with mock.patch.object(IdeogramGenerateImageOperator, "_finish") as finish:
        image_operator().execute_complete(context(), read(version, "event.json"))

    assert only(Job, finish) == JOB
    poll = only(RequestPoll, finish)
    assert (poll.request_id, poll.submitted_at, poll.outcome) == ("request-1", NOW, Outcome.COMPLETED)
    assert (poll.inference_seconds, poll.completed_at, poll.polls) == (12.4, NOW + 13.5, 1)


@pytest.mark.usefixtures("bucket")
@every_version
def test_submit_of_every_version_is_made_for_what_was_asked(version: str) -> None:
    payload = read(version, "trigger-submit-again.json")["kwargs"]["payload"]
    with mock.patch.object(Submitter, "get_or_submit", autospec=True, return_value=RECORD) as get_or_submit:
        image = image_operator().submit_again(context(), {"requests": {}, "payload": payload, "error": None})

    submitter, request = get_or_submit.call_args.args
    assert (request, submitter.target, submitter.owner) == (ASKED, TARGET, OWNER)
    assert payload["waiting_since"] == NOW
    assert image == RECORD.to_xcom()


@every_version
def test_job_of_every_version_is_the_one_that_was_paid(version: str) -> None:
    for name in ("trigger-image.json", "trigger-fetch.json"):
        assert Job.from_json(read(version, name)["kwargs"]["payload"]) == JOB


def write_intent(ledger: Ledger) -> LedgerRecord:
    return ledger.write_intent(ENTRY.key, INTENT)


def write_request(ledger: Ledger) -> LedgerRecord:
    return ledger.record_request(write_intent(ledger), "request-1")


def write_next_intent(ledger: Ledger) -> LedgerRecord:
    return ledger.replace(write_request(ledger), replace(INTENT, excluded_request_ids=("request-1",)))


def write_refused_intent(ledger: Ledger) -> LedgerRecord:
    entry = write_intent(ledger)
    with mock.patch.object(ledger, "_delete", side_effect=PermissionError):
        ledger.cancel_intent(entry)
    return replace(entry, not_submitted=True)


RECORDS = {
    "record-intent.json": write_intent,
    "record-request.json": write_request,
    "record-excluded.json": write_next_intent,
    "record-not-submitted.json": write_refused_intent,
}


@pytest.mark.parametrize("name", RECORDS)
def test_ledgers_record_is_written_as_before(name: str, bucket: S3Client) -> None:
    RECORDS[name](Ledger(ObjectStore(bucket), BUCKET))

    check_written(name, content(bucket, ENTRY.key))


@every_version
@pytest.mark.parametrize("name", RECORDS)
def test_ledgers_record_of_every_version_is_understood(name: str, version: str, bucket: S3Client) -> None:
    written = RECORDS[name](Ledger(ObjectStore(bucket), BUCKET))
    put(bucket, ENTRY.key, version, name)

    found = Ledger(ObjectStore(bucket), BUCKET).read(ENTRY.key)
    assert found is not None
    assert replace(found, etag="") == replace(written, etag="")


@pytest.fixture
def workspace(bucket: S3Client) -> Workspace:
    return Workspace(ObjectStore(bucket), BUCKET, WORKSPACE)


def test_datasets_state_is_written_as_before(workspace: Workspace, bucket: S3Client) -> None:
    workspace.write_state(STATE_OF_RUN.to_json(), None)

    check_written("dataset-state.json", content(bucket, WORKSPACE + STATE))


@every_version
def test_datasets_state_of_every_version_is_understood(version: str, workspace: Workspace, bucket: S3Client) -> None:
    put(bucket, WORKSPACE + STATE, version, "dataset-state.json")

    assert read_state(workspace)[0] == STATE_OF_RUN


@every_version
def test_slice_of_every_version_goes_on(version: str, workspace: Workspace, bucket: S3Client) -> None:
    put(bucket, WORKSPACE + STATE, version, "dataset-state.json")
    payload = read(version, "trigger-dataset.json")["kwargs"]["payload"]
    with mock.patch.object(IdeogramGenerateDatasetOperator, "_run") as run:
        dataset_operator().execute_complete(context(), {"requests": {}, "payload": payload, "error": None})

    runner = only(DatasetRunner, run)
    assert runner.workspace.uri == workspace.uri
    assert (runner.output_prefix, runner.state) == (IMAGES, replace(STATE_OF_RUN, slices=5, written_at=NOW))


LINES = {
    "dataset-todo.jsonl": [item.to_json() for item in (TO_DO, FAILED, BLOCKED)],
    "dataset-copy.jsonl": [COPY.to_json()],
    "dataset-part.jsonl": PART,
}


@pytest.mark.parametrize("name", LINES)
def test_datasets_lines_are_written_as_before(name: str, workspace: Workspace, bucket: S3Client) -> None:
    workspace.write_lines("lines", LINES[name])

    check_written(name, content(bucket, WORKSPACE + "lines"))


def test_manifest_is_written_as_before(workspace: Workspace, bucket: S3Client) -> None:
    workspace.write_lines(part_name(1, 1, 0), PART)
    with manifest_lines(workspace, len(PART), 1) as lines:
        PrefixUse(ObjectStore(bucket), IMAGES, OWNER, 0).write_manifest(lines, None, {})

    check_written("manifest.jsonl", content(bucket, "images/manifest.jsonl"))


@every_version
def test_datasets_items_of_every_version_are_those_of_the_plan(version: str) -> None:
    assert [Item.from_json(line) for line in read_lines(version, "dataset-todo.jsonl")] == [TO_DO, FAILED, BLOCKED]
    assert [Item.from_json(line) for line in read_lines(version, "dataset-copy.jsonl")] == [COPY]


@every_version
def test_what_failed_in_every_version_is_planned_again(version: str, workspace: Workspace, bucket: S3Client) -> None:
    put(bucket, WORKSPACE + chunk_name(1, "todo", 0), version, "dataset-todo.jsonl")
    put(bucket, WORKSPACE + part_name(1, 1, 0), version, "dataset-part.jsonl")
    state = replace(STATE_OF_RUN, counts=dict(STATE_OF_RUN.counts), copy_chunks=0, delayed=[])

    plan_failed_items(workspace, state, [ImageStatus.FAILED])

    assert (state.todo_chunks, state.counts[ImageStatus.FAILED]) == (2, 0)
    assert [Item.from_json(line) for line in workspace.read_lines(chunk_name(1, "todo", 1))] == [FAILED]


@every_version
@pytest.mark.parametrize(("name", "key"), WITH_IMAGES.items())
def test_images_that_every_version_made_are_reused(name: str, key: str, version: str, bucket: S3Client) -> None:
    put(bucket, key, version, name)
    for item in (TO_DO, COPY):
        bucket.put_object(Bucket=BUCKET, Key=item.key, Body=IMAGE)

    earlier = EarlierImages(ObjectStore(bucket), IMAGES, "_ideogram/images/.dataset/", "own/")

    reused = replace(RECORD, reused=True, cost_usd=0.0)
    attempt = {**ATTEMPT, "cost_usd": 0.0}
    assert earlier.line_of(TO_DO) == stored_line(replace(TO_DO, rejected=(attempt,)), reused, ["blank"])
    assert earlier.line_of(COPY) == stored_line(COPY, replace(reused, key=COPY.key, uri=f"{IMAGES.uri}twin.png"))
    assert earlier.line_of(FAILED) is None
    earlier.close()


def test_images_metadata_is_written_as_before(bucket: S3Client) -> None:
    sha256 = hashlib.sha256(IMAGE).digest()
    with SpooledImage(io.BytesIO(IMAGE), len(IMAGE), sha256, "image/png", "png", 1280, 800) as image:
        record = ImageStore("aws_default").put(JOB, image, TARGET, COMPLETION)

    assert record == RECORD
    check_written("image-metadata.json", json.dumps(bucket.head_object(Bucket=BUCKET, Key=TARGET.key)["Metadata"]))


@every_version
def test_image_of_every_version_is_known_for_what_it_is(version: str, bucket: S3Client) -> None:
    metadata = read(version, "image-metadata.json")
    bucket.put_object(Bucket=BUCKET, Key=TARGET.key, Body=IMAGE, ContentType="image/png", Metadata=metadata)

    head = ImageStore("aws_default").find(TARGET)

    assert head is not None
    assert ImageRecord.of_object(TARGET, head, ASKED, own=True) == RECORD
    assert ImageRecord.of_object(TARGET, head, ASKED) == replace(RECORD, cost_usd=0.0, reused=True)
    assert (made_from(head, ASKED), made_from(head, SENT)) == (True, False)
    assert (made_by(head), paid_by_group(head, INTENT.attempt_group)) == ("request-1", True)


def test_every_file_is_of_one_of_these_forms() -> None:
    known = {*WAITS, "event.json", *RECORDS, "dataset-state.json", *LINES, "manifest.jsonl", "image-metadata.json"}
    for version in VERSIONS:
        assert {file.name for file in (FORMATS / version).iterdir() if "review" not in file.name} == known
