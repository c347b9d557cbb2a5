"""
The ledger: what was, or may have been, paid for an image that is not stored yet.

Invariant: a record is in S3 before the submit that it speaks of, and stays until the image is stored or the
request is dead. Each write says what it replaces, so that of two tasks that aim at the same target one only can
submit. A record that cannot be read is an error, never "no record".
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramLedgerError
from airflow_provider_ideogram.jobs.identity import attempt_group
from airflow_provider_ideogram.storage.target import DEFAULT_LEDGER_PREFIX, Target

log = logging.getLogger(__name__)

#: The form of the records. Whoever changes it keeps reading the older ones.
VERSION = 1
_MAX_BYTES = 1 << 20
#: Leaves room for the request's id, which is added when the request is paid.
_MAX_INTENT_BYTES = _MAX_BYTES - 1024
_PRECONDITION_FAILED = 412
#: S3's answer where two conditional writes met.
_CONFLICT = 409
#: The answer of a store that does not know conditional writes, and says so.
_NOT_IMPLEMENTED = 501
_NO_CONDITIONS = "The S3 store has no conditional writes: two tasks that aim at the same key at once may both pay"
#: Where conditional writes are known to work.
_AWS = (".amazonaws.com", ".amazonaws.com.cn")


@dataclass(frozen=True, slots=True)
class Intent:
    """
    The will to pay for an image, written before the submit.

    :param request: What will be sent, the drawn seed included.
    :param fingerprint: The fingerprint of what the user asked for, before a seed was drawn.
    :param target: The address ``s3://bucket/key`` where the image goes.
    :param intent_at: When, in seconds since the epoch; taken as the time of the submit.
    :param owner: Who: ``dag_id/run_id/task_id/map_index``.
    :param max_tries: The task's, which changes when a person clears it.
    :param excluded_request_ids: Ended requests with the same inputs: the history must not take them for this one.
    """

    request: GenerationRequest
    fingerprint: str
    target: str
    intent_at: float
    owner: str
    max_tries: int
    excluded_request_ids: tuple[str, ...] = ()

    @property
    def attempt_group(self) -> str:
        """The task's attempts up to the next time that a person clears it, as a digest for the image's metadata."""
        return attempt_group(self.owner, self.max_tries)


@dataclass(frozen=True, slots=True)
class LedgerRecord:
    """
    A record as it is in S3.

    :param key: The record's own key.
    :param etag: Which version of it this is.
    :param intent: Who wants what.
    :param request_id: The vendor's id of the job; None means that nobody knows whether it was submitted.
    :param not_submitted: Whether it certainly was not, though the record could not be removed: the target is free.
    """

    key: str
    etag: str
    intent: Intent
    request_id: str | None = None
    not_submitted: bool = False

    @property
    def job(self) -> Job:
        """The job that was submitted. There is one only where the request id is known."""
        if self.request_id is None:
            raise ValueError("no request id is known")
        intent = self.intent
        return Job(
            self.request_id,
            intent.intent_at,
            intent.request,
            intent.fingerprint,
            intent.target,
            record_key=self.key,
            record_etag=self.etag,
            attempt_group=intent.attempt_group,
        )


class RecordConflict(Exception):
    """The record is not, or no longer, what the write was to replace."""


class Ledger:
    """
    The records of one bucket.

    :param client: boto3's S3 client.
    :param bucket: The bucket of the images.
    :param prefix: What the records' keys start with.
    """

    is_durable = True

    def __init__(self, client: Any, bucket: str, prefix: str = DEFAULT_LEDGER_PREFIX) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def key_of(self, target: Target, owner: str) -> str:
        """
        Return the key of a target's record.

        The images of a prefix are named for their requests, so there each task instance has a record of its own.
        """
        own = hashlib.sha256(owner.encode()).hexdigest() if target.is_prefix else ""
        return f"{self._prefix}{target.key}{own}.json"

    def write_intent(self, key: str, intent: Intent) -> LedgerRecord:
        """
        Write the intent where there is no record yet.

        :raises RecordConflict: If there is one.
        :raises IdeogramInvalidInput: If the inputs are too large for a record.
        :raises IdeogramLedgerError: If S3 does not take it; nothing may be paid then.
        """
        _check_size(key, intent)
        known = urlsplit(self._client.meta.endpoint_url).netloc.endswith(_AWS)
        if not known and self.read(key) is not None:  # a store that ignores conditions would write over it
            raise RecordConflict
        entry = self._put(LedgerRecord(key, "", intent), {"IfNoneMatch": "*"})
        if not known:
            self._check_conditions(entry)
        return entry

    def read(self, key: str) -> LedgerRecord | None:
        """Return the record, None if there certainly is none; raise IdeogramLedgerError if nobody can tell."""
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            body = answer["Body"].read(_MAX_BYTES)
        except ClientError as error:
            if _code(error) == "NoSuchKey":
                return None
            raise self._error("reading", key, error) from error
        except Exception as error:  # whatever went wrong: it must not count as "no record"
            raise self._error("reading", key, error) from error
        try:
            return _entry(key, answer["ETag"], body)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise self._error("understanding", key, error) from error

    def replace(self, entry: LedgerRecord, intent: Intent) -> LedgerRecord:
        """Write a new intent over a record whose request is dead or given up; raises as :meth:`write_intent` does."""
        _check_size(entry.key, intent)
        return self._put(LedgerRecord(entry.key, "", intent), {"IfMatch": entry.etag})

    def record_request(self, entry: LedgerRecord, request_id: str) -> LedgerRecord:
        """Write the request's id to the intent; raises as :meth:`write_intent` does."""
        return self._put(replace(entry, request_id=request_id), {"IfMatch": entry.etag})

    def delete(self, key: str, etag: str) -> None:
        """
        Remove the record of a request whose image is stored, or that is dead.

        One that somebody else has written since stays. One that can't be removed names its request: whoever reads it
        next finds out what became of that.
        """
        self._remove(key, etag)

    def cancel_intent(self, entry: LedgerRecord) -> None:
        """
        Remove an intent that was not paid: its submit was refused, or never sent.

        One that can't be removed is marked, since nobody could tell it from one whose submit was not answered.
        """
        if self._remove(entry.key, entry.etag):
            return
        try:
            with suppress(RecordConflict):  # it is somebody else's by now, or gone after all
                self._put(replace(entry, not_submitted=True), {"IfMatch": entry.etag})
        except IdeogramLedgerError as error:
            log.warning("%s. It will be taken for a submit that nobody answered, though nothing was paid", error.reason)

    def delete_for_request(self, key: str, request_id: str | None) -> None:
        """Remove the record of a request whose image is stored, if there still is one."""
        entry = self.read(key)
        if entry is not None and entry.request_id is not None and entry.request_id == request_id:
            self.delete(key, entry.etag)

    def _remove(self, key: str, etag: str) -> bool:
        """Return whether this version of the record is gone, by whomever."""
        try:
            self._delete(key, etag)
        except Exception as error:
            if not isinstance(error, ClientError) or _status(error) not in (_PRECONDITION_FAILED, 404):
                log.warning("The ledger's record %s could not be removed: %s", key, error)
                return False
        return True

    def _delete(self, key: str, etag: str) -> None:
        try:
            self._client.delete_object(Bucket=self._bucket, Key=key, IfMatch=etag)
        except ClientError as error:
            if _status(error) != _NOT_IMPLEMENTED:
                raise
            there = self.read(key)
            if there is not None and there.etag == etag:
                self._client.delete_object(Bucket=self._bucket, Key=key)

    def _put(self, entry: LedgerRecord, condition: Mapping[str, str]) -> LedgerRecord:
        try:
            return replace(entry, etag=self._write(entry, condition))
        except ClientError as error:
            if _status(error) in (_PRECONDITION_FAILED, _CONFLICT) or _code(error) == "NoSuchKey":
                return self._own(entry, error)
            if condition and _status(error) == _NOT_IMPLEMENTED:
                return self._put_unconditionally(entry, condition)
            raise self._error("writing", entry.key, error) from error
        except Exception as error:
            raise self._error("writing", entry.key, error) from error

    def _write(self, entry: LedgerRecord, condition: Mapping[str, str]) -> str:
        where = {"Bucket": self._bucket, "Key": entry.key, "Body": _body(entry), "ContentType": "application/json"}
        etag: str = self._client.put_object(**where, **condition)["ETag"]
        return etag

    def _own(self, entry: LedgerRecord, error: ClientError) -> LedgerRecord:
        """Return the record if it is this very one: S3 wrote it and its answer was lost, so it was written again."""
        there = self.read(entry.key)
        if there is None or replace(there, etag=entry.etag) != entry:
            raise RecordConflict from error
        return there

    def _check_conditions(self, entry: LedgerRecord) -> None:
        """Write the record once more: a store that takes it does not look at conditions, and never says so."""
        try:
            self._write(entry, {"IfNoneMatch": "*"})
        except (ClientError, BotoCoreError):
            return  # refused, as it should be; and a store that fails now says nothing about its conditions
        log.warning(_NO_CONDITIONS)

    def _put_unconditionally(self, entry: LedgerRecord, condition: Mapping[str, str]) -> LedgerRecord:
        """Write where S3 can't compare: looking first leaves only a moment in which two tasks can both pay."""
        log.warning(_NO_CONDITIONS)
        there = self.read(entry.key)
        if (there.etag if there else None) != condition.get("IfMatch"):
            raise RecordConflict
        return self._put(entry, {})

    def _error(self, doing: str, key: str, error: Exception) -> IdeogramLedgerError:
        return IdeogramLedgerError(
            f"The ledger's record s3://{self._bucket}/{key} stands in the way: {doing} it failed ({error})",
            "Nothing is submitted without it, since a request may be paid already. Give the worker's role access to "
            f"{self._prefix}*, also where a bucket policy demands encryption headers, or set durable=False.",
        )


