"""The ledger against servers that fail, refuse calls or have no conditional writes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias
from unittest import mock

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.httpsession import URLLib3Session

from airflow_provider_ideogram.exceptions import IdeogramInvalidRecord, IdeogramLedgerError
from airflow_provider_ideogram.jobs.ledger import Ledger, RecordConflict
from airflow_provider_ideogram.storage.objects import ObjectStore
from dev.s3_server import S3Server
from tests.support.s3 import (
    answered,
    conditions_ignored,
    conditions_refused,
    deletions_misjudged,
    intercepted,
    s3_response,
    unprobed,
)
from tests.unit.jobs.ledger_data import INTENT, KEY, OTHER, RECORD, changed_record

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Store: TypeAlias = "Callable[[S3Client], AbstractContextManager[None]]"


class TestUnreadable:
    """A record that can't be read is never "no record", and nothing is submitted without a write."""

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
            changed_record(version=...),
            changed_record(request_id=...),
            changed_record(owner=...),
            b"[" * 100_000,
            changed_record(version=2),
            changed_record(version="1"),
            changed_record(request=None),
            changed_record(request={"prompt": ""}),
            changed_record(request={"prompt": "a lighthouse", "unknown": 1}),
            changed_record(submit_attempts="many"),
        ],
    )
    def test_record_that_cannot_be_parsed(self, body: bytes, ledger: Ledger, client: S3Client, bucket: str) -> None:
        client.put_object(Bucket=bucket, Key=KEY, Body=body)

        with pytest.raises(IdeogramInvalidRecord, match="is not valid"):
            ledger.read(KEY)

        with pytest.raises((RecordConflict, IdeogramLedgerError)):
            ledger.write_intent(KEY, INTENT)
        assert client.get_object(Bucket=bucket, Key=KEY)["Body"].read() == body

    def test_message_says_what_to_do(self, ledger: Ledger, client: S3Client, bucket: str) -> None:
        client.put_object(Bucket=bucket, Key=KEY, Body=changed_record(version=7))

        with pytest.raises(IdeogramLedgerError) as caught:
            ledger.read(KEY)

        for words in (f"s3://{bucket}/{KEY}", "version 7"):
            assert words in caught.value.reason
        for words in ("Nothing was submitted", "Restore the record's last version", "may be paid too"):
            assert words in caught.value.advice
        assert caught.value.charged is None

    @pytest.mark.parametrize("status", [403, 500, 503])
    def test_server_that_refuses_or_fails(self, status: int, ledger: Ledger, client: S3Client) -> None:
        record = ledger.write_intent(KEY, INTENT)
        code = "AccessDenied" if status == 403 else "InternalError"

        with (
            answered(client, "GetObject", status, code),
            pytest.raises(IdeogramLedgerError, match="Reading the ledger's record"),
        ):
            ledger.read(KEY)
        with answered(client, "PutObject", status, code):
            with pytest.raises(IdeogramLedgerError, match="Writing the ledger's record"):
                ledger.record_request(record, "r-1")
            with pytest.raises(IdeogramLedgerError, match="Writing the ledger's record"):
                ledger.replace(record, OTHER)
            with pytest.raises(IdeogramLedgerError, match="Writing the ledger's record"):
                ledger.write_intent("_ideogram/another.json", INTENT)
        assert ledger.read(KEY) == record

    def test_missing_bucket(self, client: S3Client) -> None:
        ledger = Ledger(ObjectStore(client), f"missing-{uuid.uuid4()}")

        with pytest.raises(IdeogramLedgerError, match="NoSuchBucket"):
            ledger.read(KEY)
        with pytest.raises(IdeogramLedgerError, match="NoSuchBucket"):
            ledger.write_intent(KEY, INTENT)

    def test_unreachable_server(self) -> None:
        client = S3Server("http://127.0.0.1:9").client()
        ledger = Ledger(ObjectStore(client), "bucket")

        with mock.patch("botocore.endpoint.time"):
            with pytest.raises(IdeogramLedgerError, match="Could not connect"):
                ledger.read(KEY)
            with pytest.raises(IdeogramLedgerError, match="Could not connect"):
                ledger.write_intent(KEY, INTENT)
        client.close()

    def test_record_that_cannot_be_deleted_stays(
        self, ledger: Ledger, client: S3Client, logged: Callable[[], list[str]]
    ) -> None:
        record = ledger.write_intent(KEY, INTENT)

        with answered(client, "DeleteObject", 403):
            ledger.delete(KEY, record.etag)

        assert ledger.read(KEY) == record
        [message] = logged()
        assert message.startswith(f"The ledger's record {KEY} could not be deleted: ")

    def test_write_that_took_effect_without_a_response_counts(self, ledger: Ledger, client: S3Client) -> None:
        """Otherwise an intent without a submit stays, and passes for an unknown submit."""
        record = ledger.write_intent(KEY, INTENT)

        def write_late(request: Any) -> AWSResponse:
            session = URLLib3Session()
            session.send(request)
            session.close()
            return s3_response(request, 500, "InternalError")

        with intercepted(client, "PutObject", write_late):
            recorded = ledger.record_request(record, "r-1")
            intended = ledger.write_intent("_ideogram/another.json", INTENT)

        assert ledger.read(KEY) == recorded
        assert ledger.read("_ideogram/another.json") == intended

    def test_probe_that_raises_leaves_no_intent(self, ledger: Ledger, client: S3Client) -> None:
        def fail(_: Any) -> None:
            raise KeyError("credentials")

        with intercepted(client, "PutObject", fail), pytest.raises(IdeogramLedgerError, match="credentials"):
            ledger.write_intent(KEY, INTENT)
        assert ledger.read(KEY) is None


