"""
The ledger: records of requests that were, or may have been, submitted for images that are not stored yet.

Invariant: a record is in S3 before its submit, and stays until the image is stored or the request has failed. Each
write names the version that it replaces, so that of two tasks with the same target only one submits. A record that
cannot be read is an error, never "no record".
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramLedgerError, IdeogramStorageError
from airflow_provider_ideogram.jobs.identity import attempt_group
from airflow_provider_ideogram.storage.objects import ConditionsNotSupported, ObjectStore, PreconditionFailed
from airflow_provider_ideogram.storage.probe import StoreProbe
from airflow_provider_ideogram.storage.target import DEFAULT_LEDGER_PREFIX, Target

log = logging.getLogger(__name__)

#: The version of the records' format. A change must keep older versions readable.
VERSION = 1
_MAX_BYTES = 1 << 20
#: Leaves room for the request id, which is added after the submit.
_MAX_INTENT_BYTES = _MAX_BYTES - 1024
#: Fields of the intent that a record has only if they differ from the default.
_OPTIONAL = ("excluded_request_ids", "submit_attempts")


@dataclass(frozen=True, slots=True)
class Intent:
    """
    The intent to submit a request.

    :param request: What will be sent, the drawn seed included.
    :param fingerprint: The fingerprint of what the user asked for, before a seed was drawn.
    :param target: The address ``s3://bucket/key`` where the image goes.
    :param intent_at: When it was written, in seconds since the epoch; taken as the time of the submit.
    :param owner: The task instance: ``dag_id/run_id/task_id/map_index``.
    :param max_tries: The task instance's, which changes on a clear.
    :param excluded_request_ids: Ended requests with the same inputs: the history must not take them for this one.
    :param submit_attempts: Submits of it that were answered 500, 502 or 503, the last one included.
    """

    request: GenerationRequest
    fingerprint: str
    target: str
    intent_at: float
    owner: str
    max_tries: int
    excluded_request_ids: tuple[str, ...] = ()
    submit_attempts: int = 0

    @property
    def attempt_group(self) -> str:
        """The attempts of the task instance between two clears, as a digest for the image's metadata."""
        return attempt_group(self.owner, self.max_tries)


@dataclass(frozen=True, slots=True)
class LedgerRecord:
    """
    A record as it is in S3.

    :param key: The record's own key.
    :param etag: Its version.
    :param intent: The intent.
    :param request_id: The vendor's id of the request; None if it is unknown whether the request was submitted.
    :param not_submitted: Whether it certainly was not submitted, though the record could not be deleted.
    """

    key: str
    etag: str
    intent: Intent
    request_id: str | None = None
    not_submitted: bool = False

    @property
    def job(self) -> Job:
        """The submitted request; raises ValueError if the record has no request id."""
        if self.request_id is None:
            raise ValueError("the record has no request id")
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
    """The record is not, or no longer, the version that the write names."""


