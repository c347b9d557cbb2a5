"""
The objects that a dataset's run keeps in S3 between its slices.

Invariant: what the next slice or attempt needs is here or in the ledger, written before the slice ends. A chunk
has at most CHUNK_ROWS rows. The objects are deleted when the run has succeeded, except that the state stays unless
``if_exists`` is ``reuse``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_ideogram.exceptions import IdeogramInvalidRecord, IdeogramLedgerError, IdeogramStorageError

if TYPE_CHECKING:
    from airflow_provider_ideogram.storage.objects import ObjectStore
    from airflow_provider_ideogram.storage.target import Target

log = logging.getLogger(__name__)

#: Rows in an object: a slice reads one or two, and a million rows take two thousand.
CHUNK_ROWS = 500
#: The name of the run's state; without it the other objects are not used.
STATE = "state.json"
IN_LEDGER = (
    "Running requests are charged if they complete. The ledger has each of them, and a retry reattaches to them."
)
GENERATED_STORED = "The generated images are stored. A retry pays for none of them again."


def chunk_name(kind: str, number: int) -> str:
    """Return the name of a chunk; names sort by their numbers."""
    return f"{kind}-{number:06}.jsonl"


class Workspace:
    """
    The objects of one run.

    :param objects: The S3 layer.
    :param bucket: The bucket of the images.
    :param prefix: The beginning of the objects' keys.
    """

    def __init__(self, objects: ObjectStore, bucket: str, prefix: str) -> None:
        self._objects = objects
        self.bucket = bucket
        self.prefix = prefix

    @classmethod
    def of(cls, objects: ObjectStore, output_prefix: Target, ledger_prefix: str, owner: str) -> Workspace:
        """Return the workspace of a task instance, the same in each of its attempts."""
        return cls(objects, output_prefix.bucket, f"{cls.all_of(output_prefix, ledger_prefix)}{cls.name_of(owner)}")

    @staticmethod
    def name_of(owner: str) -> str:
        """Return the key suffix that identifies the task instance."""
        return f"{hashlib.sha256(owner.encode()).hexdigest()[:32]}/"

    @staticmethod
    def all_of(output_prefix: Target, ledger_prefix: str) -> str:
        """Return the key prefix of all workspaces for an output prefix."""
        return f"{ledger_prefix}{output_prefix.key}.dataset/"

    @property
    def uri(self) -> str:
        """The address of the workspace, ending in ``/``."""
        return f"s3://{self.bucket}/{self.prefix}"

    def write(self, name: str, value: Any) -> None:
        """Write a JSON document."""
        self._put(name, json.dumps(value, ensure_ascii=False))

    def write_lines(self, name: str, values: Iterable[Mapping[str, Any]]) -> None:
        """Write one JSON document a line."""
        self._put(name, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))

    def read(self, name: str) -> Any:
        """Return a JSON document, None if it is missing; raise IdeogramInvalidRecord if it is not JSON."""
        stored = self._objects.get(self.bucket, self.prefix + name)
        try:
            return stored and json.loads(stored.body)
        except ValueError as error:
            raise invalid_state(f"{self.uri}{name}", error) from error

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """Return the documents that :meth:`write_lines` wrote."""
        stored = self._objects.get(self.bucket, self.prefix + name)
        if stored is None:
            raise IdeogramLedgerError(f"{self.uri}{name} is missing", f"Delete {self.uri}{STATE}. {IN_LEDGER}")
        return [json.loads(line) for line in stored.body.splitlines()]

    def copy_lines(self, kind: str, chunks: int, file: IO[bytes]) -> None:
        """Append the lines of the first chunks of a kind to a file; a slice that died may have written later ones."""
        end = self.prefix + chunk_name(kind, chunks)
        for item in self._objects.list(self.bucket, f"{self.prefix}{kind}-"):
            if item.key >= end:
                break
            with closing(self._objects.open(self.bucket, item.key)) as body:
                file.writelines(body)

    def clear(self, *, keep_state: bool = False) -> None:
        """Delete all objects, the state first, so that it never refers to a deleted object."""
        state = self.prefix + STATE
        keys = [item.key for item in self._objects.list(self.bucket, self.prefix) if item.key != state]
        if not keep_state:
            self._objects.delete(self.bucket, state, advice=GENERATED_STORED)
        self._objects.delete_many(self.bucket, keys, advice=GENERATED_STORED)

    def tidy_up(self, *, keep_state: bool = False) -> None:
        """Delete all objects of a run whose manifest is written; a failure of S3 is only logged."""
        try:
            self.clear(keep_state=keep_state)
        except IdeogramStorageError as error:
            log.warning("%s. The images and the manifest are stored; %s can be deleted", error.reason, self.uri)

    def _put(self, name: str, text: str) -> None:
        self._objects.put(
            self.bucket, self.prefix + name, text.encode(), advice=IN_LEDGER, ContentType="application/json"
        )


def invalid_state(uri: str, problem: Exception) -> IdeogramInvalidRecord:
    """Return the error of an object that has been changed, or has the form of another version."""
    return IdeogramInvalidRecord(f"{uri} can't be understood ({problem!r})", f"Remove it. {IN_LEDGER}", charged=None)