class TestCancelIntent:
    """An intent whose submit was refused or never sent."""

    def test_intent_is_deleted(self, ledger: Ledger, client: S3Client) -> None:
        writes: list[Any] = []
        record = ledger.write_intent(KEY, INTENT)
        with intercepted(client, "PutObject", writes.append):
            ledger.cancel_intent(record)
        assert ledger.read(KEY) is None
        assert writes == []

    @pytest.mark.parametrize("status", [403, 500])
    def test_intent_that_cannot_be_deleted_is_marked(
        self, status: int, ledger: Ledger, client: S3Client, bucket: str
    ) -> None:
        def document() -> Any:
            return json.loads(client.get_object(Bucket=bucket, Key=KEY)["Body"].read())

        record = ledger.write_intent(KEY, INTENT)
        before = document()

        with answered(client, "DeleteObject", status):
            ledger.cancel_intent(record)

        marked = ledger.read(KEY)
        assert marked is not None
        assert marked == replace(record, etag=marked.etag, not_submitted=True)
        assert document() == {**before, "not_submitted": True}
        assert ledger.replace(marked, OTHER).not_submitted is False
        assert "not_submitted" not in document()

    def test_newer_version_is_not_marked(self, ledger: Ledger, client: S3Client) -> None:
        record = ledger.write_intent(KEY, INTENT)
        theirs = ledger.replace(record, OTHER)

        with answered(client, "DeleteObject", 403):
            ledger.cancel_intent(record)

        assert ledger.read(KEY) == theirs

    def test_deleted_intent_is_not_marked(
        self, ledger: Ledger, client: S3Client, bucket: str, logged: Callable[[], list[str]]
    ) -> None:
        record = ledger.write_intent(KEY, INTENT)
        client.delete_object(Bucket=bucket, Key=KEY)

        with answered(client, "DeleteObject", 500, "InternalError"):
            ledger.cancel_intent(record)

        assert ledger.read(KEY) is None
        assert len(logged()) == 1

    def test_intent_that_cannot_be_marked_is_logged(
        self, ledger: Ledger, client: S3Client, logged: Callable[[], list[str]]
    ) -> None:
        record = ledger.write_intent(KEY, INTENT)

        with answered(client, "DeleteObject", 403), answered(client, "PutObject", 403):
            ledger.cancel_intent(record)

        assert ledger.read(KEY) == record
        assert logged()[-1].endswith("It will count as an unknown submit, although nothing was submitted")


def _refused(status: int) -> Store:
    return lambda client: conditions_refused(client, status)


@pytest.mark.parametrize(
    "store",
    [_refused(400), _refused(405), _refused(501), conditions_ignored, deletions_misjudged],
    ids=["400", "405", "501", "ignored", "deletions answered 412"],
)
class TestStoreWithoutConditions:
    def test_record_is_written_replaced_and_deleted(self, store: Store, ledger: Ledger, client: S3Client) -> None:
        with store(client):
            recorded = ledger.record_request(ledger.write_intent(KEY, INTENT), "r-1")
            assert ledger.read(KEY) == recorded
            replaced = ledger.replace(recorded, OTHER)
            assert ledger.read(KEY) == replaced
            ledger.delete(KEY, replaced.etag)
            assert ledger.read(KEY) is None

    def test_record_of_a_paid_request_is_not_replaced(self, store: Store, ledger: Ledger, client: S3Client) -> None:
        with store(client):
            paid = ledger.record_request(ledger.write_intent(KEY, INTENT), "r-1")
            with pytest.raises(RecordConflict):
                ledger.write_intent(KEY, OTHER)

        assert ledger.read(KEY) == paid

    def test_newer_version_is_not_deleted(self, store: Store, ledger: Ledger, client: S3Client) -> None:
        with store(client):
            old = ledger.write_intent(KEY, INTENT)
            current = ledger.record_request(old, "r-1")
            ledger.delete(KEY, old.etag)

        assert ledger.read(KEY) == current


def test_record_is_compared_where_conditions_are_refused(ledger: Ledger, client: S3Client) -> None:
    old = ledger.write_intent(KEY, INTENT)
    current = ledger.record_request(old, "r-1")

    with conditions_refused(client):
        with pytest.raises(RecordConflict):
            ledger.replace(old, OTHER)
        ledger.delete(KEY, old.etag)

    assert ledger.read(KEY) == current


def test_store_that_cannot_be_probed_is_an_error(ledger: Ledger, client: S3Client) -> None:
    with (
        unprobed(),
        answered(client, "HeadObject", 503),
        pytest.raises(
            IdeogramLedgerError, match=r"Writing the ledger's record .* failed .Reading s3://.*AccessDenied"
        ) as caught,
    ):
        ledger.write_intent(KEY, INTENT)
    assert caught.value.advice.startswith("Nothing was submitted by this attempt")
    assert ledger.read(KEY) is None


def test_aws_takes_three_calls_for_an_image() -> None:
    client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="s")
    sent: list[tuple[str, str | None, str | None]] = []

    def answer(request: Any) -> AWSResponse:
        none_match, match = (request.headers.get(name) for name in ("If-None-Match", "If-Match"))
        sent.append((request.method, none_match and str(none_match, "ascii"), match and str(match, "ascii")))
        return s3_response(request, 200, headers={"ETag": f'"{len(sent)}"'})

    ledger = Ledger(ObjectStore(client), "bucket")
    with intercepted(client, "PutObject", answer), intercepted(client, "DeleteObject", answer):
        record = ledger.record_request(ledger.write_intent(KEY, INTENT), "r-1")
        ledger.delete(KEY, record.etag)
    client.close()

    assert sent == [("PUT", "*", None), ("PUT", None, '"1"'), ("DELETE", None, '"2"')]
