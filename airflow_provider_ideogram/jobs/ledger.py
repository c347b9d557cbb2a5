"""
The ledger: records of requests that were, or may have been, submitted for images that are not stored yet.

Invariant: a record is in S3 before its submit, and stays until the image is stored or the request has failed. Each
write names the version that it replaces, so that of two tasks with the same target only one submits. A record that
cannot be read is an error, never "no record".
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TypeGuard

from airflow_provider_ideogram.exceptions import (
    IdeogramInvalidInput,
    IdeogramInvalidRecord,
    IdeogramLedgerError,
    IdeogramLedgerRefused,
    IdeogramStorageError,
    IdeogramStorageRefused,
)
from airflow_provider_ideogram.jobs.record import MAX_BYTES, Intent, LedgerRecord, body_of, check_size, parse_record
from airflow_provider_ideogram.storage.objects import (
    CONDITIONAL_ATTEMPTS,
    ConditionsNotSupported,
    ObjectStore,
    PreconditionFailed,
)
from airflow_provider_ideogram.storage.probe import StoreProbe
from airflow_provider_ideogram.storage.target import DEFAULT_LEDGER_PREFIX, Target

log = logging.getLogger(__name__)


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

        The images below a prefix have names of their own, so there each task instance has its own record.
        """
        own = hashlib.sha256(owner.encode()).hexdigest() if target.is_prefix else ""
        return f"{self._prefix}{target.key}{own}.json"

    def url_of(self, key: str) -> str | None:
        """Return the address of a record."""
        return f"s3://{self._bucket}/{key}"

    def check_store(self) -> None:
        """
        Find out, once and before a submit, what the store supports.

        :raises IdeogramInvalidInput: If the bucket refuses an argument of ``s3_extra_args``, or requires another.
        :raises IdeogramLedgerError: If nothing can be written or read.
        """
        try:
            self._probe.run()
        except IdeogramInvalidInput:
            raise
        except Exception as error:  # of any class, such as one of the credentials
            raise self._error("writing", f"{self._prefix}*", error) from error

    def write_intent(self, key: str, intent: Intent) -> LedgerRecord:
        """
        Write the first record of a target.

        :raises RecordConflict: If there is a record.
        :raises IdeogramInvalidInput: If the inputs are too large for a record.
        :raises IdeogramLedgerError: If S3 does not accept it; nothing may be submitted then.
        """
        check_size(key, intent)
        self.check_store()
        return self._put(LedgerRecord(key, "", intent), if_match=None)

    def read(self, key: str) -> LedgerRecord | None:
        """
        Return the record, None if it is missing.

        :raises IdeogramInvalidRecord: If it is not of the ledger's form.
        :raises IdeogramLedgerError: If it can't be read.
        """
        try:
            stored = self._objects.get(self._bucket, key, max_bytes=MAX_BYTES)
        except Exception as error:  # any failure: it must not count as "no record"
            raise self._error("reading", key, error) from error
        if stored is None:
            return None
        try:
            return parse_record(key, stored.etag, stored.body)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise IdeogramInvalidRecord(
                f"The ledger's record s3://{self._bucket}/{key} is not valid ({error!r:.200})",
                "Nothing was submitted by this attempt; a request may have been submitted earlier. Restore the "
                "record's last version. If you remove it instead, the next attempt submits a new request, and the "
                "earlier one may be paid too.",
                charged=None,
            ) from error

    def replace(self, record: LedgerRecord, intent: Intent) -> LedgerRecord:
        """Replace a record by a new intent; raises as :meth:`write_intent` does."""
        check_size(record.key, intent)
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
            with suppress(RecordConflict):  # it was replaced, or it is deleted after all
                self._put(replace(record, not_submitted=True), if_match=record.etag)
        except IdeogramLedgerError as error:
            log.warning("%s. It will count as an unknown submit, although nothing was submitted", error.reason)

    def restore(self, record: LedgerRecord, replaced: LedgerRecord) -> None:
        """
        Write back the record that a later one replaced.

        The later one's submit was refused or never sent, or the request that it names is another target's.
        If it can't be written the later one stays; without a request it counts as an unknown submit.
        """
        try:
            with suppress(RecordConflict):  # it was replaced
                self._put(replaced, if_match=record.etag)
        except IdeogramLedgerError as error:
            log.warning("%s. The later record stays in its place", error.reason)

    def targets_below(self, target: Target) -> Iterator[str]:
        """
        Yield the keys of the images below a target's key that have a record.

        :raises IdeogramStorageError: If the records can't be listed.
        """
        for item in self._objects.list(self._bucket, f"{self._prefix}{target.key}"):
            if item.key.endswith(".json"):
                yield item.key.removeprefix(self._prefix).removesuffix(".json")

    def others(self, key: str, since: float) -> Iterator[LedgerRecord]:
        """
        Yield the bucket's records of other targets that were written after a time.

        :param key: The key of the record that is left out.
        :param since: The time in seconds since the epoch.
        :raises IdeogramStorageError: If one can't be read.
        """
        for item in self._objects.list(self._bucket, self._prefix):
            if item.key == key or item.modified_at < since or not item.key.endswith(".json"):
                continue
            stored = self._objects.get(self._bucket, item.key, max_bytes=MAX_BYTES)
            with suppress(ValueError, TypeError, KeyError, RecursionError):  # the prefix has other objects, too
                if stored is not None:
                    yield parse_record(item.key, stored.etag, stored.body)

    def _remove(self, key: str, etag: str) -> bool:
        """Return whether this version of the record no longer exists."""
        try:
            self._delete(key, etag)
        except Exception as error:
            log.warning("The ledger's record %s could not be deleted: %s", key, error)
            return False
        return True

    def _delete(self, key: str, etag: str, attempts: int = CONDITIONAL_ATTEMPTS) -> None:
        """Delete this version of the record, if it is still there."""
        try:
            self._objects.delete(self._bucket, key, if_match=etag)
        except (PreconditionFailed, ConditionsNotSupported) as error:
            current = self.read(key)
            if current is None or current.etag != etag:
                return
            if isinstance(error, ConditionsNotSupported):
                self._objects.delete(self._bucket, key)
            elif attempts == 1:
                raise
            else:
                self._delete(key, etag, attempts - 1)

    def _put(
        self,
        record: LedgerRecord,
        *,
        if_match: str | None,
        conditional: bool = True,
        attempts: int = CONDITIONAL_ATTEMPTS,
    ) -> LedgerRecord:
        """Write the record over the version ``if_match``, or where there is none."""
        try:
            return replace(record, etag=self._write(record, if_match, conditional=conditional))
        except PreconditionFailed as error:
            current = self.read(record.key)
            if _is_same(current, record):
                return current
            if attempts > 1 and (current.etag if current else None) == if_match:
                return self._put(record, if_match=if_match, attempts=attempts - 1)
            raise RecordConflict from error
        except ConditionsNotSupported:
            return self._put_unconditionally(record, if_match)
        except Exception as error:
            failure = self._error("writing", record.key, error)
            with suppress(IdeogramLedgerError):
                if _is_same(current := self.read(record.key), record):
                    return current
            raise failure from error

    def _write(self, record: LedgerRecord, if_match: str | None, *, conditional: bool = True) -> str:
        etag: str = self._objects.put(
            self._bucket,
            record.key,
            body_of(record),
            if_match=if_match if conditional else None,
            if_missing=conditional and if_match is None,
            ContentType="application/json",
        )["ETag"]
        return etag

    def _put_unconditionally(self, record: LedgerRecord, if_match: str | None) -> LedgerRecord:
        """Write where S3 has no conditions: reading first leaves a moment in which two tasks can both pay."""
        current = self.read(record.key)
        if (current.etag if current else None) != if_match:
            raise RecordConflict
        return self._put(record, if_match=if_match, conditional=False)

    def _error(self, doing: str, key: str, error: Exception) -> IdeogramLedgerError:
        cause = error.reason if isinstance(error, IdeogramStorageError) else error
        kind = IdeogramLedgerRefused if isinstance(error, IdeogramStorageRefused) else IdeogramLedgerError
        return kind(
            f"{doing.capitalize()} the ledger's record s3://{self._bucket}/{key} failed ({cause})",
            "Nothing was submitted by this attempt; a request may have been submitted earlier. Give the worker's role "
            f"access to {self._prefix}*, and s3_extra_args the encryption that the bucket's policy requires, such as "
            "ServerSideEncryption, or set durable=False.",
            charged=None,
        )


def _is_same(current: LedgerRecord | None, record: LedgerRecord) -> TypeGuard[LedgerRecord]:
    """Return whether a write of the record took effect: S3's response may be lost, and botocore repeats the write."""
    return current is not None and replace(current, etag=record.etag) == record


class NoLedger:
    """The ledger of ``durable=False``: it keeps nothing, so that a request is known in this execution only."""

    is_durable = False

    def key_of(self, target: Target, owner: str) -> str:  # noqa: ARG002
        """Return an empty key."""
        return ""

    def url_of(self, key: str) -> None:
        """Return None."""

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

    def restore(self, record: LedgerRecord, replaced: LedgerRecord) -> None:
        """Do nothing."""

    def others(self, key: str, since: float) -> Iterator[LedgerRecord]:  # noqa: ARG002
        """Return no records."""
        return iter(())

    def targets_below(self, target: Target) -> Iterator[str]:  # noqa: ARG002
        """Return no keys."""
        return iter(())