class NoLedger:
    """What ``durable=False`` writes to: it forgets, and so a job lives in this execution only."""

    is_durable = False

    def key_of(self, target: Target, owner: str) -> str:  # noqa: ARG002
        """Return the key of no record."""
        return ""

    def write_intent(self, key: str, intent: Intent) -> LedgerRecord:
        """Return a record that is nowhere."""
        return LedgerRecord(key, "", intent)

    def read(self, key: str) -> None:
        """Return None."""

    def replace(self, entry: LedgerRecord, intent: Intent) -> LedgerRecord:
        """Return a record that is nowhere."""
        return replace(entry, intent=intent)

    def record_request(self, entry: LedgerRecord, request_id: str) -> LedgerRecord:
        """Return a record that is nowhere."""
        return replace(entry, request_id=request_id)

    def delete(self, key: str, etag: str) -> None:
        """Do nothing."""

    def cancel_intent(self, entry: LedgerRecord) -> None:
        """Do nothing."""

    def delete_for_request(self, key: str, request_id: str | None) -> None:
        """Do nothing."""


def _check_size(key: str, intent: Intent) -> None:
    """Raise IdeogramInvalidInput for an intent whose record, or its next one, would be too large to be read."""
    size = len(_body(LedgerRecord(key, "", intent)))
    if size > _MAX_INTENT_BYTES:
        raise IdeogramInvalidInput.of(
            [
                f"the inputs take {size:,} bytes in the ledger, which reads {_MAX_INTENT_BYTES:,} at most; give "
                "model_params the address of an image in place of its data"
            ]
        )


def _body(entry: LedgerRecord) -> bytes:
    document = {
        "version": VERSION,
        "request_id": entry.request_id,
        **({"not_submitted": True} if entry.not_submitted else {}),
        **{name: value for name, value in asdict(entry.intent).items() if name != "excluded_request_ids" or value},
        "request": entry.intent.request.inputs(),
    }
    return json.dumps(document, ensure_ascii=False).encode()


def _entry(key: str, etag: str, body: bytes) -> LedgerRecord:
    document = json.loads(body)
    if document["version"] != VERSION:
        raise ValueError(f"it has version {document['version']!r}, and {VERSION} is known")
    known = {item.name: document[item.name] for item in fields(Intent) if item.name != "excluded_request_ids"}
    excluded = tuple(document.get("excluded_request_ids", ()))
    request = GenerationRequest.from_inputs(document["request"])
    intent = Intent(**{**known, "request": request, "excluded_request_ids": excluded})
    return LedgerRecord(key, etag, intent, document["request_id"], not_submitted=document.get("not_submitted") is True)


def _status(error: ClientError) -> int:
    status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status


def _code(error: ClientError) -> str:
    code: str = error.response.get("Error", {}).get("Code", "")
    return code
