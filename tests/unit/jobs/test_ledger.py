"""The ledger against an S3 server on a socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger, RecordConflict
from airflow_provider_ideogram.jobs.record import MAX_INTENT_BYTES, Intent, LedgerRecord, body_of
from airflow_provider_ideogram.storage.image_record import iso_utc
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target
from tests.support.s3 import answered, intercepted, response_lost, s3_response
from tests.unit.jobs.ledger_data import INTENT, KEY, OTHER, RECORD, SENT

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def _document(client: S3Client, bucket: str) -> Any:
    return json.loads(client.get_object(Bucket=bucket, Key=KEY)["Body"].read())


class TestRecord:
    def test_record_from_intent_to_deletion(self, ledger: Ledger, client: S3Client, bucket: str) -> None:
        assert ledger.read(KEY) is None

        intended = ledger.write_intent(KEY, INTENT)
        assert ledger.read(KEY) == intended == LedgerRecord(KEY, intended.etag, INTENT, None)

        recorded = ledger.record_request(intended, "r-1")
        assert ledger.read(KEY) == recorded == LedgerRecord(KEY, recorded.etag, INTENT, "r-1")
        assert recorded.etag != intended.etag

        ledger.delete(KEY, recorded.etag)
        assert ledger.read(KEY) is None
        assert "Contents" not in client.list_objects_v2(Bucket=bucket)

    def test_job_has_all_that_another_process_needs(self, ledger: Ledger) -> None:
        record = ledger.record_request(ledger.write_intent(KEY, INTENT), "r-1")

        job = record.job

        assert (job.request_id, job.submitted_at, job.request) == ("r-1", INTENT.intent_at, INTENT.request)
        assert (job.fingerprint, job.target) == (INTENT.fingerprint, INTENT.target)
        assert (job.record_key, job.record_etag, job.paid_by_other_task) == (KEY, record.etag, False)

    def test_intent_is_no_job(self, ledger: Ledger) -> None:
        with pytest.raises(ValueError, match="no request id"):
            _ = ledger.write_intent(KEY, INTENT).job

    def test_new_intent_replaces_an_ended_request(self, ledger: Ledger) -> None:
        ended = ledger.record_request(ledger.write_intent(KEY, INTENT), "r-1")

        record = ledger.replace(ended, OTHER)

        assert ledger.read(KEY) == record == LedgerRecord(KEY, record.etag, OTHER, None)

    @pytest.mark.parametrize("request_id", ["r-2", None])
    def test_image_of_another_request_is_not_the_records(self, request_id: str | None) -> None:
        record = LedgerRecord(KEY, "", INTENT, "r-1")
        assert not record.is_of_image(request_id, iso_utc(INTENT.intent_at))
        assert record.is_of_image("r-1", None)

    def test_image_of_an_intent_is_told_by_its_time(self) -> None:
        record = LedgerRecord(KEY, "", INTENT)
        for submitted_at in (None, iso_utc(INTENT.intent_at + 1)):
            assert not record.is_of_image("r-1", submitted_at)
        assert record.is_of_image("r-1", iso_utc(INTENT.intent_at))


class TestConflicts:
    def test_intent_conflicts_with_an_existing_record(self, ledger: Ledger) -> None:
        first = ledger.write_intent(KEY, INTENT)

        with pytest.raises(RecordConflict):
            ledger.write_intent(KEY, OTHER)

        assert ledger.read(KEY) == first

    def test_one_of_simultaneous_intents_is_written(self, ledger: Ledger) -> None:
        barrier = threading.Barrier(6)
        written: list[LedgerRecord] = []
        conflicts: list[int] = []

        def write(number: int) -> None:
            intent = replace(INTENT, owner=f"task-{number}")
            barrier.wait()
            try:
                written.append(ledger.write_intent(KEY, intent))
            except RecordConflict:
                conflicts.append(number)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert (len(written), len(conflicts)) == (1, 5)
        assert ledger.read(KEY) == written[0]

    @pytest.mark.parametrize("write", ["replace", "record_request"])
    def test_write_conflicts_with_a_newer_version(self, write: str, ledger: Ledger) -> None:
        old = ledger.write_intent(KEY, INTENT)
        current = ledger.record_request(old, "r-1")

        with pytest.raises(RecordConflict):
            ledger.replace(old, OTHER) if write == "replace" else ledger.record_request(old, "r-2")

        assert ledger.read(KEY) == current

    @pytest.mark.parametrize("write", ["replace", "record_request"])
    def test_write_conflicts_with_a_deletion(self, write: str, ledger: Ledger) -> None:
        deleted = ledger.write_intent(KEY, INTENT)
        ledger.delete(KEY, deleted.etag)

        with pytest.raises(RecordConflict):
            ledger.replace(deleted, OTHER) if write == "replace" else ledger.record_request(deleted, "r-1")

        assert ledger.read(KEY) is None

    def test_deletion_leaves_a_newer_version(self, ledger: Ledger, logged: Callable[[], list[str]]) -> None:
        mine = ledger.record_request(ledger.write_intent(KEY, INTENT), "r-1")
        theirs = ledger.replace(mine, OTHER)

        ledger.delete(KEY, mine.etag)

        assert ledger.read(KEY) == theirs
        assert logged() == []

    def test_deleting_twice_is_no_error(self, ledger: Ledger, logged: Callable[[], list[str]]) -> None:
        record = ledger.write_intent(KEY, INTENT)
        ledger.delete(KEY, record.etag)

        ledger.delete(KEY, record.etag)

        assert logged() == []

    def test_status_409_is_a_conflict(self, ledger: Ledger, client: S3Client) -> None:
        ledger.write_intent("_ideogram/another.json", INTENT)  # probes the store
        conflict = "ConditionalRequestConflict"
        with answered(client, "PutObject", 409, conflict), pytest.raises(RecordConflict):
            ledger.write_intent(KEY, INTENT)

    @pytest.mark.parametrize("status", [409, 412])
    def test_single_refusal_whose_condition_holds_is_repeated(
        self, status: int, ledger: Ledger, client: S3Client
    ) -> None:
        def once(operation: str) -> AbstractContextManager[None]:
            answers = [status]
            return intercepted(
                client, operation, lambda request: s3_response(request, answers.pop(), "Conflict") if answers else None
            )

        ledger.check_store()
        with once("PutObject"):
            intended = ledger.write_intent(KEY, INTENT)
        with once("PutObject"):
            recorded = ledger.record_request(intended, "r-1")
        assert ledger.read(KEY) == recorded
        with once("DeleteObject"):
            ledger.delete(KEY, recorded.etag)
        assert ledger.read(KEY) is None

    def test_deletion_that_conflicts_for_good_is_marked(self, ledger: Ledger, client: S3Client) -> None:
        record = ledger.write_intent(KEY, INTENT)
        with answered(client, "DeleteObject", 409):
            ledger.cancel_intent(record)
        marked = ledger.read(KEY)
        assert marked is not None
        assert marked.not_submitted


class TestLostResponse:
    """S3 writes the record and its response is lost: botocore repeats the call, which conflicts with its own write."""

    def test_intent_is_recognized(self, ledger: Ledger, client: S3Client) -> None:
        with response_lost(client, "PutObject") as statuses:
            record = ledger.write_intent(KEY, INTENT)

        assert statuses == [200]
        assert ledger.read(KEY) == record
        assert record.intent == INTENT

    def test_request_id_is_recognized(self, ledger: Ledger, client: S3Client) -> None:
        record = ledger.write_intent(KEY, INTENT)

        with response_lost(client, "PutObject"):
            recorded = ledger.record_request(record, "r-1")

        assert ledger.read(KEY) == recorded
        assert recorded.request_id == "r-1"

    def test_new_intent_is_recognized(self, ledger: Ledger, client: S3Client) -> None:
        ended = ledger.record_request(ledger.write_intent(KEY, INTENT), "r-1")

        with response_lost(client, "PutObject"):
            replaced = ledger.replace(ended, OTHER)

        assert ledger.read(KEY) == replaced
        assert (replaced.intent, replaced.request_id) == (OTHER, None)


class TestKeys:
    def test_key_has_one_record_for_all_tasks(self, client: S3Client) -> None:
        ledger, target = Ledger(ObjectStore(client), "bucket"), Target("bucket", "images/lighthouse.png")
        assert ledger.key_of(target, "a") == ledger.key_of(target, "b") == KEY

    def test_prefix_has_a_record_for_each_task_instance(self, client: S3Client) -> None:
        ledger, target = Ledger(ObjectStore(client), "bucket"), Target("bucket", "images/")
        keys = {ledger.key_of(target, owner) for owner in ("dag/run/task/0", "dag/run/task/1", "dag/run2/task/0")}
        assert len(keys) == 3
        assert all(key.startswith("_ideogram/images/") and key.endswith(".json") for key in keys)
        assert ledger.key_of(target, "dag/run/task/0") in keys

    def test_prefix_of_the_ledger_is_an_argument(self, client: S3Client) -> None:
        ledger = Ledger(ObjectStore(client), "bucket", "private/ledger/")
        assert ledger.key_of(Target("bucket", "a.png"), "x") == "private/ledger/a.png.json"


class TestFormat:
    """The format of a record, in this version and in later ones."""

    def test_record_of_the_first_version_is_read(self, ledger: Ledger, client: S3Client, bucket: str) -> None:
        client.put_object(Bucket=bucket, Key=KEY, Body=RECORD.encode())

        record = ledger.read(KEY)

        assert record is not None
        assert record.intent == replace(INTENT, fingerprint=json.loads(RECORD)["fingerprint"])
        assert record.request_id == "11111111-2222-4333-8444-555555555555"

    def test_record_is_written_in_the_same_format(self, ledger: Ledger, client: S3Client, bucket: str) -> None:
        expected = json.loads(RECORD)
        intent = replace(INTENT, fingerprint=expected["fingerprint"])

        ledger.record_request(ledger.write_intent(KEY, intent), expected["request_id"])

        assert _document(client, bucket) == expected
        assert client.head_object(Bucket=bucket, Key=KEY)["ContentType"] == "application/json"

    def test_intent_has_no_request_id(self, ledger: Ledger, client: S3Client, bucket: str) -> None:
        ledger.write_intent(KEY, INTENT)
        assert _document(client, bucket)["request_id"] is None

    def test_optional_fields_are_read_back(self, ledger: Ledger, client: S3Client, bucket: str) -> None:
        intent = replace(
            INTENT, excluded_request_ids=("r-0",), submit_attempts=2, submits_before=1, unsettled_since=1.5
        )
        record = ledger.write_intent(KEY, intent)
        assert ledger.read(KEY) == record
        document = _document(client, bucket)
        assert (document["excluded_request_ids"], document["submit_attempts"]) == (["r-0"], 2)
        assert document["unsettled_since"] == 1.5


def test_without_a_ledger_nothing_is_kept() -> None:
    ledger = NoLedger()
    assert (ledger.is_durable, Ledger.is_durable) == (False, True)
    key = ledger.key_of(Target("bucket", "images/lighthouse.png"), "owner")

    record = ledger.record_request(ledger.write_intent(key, INTENT), "r-1")

    assert ledger.read(key) is None  # type: ignore[func-returns-value]
    assert (record.job.request_id, record.job.record_key, record.job.record_etag) == ("r-1", "", "")
    assert ledger.replace(record, OTHER) == LedgerRecord(key, "", OTHER)
    ledger.delete(key, record.etag)
    ledger.cancel_intent(record)
    assert ledger.write_intent(key, INTENT).request_id is None


def test_record_too_large_to_be_read_is_not_written(client: S3Client, bucket: str) -> None:
    def sized(excess: int) -> Intent:
        empty = replace(INTENT, request=replace(SENT, model_params={"image": ""}))
        length = MAX_INTENT_BYTES - len(body_of(LedgerRecord(KEY, "", empty))) + excess
        return replace(INTENT, request=replace(SENT, model_params={"image": "x" * length}))

    ledger = Ledger(ObjectStore(client), bucket)
    for write in (ledger.write_intent, lambda key, intent: ledger.replace(LedgerRecord(key, "etag", INTENT), intent)):
        with pytest.raises(IdeogramInvalidInput, match=r"1,047,553 bytes in the ledger.*Nothing was sent or charged"):
            write(KEY, sized(1))
    assert ledger.read(KEY) is None
    recorded = ledger.record_request(ledger.write_intent(KEY, sized(0)), "r" * 128)
    assert ledger.read(KEY) == recorded
