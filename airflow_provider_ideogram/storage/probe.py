"""
What a store can do, found out before anything is paid.

Invariant: afterwards the S3 layer uses conditions only where the store honours them, and the bucket accepts the user's
arguments. The probe writes an object of its own at the ledger's prefix, and deletes it. A store is probed once in a
process, and each bucket for the user's arguments. AWS is known to honour conditions, and is only asked for arguments.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramStorageError
from airflow_provider_ideogram.storage.bucket_arguments import ENCRYPTION, probed
from airflow_provider_ideogram.storage.objects import (
    CONDITIONAL_ATTEMPTS,
    NOTHING_CHARGED,
    ConditionsNotSupported,
    ObjectStore,
    PreconditionFailed,
)
from airflow_provider_ideogram.storage.s3_client import is_aws

log = logging.getLogger(__name__)

#: The beginning of the object's name; the names of records end with ``.json``.
_NAME = ".probe-"
#: How buckets refuse arguments; some stores answer 500 to an encryption that they don't have.
_REFUSALS = (400, 403, 405, 500, 501)
_NO_CONDITIONS = (
    "The S3 store has no conditional writes: two tasks with the same target may both pay if they run at once"
)
_METADATA = {"ideogram-probe": "1"}
#: Of each probed endpoint: whether it honours the conditions of writes, and of deletions.
_conditions_of: dict[str, tuple[bool, bool]] = {}


class StoreProbe:
    """
    The probe of one bucket, which is made once; several threads use it after its first run only.

    :param objects: The S3 layer, which is told what the store does not support.
    :param bucket: The bucket.
    :param prefix: The prefix of the probe's object.
    """

    def __init__(self, objects: ObjectStore, bucket: str, prefix: str) -> None:
        self._objects, self._bucket, self._prefix = objects, bucket, prefix
        self._is_done = False

    def run(self) -> None:
        """
        Probe what is not known of the store and the bucket.

        :raises IdeogramInvalidInput: If the bucket refuses an argument of ``s3_extra_args``, or requires another.
        :raises IdeogramStorageError: If an object can't be written or read; the next call probes again.
        """
        if self._is_done:
            return
        if self._objects.extra_args or not self._is_known:
            self._probe(f"{self._prefix}{_NAME}{uuid4().hex}")
        self._apply()
        self._is_done = True

    def has_conditional_writes(self) -> bool:
        """Return whether the store honours the conditions of writes; only an unknown store is probed."""
        if not self._is_known:
            self.run()
        self._apply()
        return self._objects.writes_conditionally

    def _apply(self) -> None:
        """Tell the S3 layer what is known of the store."""
        if self._endpoint in _conditions_of:
            self._objects.writes_conditionally, self._objects.deletes_conditionally = _conditions_of[self._endpoint]

    @property
    def _endpoint(self) -> str:
        endpoint: str = self._objects.client.meta.endpoint_url
        return endpoint

    @property
    def _is_known(self) -> bool:
        return self._endpoint in _conditions_of or is_aws(self._objects.client)

    def _probe(self, key: str) -> None:
        first = self._write_with_all_arguments(key)
        try:
            if not self._is_known:
                _conditions_of[self._endpoint] = self._check_features(key, first)
        finally:
            self._remove(key)

    def _check_features(self, key: str, first: str) -> tuple[bool, bool]:
        """Return whether conditional writes, and conditional deletions, are honoured."""
        writes = self._honours_conditions_of_writes(key, first)
        current = self._describe(key)
        deletes = writes and self._honours_conditions_of_deletions(key, first, current["ETag"])
        if not writes:
            log.warning(_NO_CONDITIONS)
        if not _METADATA.items() <= current["Metadata"].items():
            log.warning(
                "The S3 store does not keep metadata: stored images are not recognized, and clearing a task or running "
                "it again pays for its image again"
            )
        return writes, deletes

    def _write_with_all_arguments(self, key: str) -> str:
        arguments = probed(self._objects.extra_args)
        try:
            return self._write(key, b"1", **arguments)
        except IdeogramStorageError as error:
            problem = self._problem_of(key, arguments) if error.status_code in _REFUSALS else None
            if problem is None or self._accepts(key, arguments):  # the refusal was temporary
                raise
            raise IdeogramInvalidInput.of([f"s3_extra_args: {problem} ({error.reason})"]) from error

    def _problem_of(self, key: str, arguments: Mapping[str, Any]) -> str | None:
        """Find the argument that the bucket refuses, or requires, by writing without it, or with it."""
        names = list(arguments)
        encryption = [name for name in names if name in ENCRYPTION]
        for left_out in (*([name] for name in names if name not in ENCRYPTION), encryption, names):
            if left_out and self._accepts(key, {name: arguments[name] for name in names if name not in left_out}):
                return f"the bucket {self._bucket} refuses {', '.join(left_out)}"
        for value in () if encryption else ("AES256", "aws:kms"):
            if self._accepts(key, {**arguments, "ServerSideEncryption": value}):
                return f"the bucket {self._bucket} requires 'ServerSideEncryption': {value!r}"
        return None

    def _accepts(self, key: str, arguments: Mapping[str, Any]) -> bool:
        try:
            ObjectStore(self._objects.client).put(self._bucket, key, b"1", **arguments)
        except IdeogramStorageError:
            return False
        self._remove(key)
        return True

    def _write(self, key: str, body: bytes, **condition: Any) -> str:
        """Write as images are written, and return the ETag."""
        sha256 = hashlib.sha256(body).digest()
        etag: str = self._objects.put(
            self._bucket, key, body, sha256=sha256, Metadata=_METADATA, ContentType="text/plain", **condition
        )["ETag"]
        return etag

    def _is_accepted(self, key: str, **condition: Any) -> bool:
        """Return whether the store accepts a write with this condition."""
        try:
            self._write(key, b"2", **condition)
        except PreconditionFailed:
            return False
        return True

    def _honours_conditions_of_writes(self, key: str, first: str) -> bool:
        """Replace the first version under a condition, and try to replace it under two that don't hold."""
        try:
            return (
                not self._is_accepted(key, if_missing=True)
                and any(self._is_replaced(key, first) for _ in range(CONDITIONAL_ATTEMPTS))
                and not self._is_accepted(key, if_match=first)
            )
        except ConditionsNotSupported:
            return False

    def _is_replaced(self, key: str, etag: str) -> bool:
        # If S3's response was lost, botocore has repeated the write, which is refused then.
        return self._is_accepted(key, if_match=etag) or self._describe(key)["ETag"] != etag

    def _honours_conditions_of_deletions(self, key: str, first: str, current: str) -> bool:
        """Try to delete the first version, which was replaced, and delete the current one."""
        try:
            return not self._is_deleted(key, first) and any(
                self._is_deleted(key, current) for _ in range(CONDITIONAL_ATTEMPTS)
            )
        except ConditionsNotSupported:
            return False
        except IdeogramStorageError:
            return True  # the role may not delete, which says nothing about conditions

    def _is_deleted(self, key: str, etag: str) -> bool:
        try:
            self._objects.delete(self._bucket, key, if_match=etag)
        except PreconditionFailed:
            # If S3's response was lost, botocore has repeated the deletion, which is refused then.
            return self._objects.head(self._bucket, key) is None
        return True

    def _describe(self, key: str) -> Mapping[str, Any]:
        head = self._objects.head(self._bucket, key)
        if head is None:
            raise IdeogramStorageError(f"s3://{self._bucket}/{key} was written, and is missing", NOTHING_CHARGED)
        return head

    def _remove(self, key: str) -> None:
        try:
            self._objects.delete(self._bucket, key)
        except IdeogramStorageError as error:
            log.warning("%s. The object can be deleted", error.reason)
