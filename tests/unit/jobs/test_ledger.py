"""The ledger against an S3 server on a socket, and against servers that fail or know no conditions."""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest import mock

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.httpsession import URLLib3Session

from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramLedgerError
from airflow_provider_ideogram.jobs.ledger import (
    _MAX_INTENT_BYTES,
    Intent,
    Ledger,
    LedgerRecord,
    NoLedger,
    RecordConflict,
)
from airflow_provider_ideogram.jobs.ledger import _body as _written
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KEY = "_ideogram/images/lighthouse.png.json"
ASKED = GenerationRequest("a lighthouse \U0001f30a", model_params={"color_palette": "warm"})
INTENT = Intent(
    request=replace(ASKED, seed=1234),
    fingerprint=ASKED.fingerprint,
    target="s3://bucket/images/lighthouse.png",
    intent_at=1795392000.123456,
    owner="night/scheduled__2026-11-23/generate/-1",
    max_tries=2,
)
OTHER = replace(INTENT, owner="night/scheduled__2026-11-24/generate/-1", intent_at=INTENT.intent_at + 5)

#: A record as this version writes it. Later versions must read it: records outlive an upgrade of the worker.
RECORD = """
{
  "version": 1,
  "request_id": "11111111-2222-4333-8444-555555555555",
  "request": {
    "prompt": "a lighthouse \U0001f30a",
    "magic_prompt_option": "AUTO",
    "resolution": "RESOLUTION_1024_1024",
    "style_type": "GENERAL",
    "seed": 1234,
    "model": "ideogram-2a-txt-2-img",
    "model_params": {"color_palette": "warm"}
  },
  "fingerprint": "e1d9b1d9c36d3ab68f8d5a0ba5d8f1c8b6bd8e2bd3a6db1a0c7d2b9b1f5e6a7c",
  "target": "s3://bucket/images/lighthouse.png",
  "intent_at": 1795392000.123456,
  "owner": "night/scheduled__2026-11-23/generate/-1",
  "max_tries": 2
}
"""


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._body


def _answer(request: Any, status: int, code: str = "", headers: dict[str, str] | None = None) -> AWSResponse:
    body = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode() if code else b""
    return AWSResponse(request.url, status, headers or {}, _Raw(body))


@contextmanager
def _sent(client: S3Client, operation: str, handler: Callable[[Any], AWSResponse | None]) -> Iterator[None]:
    """Let the handler see each request, and answer it instead of the server where it returns something."""
    event = f"before-send.s3.{operation}"

    def handle(request: Any, **_: Any) -> AWSResponse | None:
        return handler(request)

    client.meta.events.register_first(event, handle)
    try:
        yield
    finally:
        client.meta.events.unregister(event, handle)


@contextmanager
def _conditions_unknown(client: S3Client) -> Iterator[None]:
    """A store that says that it has no conditional writes."""

    def refuse(request: Any) -> AWSResponse | None:
        conditional = {"If-Match", "If-None-Match"} & set(request.headers)
        return _answer(request, 501, "NotImplemented") if conditional else None

    with _sent(client, "PutObject", refuse), _sent(client, "DeleteObject", refuse):
        yield


@contextmanager
def _conditions_ignored(client: S3Client) -> Iterator[None]:
    """A store that takes no notice of conditions."""

    def strip(request: Any, **_: Any) -> None:
        for name in ("If-Match", "If-None-Match"):
            del request.headers[name]

    events = ("before-sign.s3.PutObject", "before-sign.s3.DeleteObject")
    for event in events:
        client.meta.events.register_first(event, strip)
    try:
        yield
    finally:
        for event in events:
            client.meta.events.unregister(event, strip)


@pytest.fixture
def client(s3_client: S3Client) -> Iterator[S3Client]:
    with mock.patch("botocore.endpoint.time"):  # it waits before it repeats a request
        yield s3_client