class Ledger:
    """
    The records of one bucket.

    :param objects: The S3 layer.
    :param bucket: The bucket of the images.
    :param prefix: The prefix of the records' keys.
    """

    is_durable = True

    def __init__(self, objects: ObjectStore, bucket: str, prefix: str = DEFAULT_LEDGER_PREFIX) -> None:
        self._objects = objects
        self._probe = StoreProbe(objects, bucket, prefix)
        self._bucket = bucket
        self._prefix = prefix

    def key_of(self, target: Target, owner: str) -> str:
        """
        Return the key of a target's record.

        The images below a prefix are named after their requests, so there each task instance has its own record.
        """
        own = hashlib.sha256(owner.encode()).hexdigest() if target.is_prefix else ""
        return f"{self._prefix}{target.key}{own}.json"

    def check_store(self) -> None:
        """
        Find out, once and before a submit, what the store supports.

        :raises IdeogramInvalidInput: If the bucket refuses an argument of ``s3_extra_args``, or requires another.
        :raises IdeogramLedgerError: If nothing can be written or read.
        """
        try:
            self._probe.run()
        except IdeogramStorageError as error:
            raise self._error("writing", f"{self._prefix}*", error) from error

    def write_intent(self, key: str, intent: Intent) -> LedgerRecord:
        """
        Write the first record of a target.

        :raises RecordConflict: If there is a record.
        :raises IdeogramInvalidInput: If the inputs are too large for a record.
        :raises IdeogramLedgerError: If S3 does not accept it; nothing may be submitted then.
        """
        _check_size(key, intent)
        self.check_store()
        return self._put(LedgerRecord(key, "", intent), if_match=None)

    def read(self, key: str) -> LedgerRecord | None:
        """Return the record, None if it is missing; raise IdeogramLedgerError if it can't be read or understood."""
        try:
            stored = self._objects.get(self._bucket, key, max_bytes=_MAX_BYTES)
        except Exception as error:  # any failure: it must not count as "no record"
            raise self._error("reading", key, error) from error
        if stored is None:
            return None
        try:
            return _parse(key, stored.etag, stored.body)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise self._error("understanding", key, error) from error

    def replace(self, record: LedgerRecord, intent: Intent) -> LedgerRecord:
        """Replace a record by a new intent; raises as :meth:`write_intent` does."""
        _check_size(record.key, intent)
        self.check_store()
        return self._put(LedgerRecord(record.key, "", intent), if_match=record.etag)

    def record_request(self, record: LedgerRecord, request_id: str) -> LedgerRecord:
        """Add the id of a submitted request to its intent; raises RecordConflict or IdeogramLedgerError."""
        return self._put(replace(record, request_id=request_id), if_match=record.etag)

    def delete(self, key: str, etag: str) -> None:
        """
        Delete the record of a request whose image is stored, or that failed.

        A newer version of the record stays. A record that can't be deleted names its request, so that the next attempt
        finds out its state.
        """
        self._remove(key, etag)

    def cancel_intent(self, record: LedgerRecord) -> None:
        """
        Delete an intent whose submit was refused or never sent.

        If it can't be deleted it is marked, since it would pass for an unknown submit.
        """
        if self._remove(record.key, record.etag):
            return
        try:
            with suppress(RecordConflict):  # another task replaced it, or it is deleted after all
                self._put(replace(record, not_submitted=True), if_match=record.etag)
        except IdeogramLedgerError as error:
            log.warning("%s. It will count as an unknown submit, although nothing was submitted", error.reason)

    def delete_for_request(self, key: str, request_id: str | None) -> None:
        """Delete the record if it is of this request, whose image is stored."""
        record = self.read(key)
        if record is not None and record.request_id is not None and record.request_id == request_id:
            self.delete(key, record.etag)

    def _remove(self, key: str, etag: str) -> bool:
        """Return whether this version of the record no longer exists."""
        try:
            self._delete(key, etag)
        except PreconditionFailed:
            return True
        except Exception as error:
            log.warning("The ledger's record %s could not be deleted: %s", key, error)
            return False
        return True

    def _delete(self, key: str, etag: str) -> None:
        try:
            self._objects.delete(self._bucket, key, if_match=etag)
        except ConditionsNotSupported:
            current = self.read(key)
            if current is not None and current.etag == etag:
                self._objects.delete(self._bucket, key)

    def _put(self, record: LedgerRecord, *, if_match: str | None, conditional: bool = True) -> LedgerRecord:
        """Write the record over the version ``if_match``, or where there is none."""
        try:
            return replace(record, etag=self._write(record, if_match, conditional=conditional))
        except PreconditionFailed as error:
            return self._written_before(record, error)
        except ConditionsNotSupported:
            return self._put_unconditionally(record, if_match)
        except Exception as error:
            raise self._error("writing", record.key, error) from error

    def _write(self, record: LedgerRecord, if_match: str | None, *, conditional: bool = True) -> str:
        etag: str = self._objects.put(
            self._bucket,
            record.key,
            _body(record),
            if_match=if_match if conditional else None,
            if_missing=conditional and if_match is None,
            ContentType="application/json",
        )["ETag"]
        return etag

    def _written_before(self, record: LedgerRecord, error: PreconditionFailed) -> LedgerRecord:
        """Return the record if this very write took effect: S3's response was lost, and botocore wrote again."""
        current = self.read(record.key)
        if current is None or replace(current, etag=record.etag) != record:
            raise RecordConflict from error
        return current

    def _put_unconditionally(self, record: LedgerRecord, if_match: str | None) -> LedgerRecord:
        """Write where S3 has no conditions: reading first leaves a moment in which two tasks can both pay."""
        current = self.read(record.key)
        if (current.etag if current else None) != if_match:
            raise RecordConflict
        return self._put(record, if_match=if_match, conditional=False)

    def _error(self, doing: str, key: str, error: Exception) -> IdeogramLedgerError:
        cause = error.reason if isinstance(error, IdeogramStorageError) else error
        return IdeogramLedgerError(
            f"{doing.capitalize()} the ledger's record s3://{self._bucket}/{key} failed ({cause})",
            "Nothing was submitted by this attempt; a request may have been submitted earlier. Give the worker's role "
            f"access to {self._prefix}*, and s3_extra_args the encryption that the bucket's policy requires, such as "
            "ServerSideEncryption, or set durable=False.",
            charged=None,
        )


