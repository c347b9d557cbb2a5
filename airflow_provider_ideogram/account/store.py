"""
The account's objects in S3, each changed by compare-and-swap.

Invariant: a change is written over the version that it was computed from, or computed again. An object that can't be
read or understood is an error, never an empty one. Changes of one process are made one after another, since they would
only conflict.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramStorageError
from airflow_provider_ideogram.storage.compare_and_swap import Contended, compare_and_swap
from airflow_provider_ideogram.storage.objects import ConditionsNotSupported, ObjectStore

log = logging.getLogger(__name__)
State = TypeVar("State")
T = TypeVar("T")
#: Restores a state; raises one of ``_NOT_A_STATE`` for anything else.
Parse: TypeAlias = Callable[[dict[str, Any]], State]

#: The version of the objects' format. A change must keep older versions readable.
VERSION = 1
#: Seconds for which a change is attempted again after others' changes: of a task that can wait in the triggerer
#: instead, and at the end of a request, which nothing later repeats.
ADMISSION_PATIENCE, PATIENCE_SECONDS = 5.0, 60.0
#: The range of the first pause between two attempts in seconds, which doubles, and its limit.
_PAUSES = (0.1, 4.0)
_ADVICE = (
    "Nothing was charged by this attempt. Give the role of workers and triggerers read and write access to the "
    "account's objects, see docs/account.md."
)
_REPAIR = (
    "Nothing was charged by this attempt. Restore the object's last version, or remove it: a removed limit-….json "
    "starts the rate limit anew, and a removed object of a day its spend and its budgets."
)
_NOT_A_STATE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
_updating = threading.Lock()


class AccountContended(IdeogramStorageError):
    """Others change an object all the time; a later attempt succeeds."""


class AccountStore:
    """
    JSON objects of a bucket that many processes change.

    :param objects: The S3 layer.
    :param bucket: The bucket.
    """

    def __init__(self, objects: ObjectStore, bucket: str) -> None:
        self._objects = objects
        self._bucket = bucket

    def read(self, key: str, parse: Parse[State]) -> State | None:
        """Return the state of an object, None if it is missing; raise IdeogramStorageError if it can't be read."""
        return self._read(key, parse)[0]

    def update(
        self,
        key: str,
        parse: Parse[State],
        change: Callable[[State | None], tuple[Mapping[str, Any] | None, T]],
        patience: float = PATIENCE_SECONDS,
    ) -> T:
        """
        Change an object, and return the result of the change that took effect.

        :param change: Returns the new state, None to write nothing, and the result. It is called again with what
            another process wrote; if S3's response is lost, its effect may be there twice.
        :param patience: Seconds for which it is attempted again.
        :raises AccountContended: If others change the object all this time.
        :raises IdeogramStorageError: If S3 can't be used, or the object is not a state.
        :raises IdeogramInvalidInput: If the store has no conditional writes.
        """
        with _updating:
            try:
                return compare_and_swap(
                    lambda: self._read(key, parse),
                    change,
                    lambda new, etag: self._write(key, new, etag),
                    patience,
                    _PAUSES,
                )
            except Contended as error:
                what = f"The account's object s3://{self._bucket}/{key}: others change it all the time"
                raise AccountContended(what, "Nothing was charged by this attempt.") from error

    def _read(self, key: str, parse: Parse[State]) -> tuple[State | None, str | None]:
        stored = self._objects.get(self._bucket, key, advice=_ADVICE)
        if stored is None:
            return None, None
        try:
            state = json.loads(stored.body)
            if state.pop("version") != VERSION:
                raise ValueError("it has another version")
            return parse(state), stored.etag
        except _NOT_A_STATE as error:
            raise self._error(key, f"it can't be understood ({error!r})", _REPAIR) from error

    def _write(self, key: str, state: Mapping[str, Any], etag: str | None) -> None:
        body = json.dumps({"version": VERSION, **state}, separators=(",", ":"), ensure_ascii=False).encode()
        try:
            self._objects.put(
                self._bucket,
                key,
                body,
                if_match=etag,
                if_missing=etag is None,
                advice=_ADVICE,
                ContentType="application/json",
            )
        except ConditionsNotSupported as error:
            raise no_conditions(self._bucket) from error

    def _error(self, key: str, why: str, advice: str = _ADVICE) -> IdeogramStorageError:
        return IdeogramStorageError(f"The account's object s3://{self._bucket}/{key}: {why}", advice)


def no_conditions(bucket: str) -> IdeogramInvalidInput:
    """Return the error of a store that can't keep a budget."""
    return IdeogramInvalidInput.of(
        [
            f"the store of s3://{bucket} has no conditional writes, which a budget needs. Name a bucket that has them "
            "in the connection's account_url, or remove the budget from the connection"
        ]
    )
