"""
The objects that a dataset's run keeps in S3 between its slices.

Invariant: everything that the next slice or attempt needs is here or in the ledger, written before the worker is
released. A chunk of the plan has at most CHUNK_ROWS rows. The objects are deleted when the run has succeeded, except
that the state stays unless ``if_exists`` is ``reuse``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_ideogram.exceptions import IdeogramStorageError

if TYPE_CHECKING:
    from airflow_provider_ideogram.storage.objects import ObjectStore
    from airflow_provider_ideogram.storage.target import Target

log = logging.getLogger(__name__)

#: Rows in an object: a slice reads one or two, a million rows are two thousand.
CHUNK_ROWS = 500
#: The run's state; a run is continued only if it exists.
STATE = "state.json"
_IN_LEDGER = (
    "Running requests are charged if they complete. The ledger has each of them, and a retry reattaches to them."
)


def chunk_name(kind: str, number: int) -> str:
    """Return the name of a chunk; names sort as numbers do."""
    return f"{kind}-{number:06}.jsonl"


class Workspace:
    """
    The objects of one run.

    :param objects: The S3 layer.
    :param bucket: The bucket of the images.
    :param prefix: The prefix of the objects' keys.
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
        """Return the prefix of all workspaces for these images."""
        return f"{ledger_prefix}{output_prefix.key}.dataset/"

    @property
    def uri(self) -> str:
        """The address of the prefix."""
        return f"s3://{self.bucket}/{self.prefix}"

    def write(self, name: str, value: Any) -> None:
        """Write a JSON document."""
        self._put(name, json.dumps(value, ensure_ascii=False).encode())

    def write_lines(self, name: str, values: Iterable[Mapping[str, Any]]) -> None:
        """Write documents, one a line."""
        self._put(name, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode())

    def read(self, name: str) -> Any:
        """Return a JSON document, None if it is missing; raise ValueError if it is not JSON."""
        stored = self._objects.get(self.bucket, self.prefix + name, advice=_IN_LEDGER)
        return None if stored is None else json.loads(stored.body)

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """Return documents that were written one a line."""
        stored = self._objects.get(self.bucket, self.prefix + name)
        if stored is None:
            raise IdeogramStorageError(f"{self.uri}{name} is missing", _IN_LEDGER)
        return [json.loads(line) for line in stored.body.splitlines()]

    def copy_lines(self, kind: str, chunks: int, file: IO[bytes]) -> None:
        """Append the lines of the first chunks of a kind to a file; a slice that died may have left further ones."""
        end = self.prefix + chunk_name(kind, chunks)
        for key in self._keys(f"{kind}-"):
            if key >= end:
                break
            with closing(self._objects.open(self.bucket, key)) as body:
                for line in body:
                    file.write(line)

    def clear(self, *, keep_state: bool = False) -> None:
        """Delete all objects, the state first, so that it never refers to deleted ones."""
        keys = [key for key in self._keys("") if key != self.prefix + STATE]
        if not keep_state:
            self._objects.delete(self.bucket, self.prefix + STATE)
        self._objects.delete_many(self.bucket, keys)

    def tidy_up(self, *, keep_state: bool = False) -> None:
        """Delete all objects of a run whose manifest is written; a failure of S3 is only logged."""
        try:
            self.clear(keep_state=keep_state)
        except IdeogramStorageError as error:
            log.warning("%s. The images and the manifest are stored; %s can be deleted", error.reason, self.uri)

    def _keys(self, prefix: str) -> Iterator[str]:
        return (item.key for item in self._objects.list(self.bucket, self.prefix + prefix))

    def _put(self, name: str, body: bytes) -> None:
        self._objects.put(self.bucket, self.prefix + name, body, advice=_IN_LEDGER, ContentType="application/json")