class NoLedger:
    """The ledger of ``durable=False``: it keeps nothing, so that a request is known in this execution only."""

    is_durable = False

    def key_of(self, target: Target, owner: str) -> str:  # noqa: ARG002
        """Return an empty key."""
        return ""

    def check_store(self) -> None:
        """Do nothing."""

    def write_intent(self, key: str, intent: Intent) -> LedgerRecord:
        """Return a record that is not stored."""
        return LedgerRecord(key, "", intent)

    def read(self, key: str) -> None:
        """Return None."""

    def replace(self, record: LedgerRecord, intent: Intent) -> LedgerRecord:
        """Return a record that is not stored."""
        return LedgerRecord(record.key, "", intent)

    def record_request(self, record: LedgerRecord, request_id: str) -> LedgerRecord:
        """Return a record that is not stored."""
        return replace(record, request_id=request_id)

    def delete(self, key: str, etag: str) -> None:
        """Do nothing."""

    def cancel_intent(self, record: LedgerRecord) -> None:
        """Do nothing."""

    def delete_for_request(self, key: str, request_id: str | None) -> None:
        """Do nothing."""


def _check_size(key: str, intent: Intent) -> None:
    """Raise IdeogramInvalidInput for an intent whose record would be too large to be read."""
    size = len(_body(LedgerRecord(key, "", intent)))
    if size > _MAX_INTENT_BYTES:
        raise IdeogramInvalidInput.of(
            [
                f"the inputs take {size:,} bytes in the ledger, which reads at most {_MAX_INTENT_BYTES:,}; pass the "
                "address of an image in model_params instead of its data"
            ]
        )


def _body(record: LedgerRecord) -> bytes:
    intent = asdict(record.intent)
    document = {
        "version": VERSION,
        "request_id": record.request_id,
        **({"not_submitted": True} if record.not_submitted else {}),
        **{name: value for name, value in intent.items() if name not in _OPTIONAL or value},
        "request": record.intent.request.inputs(),
    }
    return json.dumps(document, ensure_ascii=False).encode()


def _parse(key: str, etag: str, body: bytes) -> LedgerRecord:
    document: Mapping[str, Any] = json.loads(body)
    if document["version"] != VERSION:
        raise ValueError(f"it has version {document['version']!r}; this provider reads version {VERSION}")
    known = {item.name: document[item.name] for item in fields(Intent) if item.name not in _OPTIONAL}
    intent = Intent(
        **{**known, "request": GenerationRequest.from_inputs(document["request"])},
        excluded_request_ids=tuple(document.get("excluded_request_ids", ())),
        submit_attempts=int(document.get("submit_attempts", 0)),
    )
    return LedgerRecord(key, etag, intent, document["request_id"], not_submitted=document.get("not_submitted") is True)
