"""
The objects that a dataset's run keeps in S3 between its slices.

Invariant: what the next slice or attempt needs is here or in the ledger, written before the slice ends. A write of the
state names the version that it replaces: a slice that Airflow has given up can't undo a later one. Each plan and each
slice has a number, which is in the names of what it writes: slices that overlap overwrite nothing, and an object that
an ended run left is no part of the next one. A chunk has at most CHUNK_ROWS rows. The objects are deleted when the run
has succeeded, except that the state stays unless ``if_exists`` is ``reuse``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.exceptions import (
    IdeogramDatasetFailed,
    IdeogramInvalidRecord,
    IdeogramLedgerError,
    IdeogramStorageError,
)
from airflow_provider_ideogram.storage.objects import CONDITIONAL_ATTEMPTS, ConditionsNotSupported, PreconditionFailed

if TYPE_CHECKING:
    from airflow_provider_ideogram.storage.objects import ObjectStore
    from airflow_provider_ideogram.storage.target import Target

log = logging.getLogger(__name__)

#: Rows in an object: a slice reads one or two, and a million rows take two thousand.
CHUNK_ROWS = 500
#: The name of the run's state; without it the other objects are not used.
STATE = "state.json"
#: What is known of the requests of a run that ends.
IN_LEDGER = (
    "Running requests are charged if they complete. The ledger has each of them, and a retry reattaches to them, "
    "unless the task has durable=False."
)
GENERATED_STORED = "The generated images are stored. A retry pays for none of them again."


def chunk_name(plan: int, kind: str, number: int) -> str:
    """
    Return the name of a chunk of a plan.

    :param plan: The number of the plan.
    """
    return f"{kind}-{plan:06}-{number:06}.jsonl"


def part_name(plan: int, slice_number: int, number: int) -> str:
    """Return the name of a part with the lines of decided items; names sort by slice, then by number."""
    return chunk_name(plan, "part", slice_number).replace(".", f"-{number:06}.")


class PlanLost(IdeogramLedgerError):
    """An object of the plan, or a line of an item, is missing."""


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

    def write_state(self, state: Any, replaces: str | None) -> str:
        """
        Write the state, and return its version.

        :param replaces: The version that it replaces, None for none.
        :raises IdeogramDatasetFailed: If another slice has written the state since.
        """
        body = json.dumps(state, ensure_ascii=False).encode()
        for _ in range(CONDITIONAL_ATTEMPTS):
            try:
                return self._put_state(body, if_match=replaces, if_missing=replaces is None)
            except ConditionsNotSupported:
                if self.read_state()[1] != replaces:
                    raise _superseded() from None
                return self._put_state(body)
            except PreconditionFailed as conflict:
                current = self._objects.get(self.bucket, self.prefix + STATE)
                if current is not None and current.body == body:  # S3's response was lost, and botocore wrote again
                    return current.etag
                if (current.etag if current else None) != replaces:
                    raise _superseded() from conflict
        raise IdeogramStorageError(
            f"Writing {self.uri}{STATE} failed: S3 answers with a conflict, though nothing else was written",
            IN_LEDGER,
            charged=None,
        )

    def _put_state(self, body: bytes, **condition: Any) -> str:
        version: str = self._objects.put(
            self.bucket, self.prefix + STATE, body, advice=IN_LEDGER, ContentType="application/json", **condition
        )["ETag"]
        return version

    def write_lines(self, name: str, values: Iterable[Mapping[str, Any]]) -> None:
        """Write one JSON document a line."""
        self._put(name, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))

    def read_state(self) -> tuple[Any, str | None]:
        """Return the state and its version, None twice if it is missing; raise IdeogramInvalidRecord if not JSON."""
        stored = self._objects.get(self.bucket, self.prefix + STATE)
        try:
            return (None, None) if stored is None else (json.loads(stored.body), stored.etag)
        except (ValueError, RecursionError) as error:
            raise invalid_state(f"{self.uri}{STATE}", error) from error

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """Return the documents that :meth:`write_lines` wrote; raise PlanLost if they are missing."""
        stored = self._objects.get(self.bucket, self.prefix + name)
        if stored is None:
            raise PlanLost(f"{self.uri}{name} is missing", f"A retry plans the run again. {IN_LEDGER}", charged=None)
        return [json.loads(line) for line in stored.body.splitlines()]

    def part_lines(self, plan: int) -> Iterator[bytes]:
        """
        Yield the lines of all parts of a plan, of an item the last one last.

        A slice that died may have written some: a later slice has decided its items again.
        """
        for item in self._objects.list(self.bucket, self.parts_of(plan)):
            with closing(self._objects.open(self.bucket, item.key)) as body:
                yield from body

    def parts_of(self, plan: int) -> str:
        """Return the key prefix of the parts of a plan."""
        return f"{self.prefix}part-{plan:06}-"

    def delete_other_plans(self, plan: int) -> None:
        """Delete the objects of earlier plans."""
        kept = tuple(f"{self.prefix}{kind}-{plan:06}-" for kind in ("todo", "copy", "part"))
        keys = [item.key for item in self._objects.list(self.bucket, self.prefix)]
        old = [key for key in keys if key != self.prefix + STATE and not key.startswith(kept)]
        self._objects.delete_many(self.bucket, old, advice=IN_LEDGER)

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


def _superseded() -> IdeogramDatasetFailed:
    return IdeogramDatasetFailed(
        "Another slice of the task has continued the run", f"This slice ends. {IN_LEDGER}", charged=None
    )


def invalid_state(uri: str, problem: Exception) -> IdeogramInvalidRecord:
    """Return the error of an object that has been changed, or has the form of another version."""
    return IdeogramInvalidRecord(f"{uri} can't be understood ({problem!r})", f"Remove it. {IN_LEDGER}", charged=None)
