"""
The objects of a review in S3.

Invariant: the review is changed by compare-and-swap, so that no decision of several people is lost. It can't be changed
in a store without conditional writes. Its address follows from the task instance, whatever an XCom says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramInvalidRecord, IdeogramStorageError
from airflow_provider_ideogram.reviews.review import Review
from airflow_provider_ideogram.storage.bucket_arguments import with_every_write
from airflow_provider_ideogram.storage.compare_and_swap import Contended, compare_and_swap
from airflow_provider_ideogram.storage.objects import ConditionsNotSupported, ObjectStore
from airflow_provider_ideogram.storage.target import Target

#: The name of the review, and of the lines of its images.
REVIEW, IMAGES = "review.json", "images.jsonl"
_FOLDER = ".reviews/"
#: Seconds for which a worker attempts a change again after others' changes.
PATIENCE_SECONDS = 60.0
#: The range of the first pause between two attempts in seconds, which doubles, and its limit.
_PAUSES = (0.05, 1.0)
_MAX_BYTES = 16 << 20
_ADVICE = "Nothing was charged: a review spends no money. The decisions that were saved are kept."


def name_of(owner: str) -> str:
    """Return the end of the key prefix that belongs to a task instance."""
    return f"{_FOLDER}{hashlib.sha256(owner.encode()).hexdigest()[:32]}/"


class ReviewStore:
    """
    The review of one task instance.

    :param objects: The S3 layer.
    :param prefix: The address of its objects, ending in ``/``.
    :param patience: Seconds for which a change is attempted again after others' changes.
    """

    def __init__(self, objects: ObjectStore, prefix: Target, patience: float = PATIENCE_SECONDS) -> None:
        self._objects = objects
        self.prefix = prefix
        self._patience = patience

    @classmethod
    def of(cls, objects: ObjectStore, bucket: str, ledger_prefix: str, owner: str) -> ReviewStore:
        """Return the review of a task instance, the same in each of its attempts."""
        return cls(objects, Target(bucket, f"{ledger_prefix}{name_of(owner)}"))

    @property
    def images(self) -> Target:
        """The address of the lines of the images."""
        return Target(self.prefix.bucket, self.prefix.key + IMAGES)

    def read(self) -> Review | None:
        """Return the review, None if there is none; raises IdeogramStorageError if it can't be read."""
        return self._read()[0]

    def version(self) -> str | None:
        """Return what changes with each change of the review, None if there is none."""
        head = self._objects.head(self.prefix.bucket, self.prefix.key + REVIEW)
        return None if head is None else str(head["ETag"])

    def update(self, change: Callable[[Review | None], Review | None]) -> Review | None:
        """
        Change the review, and return it as it is stored afterwards.

        :param change: Returns the changed review, None to write nothing. It is called again with what another process
            wrote.
        :raises IdeogramStorageError: If S3 can't be used, the object is not a review, or others change it all the time.
        :raises IdeogramInvalidInput: If the store has no conditional writes.
        """

        def changed(before: Review | None) -> tuple[Review | None, Review | None]:
            after = change(before)
            return after, before if after is None else after

        try:
            return compare_and_swap(self._read, changed, self._write, self._patience, _PAUSES)
        except Contended as error:
            raise IdeogramStorageError(f"{self.uri}: others change it all the time", _ADVICE) from error

    def write_images(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write the lines of the images."""
        body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        self._objects.put(self.images.bucket, self.images.key, body, advice=_ADVICE, ContentType="application/x-ndjson")

    def read_images(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of the images."""
        with closing(self._objects.open(self.images.bucket, self.images.key)) as body:
            for line in body:
                yield json.loads(line)

    @property
    def uri(self) -> str:
        """The address of the review."""
        return f"{self.prefix.uri}{REVIEW}"

    def _read(self) -> tuple[Review | None, str | None]:
        key = self.prefix.key + REVIEW
        stored = self._objects.get(self.prefix.bucket, key, max_bytes=_MAX_BYTES, advice=_ADVICE)
        if stored is None:
            return None, None
        try:
            return Review.from_json(json.loads(stored.body)), stored.etag
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise IdeogramInvalidRecord(
                f"{self.uri} can't be understood ({error!r})", f"{_ADVICE} Remove it."
            ) from error

    def _write(self, review: Review, etag: str | None) -> None:
        body = json.dumps(review.to_json(), ensure_ascii=False, separators=(",", ":")).encode()
        try:
            self._objects.put(
                self.prefix.bucket,
                self.prefix.key + REVIEW,
                body,
                if_match=etag,
                if_missing=etag is None,
                advice=_ADVICE,
                **with_every_write(review.write_args),
                ContentType="application/json",
            )
        except ConditionsNotSupported as error:
            raise IdeogramInvalidInput.of(
                [f"the store of {self.prefix.uri} has no conditional writes, which a review by several people needs"]
            ) from error
