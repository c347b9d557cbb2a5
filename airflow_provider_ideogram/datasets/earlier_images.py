"""
The images that earlier runs stored below a dataset's prefix.

Invariant: an image is reused by its line only if the object is unchanged since and was made from the same inputs. Takes
a listing and the reading of the last manifest and of the parts of unfinished runs, not one call an image.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from typing import IO, Any

from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.manifest import SPOOL_BYTES, kept_line, reused_line
from airflow_provider_ideogram.datasets.rows import MANIFEST, Item
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target


class EarlierImages:
    """
    The images below a prefix.

    :param objects: The S3 layer.
    :param output_prefix: The prefix.
    :param workspaces: The key prefix of the workspaces of all runs for it.
    :param own: The key prefix of the parts of the run itself, which has another plan now.
    :param owns_manifest: Whether the run itself has written the manifest: its end was not seen by Airflow.
    """

    def __init__(
        self, objects: ObjectStore, output_prefix: Target, workspaces: str, own: str, *, owns_manifest: bool = False
    ) -> None:
        self._bucket = output_prefix.bucket
        self._etags = {item.key: item.etag for item in objects.list(output_prefix.bucket, output_prefix.key)}
        self._lines: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115
        self._offsets: dict[bytes, int] = {}
        self._own: set[bytes] = set()
        if self._etags.pop(output_prefix.key + MANIFEST, None):
            manifest = objects.open(self._bucket, output_prefix.key + MANIFEST)
            self._add_lines(manifest, self._own if owns_manifest else None)
        for item in objects.list(self._bucket, workspaces):
            if "/part-" in item.key and not item.key.startswith(own):
                self._add_lines(objects.open(self._bucket, item.key))
        for item in objects.list(self._bucket, own):  # the last lines of an item count
            self._add_lines(objects.open(self._bucket, item.key), self._own)

    def has(self, item: Item) -> bool:
        """Return whether an object is at the item's key."""
        return item.key in self._etags

    def is_own(self, item: Item) -> bool:
        """Return whether the run itself has stored an image at the item's key."""
        return _digest(item.key) in self._own

    def line_of(self, item: Item) -> dict[str, Any] | None:
        """
        Return the line of a stored image that is unchanged and was made from the same inputs, None without one.

        An image that the run itself has generated stays ``generated``, with its cost.
        """
        offset = self._offsets.get(_digest(item.key))
        if offset is None or not self.has(item):
            return None
        self._lines.seek(offset)
        line: dict[str, Any] = json.loads(self._lines.readline())
        if (line.get("fingerprint"), line.get("etag")) != (item.request.fingerprint, self._etags[item.key]):
            return None
        is_generated = self.is_own(item) and line["status"] == ImageStatus.GENERATED
        return kept_line(item, line) if is_generated else reused_line(item, line)

    def close(self) -> None:
        """Remove the temporary file."""
        self._lines.close()

    def _add_lines(self, body: IO[bytes], digests: set[bytes] | None = None) -> None:
        with body:
            for text in body:
                offset = self._lines.tell()
                self._lines.write(text)
                if (key := self._stored_key(text)) is not None:
                    self._offsets[_digest(key)] = offset
                    if digests is not None:
                        digests.add(_digest(key))

    def _stored_key(self, text: bytes) -> str | None:
        """Return the key of a line's stored image; None for any other line, whose image is read by itself."""
        try:
            line = json.loads(text)
            is_stored = line["status"] in (ImageStatus.GENERATED, ImageStatus.REUSED)
            # The lines of a copied prefix name the bucket that it was copied from.
            key = line["key"] if is_stored and line["bucket"] == self._bucket else None
            return key if isinstance(key, str) and key.isprintable() else None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=12).digest()
