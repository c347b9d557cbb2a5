"""
The account's objects in S3, each changed by compare-and-swap.

Invariant: a change is written over the version that it was computed from, or computed again. An object that can't be
read is an error, never an empty one.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramStorageError
from airflow_provider_ideogram.storage.objects import ConditionsNotSupported, ObjectStore, PreconditionFailed

log = logging.getLogger(__name__)
T = TypeVar("T")

#: The version of the objects' format. A change must keep older versions readable.
VERSION = 1
#: Seconds for which a change is attempted again after others' changes.
PATIENCE_SECONDS = 60.0
#: The range of the first back-off in seconds, and its limit: it doubles.
_FIRST_BACK_OFF, _MAX_BACK_OFF = 0.1, 4.0
_ADVICE = (
    "Nothing was charged by this attempt. Give the role of workers and triggerers read and write access to the "
    "account's objects, see docs/account.md."
)


class AccountStore:
    """
    JSON objects of a bucket that many processes change.

    :param objects: The S3 layer.
    :param bucket: The bucket.
    """

    def __init__(self, objects: ObjectStore, bucket: str) -> None:
        self._objects = objects
        self._bucket = bucket

    def read(self, key: str) -> dict[str, Any] | None:
        """Return an object, None if it is missing; raise IdeogramStorageError if it can't be read or understood."""
        return self._read(key)[0]

    def update(self, key: str, change: Callable[[dict[str, Any] | None], tuple[Mapping[str, Any] | None, T]]) -> T:
        """
        Change an object, and return the result of the change that took effect.

        :param change: Returns the new state, None to write nothing, and the result. It is called again with what
            another process wrote; if S3's response is lost, its effect may be there twice.
        :raises IdeogramStorageError: If S3 can't be used, or others change the object all the time.
        :raises IdeogramInvalidInput: If the store has no conditional writes.
        """
        give_up_at, back_off = time.monotonic() + PATIENCE_SECONDS, _FIRST_BACK_OFF
        while True:
            state, etag = self._read(key)
            new, result = change(state)
            if new is None:
                return result
            try:
                self._write(key, new, etag)
            except PreconditionFailed as error:
                if time.monotonic() > give_up_at:
                    raise self._error(key, "others change it all the time") from error
                time.sleep(random.uniform(0.0, back_off))
                back_off = min(2 * back_off, _MAX_BACK_OFF)
            else:
                return result

    def _read(self, key: str) -> tuple[dict[str, Any] | None, str | None]:
        stored = self._objects.get(self._bucket, key, advice=_ADVICE)
        if stored is None:
            return None, None
        try:
            state = json.loads(stored.body)
            if state.pop("version") != VERSION:
                raise ValueError("it has another version")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._error(key, f"it can't be understood ({error!r})") from error
        return state, stored.etag

    def _write(self, key: str, state: Mapping[str, Any], etag: str | None) -> None:
        body = json.dumps({"version": VERSION, **state}, separators=(",", ":"), ensure_ascii=False).encode()
        try:
            self._put(key, body, etag)
            if etag is None:
                self._check_conditions(key, body)
        except ConditionsNotSupported as error:
            raise _no_conditions(self._bucket) from error

    def _put(self, key: str, body: bytes, etag: str | None) -> None:
        self._objects.put(
            self._bucket,
            key,
            body,
            if_match=etag,
            if_missing=etag is None,
            advice=_ADVICE,
            ContentType="application/json",
        )

    def _check_conditions(self, key: str, body: bytes) -> None:
        """Write a new object once more: a store that accepts it ignores conditions without saying so."""
        try:
            self._put(key, body, None)
        except PreconditionFailed:
            return
        raise _no_conditions(self._bucket)

    def _error(self, key: str, why: str) -> IdeogramStorageError:
        return IdeogramStorageError(f"The account's object s3://{self._bucket}/{key}: {why}", _ADVICE)


def _no_conditions(bucket: str) -> IdeogramInvalidInput:
    return IdeogramInvalidInput.of(
        [
            f"the store of s3://{bucket} has no conditional writes, which a shared limit and a budget need. Name a "
            "bucket that has them in the connection's account_url, or remove limit and budget from the connection"
        ]
    )