@pytest.fixture
def bucket(client: S3Client) -> str:
    name = f"bucket-{uuid.uuid4()}"
    client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def ledger(client: S3Client, bucket: str) -> Ledger:
    return Ledger(client, bucket)


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the ledger logged; the S3 server logs as well."""
    return [record.message for record in caplog.records if record.name.endswith("jobs.ledger")]


def _body(client: S3Client, bucket: str, key: str = KEY) -> Any:
    return json.loads(client.get_object(Bucket=bucket, Key=key)["Body"].read())


class TestRecords:
    """The life of a record."""

    def test_from_intent_to_removal(self, ledger: Ledger, client: S3Client, bucket: str) -> None:
        assert ledger.read(KEY) is None

        intended = ledger.write_intent(KEY, INTENT)
        assert ledger.read(KEY) == intended == LedgerRecord(KEY, intended.etag, INTENT, None)

        recorded = ledger.record_request(intended, "r-1")
        assert ledger.read(KEY) == recorded == LedgerRecord(KEY, recorded.etag, INTENT, "r-1")
        assert recorded.etag != intended.etag

        ledger.delete(KEY, recorded.etag)
        assert ledger.read(KEY) is None
        assert "Contents" not in client.list_objects_v2(Bucket=bucket)

    def test_the_job_has_all_that_ends_it_in_another_process(self, ledger: Ledger) -> None:
        entry = ledger.record_request(ledger.write_intent(KEY, INTENT), "r-1")

        job = entry.job

        assert (job.request_id, job.submitted_at, job.request) == ("r-1", INTENT.intent_at, INTENT.request)
        assert (job.fingerprint, job.target) == (INTENT.fingerprint, INTENT.target)
        assert (job.record_key, job.record_etag, job.paid_by_other_task) == (KEY, entry.etag, False)

    def test_there_is_no_job_without_a_request_id(self, ledger: Ledger) -> None:
        with pytest.raises(ValueError, match="no request id"):
            _ = ledger.write_intent(KEY, INTENT).job

    def test_a_new_intent_replaces_a_dead_request(self, ledger: Ledger) -> None:
        dead = ledger.record_request(ledger.write_intent(KEY, INTENT), "r-1")

        entry = ledger.replace(dead, OTHER)

        assert ledger.read(KEY) == entry == LedgerRecord(KEY, entry.etag, OTHER, None)


class TestOneWriterWins:
    """Each write says what it replaces."""

    def test_nobody_opens_what_is_there(self, ledger: Ledger) -> None:
        first = ledger.write_intent(KEY, INTENT)

        with pytest.raises(RecordConflict):
            ledger.write_intent(KEY, OTHER)

        assert ledger.read(KEY) == first

    def test_of_writers_at_the_same_moment_one_opens(self, ledger: Ledger) -> None:
        barrier, won, lost = threading.Barrier(6), [], []

        def write(number: int) -> None:
            intent = replace(INTENT, owner=f"task-{number}")
            barrier.wait()
            try:
                won.append(ledger.write_intent(KEY, intent))
            except RecordConflict:
                lost.append(number)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert (len(won), len(lost)) == (1, 5)
        assert ledger.read(KEY) == won[0]

    @pytest.mark.parametrize("write", ["replace", "record_request"])
    def test_nobody_writes_over_a_version_that_it_has_not_seen(self, write: str, ledger: Ledger) -> None:
        seen = ledger.write_intent(KEY, INTENT)
        current = ledger.record_request(seen, "r-1")

        with pytest.raises(RecordConflict):
            ledger.replace(seen, OTHER) if write == "replace" else ledger.record_request(seen, "r-2")

        assert ledger.read(KEY) == current

    @pytest.mark.parametrize("write", ["replace", "record_request"])
    def test_nobody_writes_over_what_is_gone(self, write: str, ledger: Ledger) -> None:
        gone = ledger.write_intent(KEY, INTENT)
        ledger.delete(KEY, gone.etag)

        with pytest.raises(RecordConflict):
            ledger.replace(gone, OTHER) if write == "replace" else ledger.record_request(gone, "r-1")

        assert ledger.read(KEY) is None

    def test_closing_leaves_what_somebody_else_has_written_since(
        self, ledger: Ledger, caplog: pytest.LogCaptureFixture
    ) -> None:
        mine = ledger.record_request(ledger.write_intent(KEY, INTENT), "r-1")
        theirs = ledger.replace(mine, OTHER)

        ledger.delete(KEY, mine.etag)

        assert ledger.read(KEY) == theirs
        assert _said(caplog) == []

    def test_closing_twice_is_nothing(self, ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
        entry = ledger.write_intent(KEY, INTENT)
        ledger.delete(KEY, entry.etag)

        ledger.delete(KEY, entry.etag)

        assert _said(caplog) == []

    def test_a_conflict_of_two_writes_is_lost_by_this_one(self, ledger: Ledger, client: S3Client) -> None:
        conflict = "ConditionalRequestConflict"
        with (
            _sent(client, "PutObject", lambda request: _answer(request, 409, conflict)),
            pytest.raises(RecordConflict),
        ):
            ledger.write_intent(KEY, INTENT)


class TestLostAnswers:
    """S3 wrote and its answer was lost: botocore writes again, and meets what it wrote itself."""

    @staticmethod
    @contextmanager
    def _first_answer_lost(client: S3Client) -> Iterator[list[int]]:
        statuses: list[int] = []

        def lose(request: Any) -> AWSResponse | None:
            if statuses:
                return None
            session = URLLib3Session()
            statuses.append(session.send(request).status_code)
            session.close()
            return _answer(request, 500, "InternalError")

        with _sent(client, "PutObject", lose):
            yield statuses

    def test_opening(self, ledger: Ledger, client: S3Client) -> None:
        with self._first_answer_lost(client) as statuses:
            entry = ledger.write_intent(KEY, INTENT)

        assert statuses == [200]
        assert ledger.read(KEY) == entry
        assert entry.intent == INTENT

    def test_recording_the_request(self, ledger: Ledger, client: S3Client) -> None:
        entry = ledger.write_intent(KEY, INTENT)

        with self._first_answer_lost(client):
            recorded = ledger.record_request(entry, "r-1")

        assert ledger.read(KEY) == recorded
        assert recorded.request_id == "r-1"

    def test_replacing(self, ledger: Ledger, client: S3Client) -> None:
        dead = ledger.record_request(ledger.write_intent(KEY, INTENT), "r-1")

        with self._first_answer_lost(client):
            replaced = ledger.replace(dead, OTHER)

        assert ledger.read(KEY) == replaced
        assert (replaced.intent, replaced.request_id) == (OTHER, None)


class TestKeys:
    """Where records are."""

    def test_a_key_has_one_record_whoever_asks(self, client: S3Client) -> None:
        ledger, target = Ledger(client, "bucket"), Target("bucket", "images/lighthouse.png")
        assert ledger.key_of(target, "a") == ledger.key_of(target, "b") == KEY

    def test_a_prefix_has_one_record_a_task_instance(self, client: S3Client) -> None:
        ledger, target = Ledger(client, "bucket"), Target("bucket", "images/")
        keys = {ledger.key_of(target, owner) for owner in ("dag/run/task/0", "dag/run/task/1", "dag/run2/task/0")}
        assert len(keys) == 3
        assert all(key.startswith("_ideogram/images/") and key.endswith(".json") for key in keys)
        assert ledger.key_of(target, "dag/run/task/0") in keys

    def test_the_prefix_is_the_user_s(self, client: S3Client) -> None:
        ledger = Ledger(client, "bucket", "private/ledger/")
        assert ledger.key_of(Target("bucket", "a.png"), "x") == "private/ledger/a.png.json"


class TestForm:
    """What a record looks like, in this version and in those to come."""

    def test_a_record_is_read_as_it_was_written_by_the_first_version(
        self, ledger: Ledger, client: S3Client, bucket: str
    ) -> None:
        client.put_object(Bucket=bucket, Key=KEY, Body=RECORD.encode())

        entry = ledger.read(KEY)

        assert entry is not None
        fingerprint = json.loads(RECORD)["fingerprint"]
        assert entry.intent == replace(INTENT, fingerprint=fingerprint)
        assert entry.request_id == "11111111-2222-4333-8444-555555555555"

    def test_a_record_is_written_as_before(self, ledger: Ledger, client: S3Client, bucket: str) -> None:
        expected = json.loads(RECORD)
        intent = replace(INTENT, fingerprint=expected["fingerprint"])

        ledger.record_request(ledger.write_intent(KEY, intent), expected["request_id"])

        assert _body(client, bucket) == expected
        assert client.head_object(Bucket=bucket, Key=KEY)["ContentType"] == "application/json"

    def test_an_intent_has_no_request_id(self, ledger: Ledger, client: S3Client, bucket: str) -> None:
        ledger.write_intent(KEY, INTENT)
        assert _body(client, bucket)["request_id"] is None


def _changed(**changes: Any) -> bytes:
    return json.dumps({**json.loads(RECORD), **changes}).encode()


class TestCannotTell:
    """What cannot be read is never taken for "no record", and nothing is submitted without a write."""

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"not JSON",
            b"\xff\xfe",
            b"null",
            b"[]",
            b"7",
            b"{}",
            RECORD.encode()[: len(RECORD) // 2],
            json.dumps({name: value for name, value in json.loads(RECORD).items() if name != "version"}).encode(),
            json.dumps({name: value for name, value in json.loads(RECORD).items() if name != "request_id"}).encode(),
            json.dumps({name: value for name, value in json.loads(RECORD).items() if name != "owner"}).encode(),
            b"[" * 100_000,
            _changed(version=2),
            _changed(version="1"),
            _changed(request=None),
            _changed(request={"prompt": ""}),
            _changed(request={"prompt": "a lighthouse", "unknown": 1}),
        ],
    )
    def test_a_record_that_is_not_understood(self, body: bytes, ledger: Ledger, client: S3Client, bucket: str) -> None:
        client.put_object(Bucket=bucket, Key=KEY, Body=body)

        with pytest.raises(IdeogramLedgerError, match="understanding it failed"):
            ledger.read(KEY)

        with pytest.raises((RecordConflict, IdeogramLedgerError)):
            ledger.write_intent(KEY, INTENT)
        assert client.get_object(Bucket=bucket, Key=KEY)["Body"].read() == body

    def test_the_message_says_what_to_do(self, ledger: Ledger, client: S3Client, bucket: str) -> None:
        client.put_object(Bucket=bucket, Key=KEY, Body=_changed(version=7))

        with pytest.raises(IdeogramLedgerError) as caught:
            ledger.read(KEY)

        for words in (f"s3://{bucket}/{KEY}", "version 7", "Nothing is submitted", "_ideogram/*", "durable=False"):
            assert words in str(caught.value)

    @pytest.mark.parametrize("status", [403, 500, 503])
    def test_a_server_that_refuses_or_fails(self, status: int, ledger: Ledger, client: S3Client) -> None:
        entry = ledger.write_intent(KEY, INTENT)
        code = "AccessDenied" if status == 403 else "InternalError"

        def answer(request: Any) -> AWSResponse:
            return _answer(request, status, code)

        with _sent(client, "GetObject", answer), pytest.raises(IdeogramLedgerError, match="reading it failed"):
            ledger.read(KEY)
        with _sent(client, "PutObject", answer):
            with pytest.raises(IdeogramLedgerError, match="writing it failed"):
                ledger.record_request(entry, "r-1")
            with pytest.raises(IdeogramLedgerError, match="writing it failed"):
                ledger.replace(entry, OTHER)
            with pytest.raises(IdeogramLedgerError, match="writing it failed"):
                ledger.write_intent("_ideogram/another.json", INTENT)
        assert ledger.read(KEY) == entry

    def test_a_bucket_that_is_not_there(self, client: S3Client) -> None:
        ledger = Ledger(client, f"missing-{uuid.uuid4()}")

        with pytest.raises(IdeogramLedgerError, match="NoSuchBucket"):
            ledger.read(KEY)
        with pytest.raises(IdeogramLedgerError, match="NoSuchBucket"):
            ledger.write_intent(KEY, INTENT)

    def test_a_server_that_is_not_there(self) -> None:
        client = boto3.client(
            "s3",
            endpoint_url="http://127.0.0.1:9",
            region_name="us-east-1",
            aws_access_key_id="a",
            aws_secret_access_key="s",
        )
        ledger = Ledger(client, "bucket")

        with mock.patch("botocore.endpoint.time"):
            with pytest.raises(IdeogramLedgerError, match="Could not connect"):
                ledger.read(KEY)
            with pytest.raises(IdeogramLedgerError, match="Could not connect"):
                ledger.write_intent(KEY, INTENT)
        client.close()

    def test_a_record_that_cannot_be_removed_is_left_with_a_warning(
        self, ledger: Ledger, client: S3Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        entry = ledger.write_intent(KEY, INTENT)

        with _sent(client, "DeleteObject", lambda request: _answer(request, 403, "AccessDenied")):
            ledger.delete(KEY, entry.etag)

        assert ledger.read(KEY) == entry
        assert "could not be removed" in caplog.text


class TestWithdraw:
    """An intent whose submit was refused or never sent."""

    def test_is_removed(self, ledger: Ledger, client: S3Client) -> None:
        writes: list[Any] = []
        entry = ledger.write_intent(KEY, INTENT)
        with _sent(client, "PutObject", writes.append):
            ledger.cancel_intent(entry)
        assert ledger.read(KEY) is None
        assert writes == []

    @pytest.mark.parametrize("status", [403, 500])
    def test_is_marked_where_it_cannot_be_removed(
        self, status: int, ledger: Ledger, client: S3Client, bucket: str
    ) -> None:
        entry = ledger.write_intent(KEY, INTENT)
        before = _body(client, bucket)

        with _sent(client, "DeleteObject", lambda request: _answer(request, status, "AccessDenied")):
            ledger.cancel_intent(entry)

        marked = ledger.read(KEY)
        assert marked == replace(entry, etag=marked.etag, not_submitted=True)
        assert _body(client, bucket) == {**before, "not_submitted": True}
        assert ledger.replace(marked, OTHER).not_submitted is False
        assert "not_submitted" not in _body(client, bucket)

    def test_leaves_what_somebody_else_has_written_since(self, ledger: Ledger, client: S3Client) -> None:
        entry = ledger.write_intent(KEY, INTENT)
        theirs = ledger.replace(entry, OTHER)

        with _sent(client, "DeleteObject", lambda request: _answer(request, 403, "AccessDenied")):
            ledger.cancel_intent(entry)

        assert ledger.read(KEY) == theirs

    def test_is_not_marked_where_the_removal_s_answer_was_lost(
        self, ledger: Ledger, client: S3Client, bucket: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        entry = ledger.write_intent(KEY, INTENT)
        client.delete_object(Bucket=bucket, Key=KEY)

        with _sent(client, "DeleteObject", lambda request: _answer(request, 500, "InternalError")):
            ledger.cancel_intent(entry)

        assert ledger.read(KEY) is None
        assert len(_said(caplog)) == 1

    def test_of_which_nothing_can_be_told_is_warned_of(
        self, ledger: Ledger, client: S3Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        entry = ledger.write_intent(KEY, INTENT)

        def refuse(request: Any) -> AWSResponse:
            return _answer(request, 403, "AccessDenied")

        with _sent(client, "DeleteObject", refuse), _sent(client, "PutObject", refuse):
            ledger.cancel_intent(entry)

        assert ledger.read(KEY) == entry
        assert "though nothing was paid" in _said(caplog)[-1]


STORES = {"says so": _conditions_unknown, "is silent": _conditions_ignored}


@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
class TestNoConditions:
    """A store without conditional writes, whether it says so or not."""

    def test_is_used_with_a_warning(
        self, store: Any, ledger: Ledger, client: S3Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        with store(client):
            recorded = ledger.record_request(ledger.write_intent(KEY, INTENT), "r-1")
            assert ledger.read(KEY) == recorded
            replaced = ledger.replace(recorded, OTHER)
            assert ledger.read(KEY) == replaced
            ledger.delete(KEY, replaced.etag)
            assert ledger.read(KEY) is None

        warned = [record for record in caplog.records if "no conditional writes" in record.message]
        assert warned
        assert {record.levelno for record in warned} == {logging.WARNING}

    def test_a_paid_request_s_record_is_not_written_over(self, store: Any, ledger: Ledger, client: S3Client) -> None:
        paid = ledger.record_request(ledger.write_intent(KEY, INTENT), "r-1")

        with store(client), pytest.raises(RecordConflict):
            ledger.write_intent(KEY, OTHER)

        assert ledger.read(KEY) == paid


def test_a_store_that_says_so_is_asked_first_what_is_there(ledger: Ledger, client: S3Client) -> None:
    seen = ledger.write_intent(KEY, INTENT)
    current = ledger.record_request(seen, "r-1")

    with _conditions_unknown(client):
        with pytest.raises(RecordConflict):
            ledger.replace(seen, OTHER)
        ledger.delete(KEY, seen.etag)

    assert ledger.read(KEY) == current


def test_a_store_with_conditions_gives_no_warning(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    ledger.record_request(ledger.write_intent(KEY, INTENT), "r-1")
    assert _said(caplog) == []


def test_aws_is_known_to_have_conditions_and_costs_three_calls_an_image() -> None:
    client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="s")
    sent: list[tuple[str, str | None, str | None]] = []

    def answer(request: Any) -> AWSResponse:
        conditions = (request.headers.get(name) for name in ("If-None-Match", "If-Match"))
        sent.append((request.method, *(None if value is None else str(value, "ascii") for value in conditions)))
        return _answer(request, 200, headers={"ETag": f'"{len(sent)}"'})

    ledger = Ledger(client, "bucket")
    with _sent(client, "PutObject", answer), _sent(client, "DeleteObject", answer):
        entry = ledger.record_request(ledger.write_intent(KEY, INTENT), "r-1")
        ledger.delete(KEY, entry.etag)
    client.close()

    assert sent == [("PUT", "*", None), ("PUT", None, '"1"'), ("DELETE", None, '"2"')]


def test_without_a_ledger_everything_is_forgotten() -> None:
    ledger = NoLedger()
    assert (ledger.is_durable, Ledger.is_durable) == (False, True)
    key = ledger.key_of(Target("bucket", "images/lighthouse.png"), "owner")

    entry = ledger.record_request(ledger.write_intent(key, INTENT), "r-1")

    assert ledger.read(key) is None
    assert (entry.job.request_id, entry.job.record_key, entry.job.record_etag) == ("r-1", "", "")
    assert ledger.replace(entry, OTHER).intent == OTHER
    ledger.delete(key, entry.etag)
    ledger.cancel_intent(entry)
    assert ledger.write_intent(key, INTENT).request_id is None


def test_record_that_could_not_be_read_again_is_refused_before_it_is_written(client: S3Client, bucket: str) -> None:
    def sized(excess: int) -> Intent:
        empty = replace(INTENT, request=replace(INTENT.request, model_params={"image": ""}))
        length = _MAX_INTENT_BYTES - len(_written(LedgerRecord(KEY, "", empty))) + excess
        return replace(INTENT, request=replace(INTENT.request, model_params={"image": "x" * length}))

    ledger = Ledger(client, bucket)
    for write in (ledger.write_intent, lambda key, intent: ledger.replace(LedgerRecord(key, "etag", INTENT), intent)):
        with pytest.raises(IdeogramInvalidInput, match=r"nothing was sent or charged.*1,047,553 bytes in the ledger"):
            write(KEY, sized(1))
    assert ledger.read(KEY) is None
    recorded = ledger.record_request(ledger.write_intent(KEY, sized(0)), "r" * 128)
    assert ledger.read(KEY) == recorded
