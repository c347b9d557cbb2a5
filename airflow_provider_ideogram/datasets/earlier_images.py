"""
The images that earlier runs stored below a dataset's prefix.

Invariant: an image is reused by its line only if the object is unchanged since and was made from the same inputs. Takes
a listing and the reading of the last manifest and of the parts of unfinished runs, not one call an image.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.manifest import SPOOL_BYTES, kept_line, reused_line
from airflow_provider_ideogram.datasets.rows import MANIFEST, Item
from airflow_provider_ideogram.storage.image_record import made_by
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from airflow_provider_ideogram.datasets.state import UnsettledRequest


class EarlierImages:
    """
    The images below a prefix.

    :param objects: The S3 layer.
    :param output_prefix: The prefix.
    :param workspaces: The key prefix of the workspaces of all runs for it.
    :param own: The key prefix of the parts of the run itself, which has another plan now.
    :param owns_manifest: Whether the run itself has written the manifest: its end was not seen by Airflow.
    :param undecided: The items of the run itself that have no line yet and may have rejected attempts.
    """

    def __init__(
        self,
        objects: ObjectStore,
        output_prefix: Target,
        workspaces: str,
        own: str,
        *,
        owns_manifest: bool = False,
        undecided: Iterable[Item] = (),
    ) -> None:
        self._objects = objects
        self._bucket = output_prefix.bucket
        self._etags = {item.key: item.etag for item in objects.list(output_prefix.bucket, output_prefix.key)}
        self._lines: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115
        self._offsets: dict[bytes, int] = {}
        self._own: set[bytes] = set()
        #: The offsets of the run's own lines with rejected attempts, which may have no image.
        self._attempts: dict[bytes, int] = {}
        self._undecided = {item.key: item for item in undecided}
        manifest = output_prefix.key + MANIFEST
        has_manifest = self._etags.pop(manifest, None) is not None
        # The last lines of an image count: those of the run itself.
        if has_manifest and not owns_manifest:
            self._add_lines(objects.open(self._bucket, manifest))
        for item in objects.list(self._bucket, workspaces):
            if "/part-" in item.key and not item.key.startswith(own):
                self._add_lines(objects.open(self._bucket, item.key))
        if has_manifest and owns_manifest:
            self._add_lines(objects.open(self._bucket, manifest), is_own=True)
        for item in objects.list(self._bucket, own):
            self._add_lines(objects.open(self._bucket, item.key), is_own=True)

    def has(self, item: Item) -> bool:
        """Return whether an object is at the item's key."""
        return item.key in self._etags

    def is_own(self, item: Item, request: UnsettledRequest | None = None) -> bool:
        """
        Return whether the run itself has stored an image at the item's key.

        :param request: Its request that the state has as open: a slice that died has stored the image, but no line.
        """
        if _digest(item.key) in self._own:
            return True
        if request is None or request.request_id is None or not self.has(item):
            return False
        head = self._objects.head(self._bucket, item.key)
        return head is not None and made_by(head) == request.request_id

    def line_of(self, item: Item, request: UnsettledRequest | None = None) -> dict[str, Any] | None:
        """
        Return the line of a stored image that is unchanged and was made from the same inputs, None without one.

        An image that the run itself has generated stays ``generated``, with its cost.

        :param request: The item's request that the state has as open: another run's line does not tell its cost.
        """
        offset = self._offsets.get(_digest(item.key))
        if offset is None or not self.has(item):
            return None
        line = self._line_at(offset)
        if (line.get("fingerprint"), line.get("etag")) != (item.request.fingerprint, self._etags[item.key]):
            return None
        is_own = _digest(item.key) in self._own
        if not is_own and request is not None and request.request_id == line["request_id"]:
            return None
        is_generated = is_own and line["status"] == ImageStatus.GENERATED
        return kept_line(item, line) if is_generated else reused_line(item, line)

    def rejected_attempts(self, item: Item) -> tuple[Mapping[str, Any], ...]:
        """Return the rejected attempts of an item that the run itself has made from the same inputs."""
        undecided = self._undecided.get(item.key)
        if undecided is not None:
            return tuple(undecided.attempts) if undecided.fingerprint == item.fingerprint else ()
        offset = self._attempts.get(_digest(item.key))
        line = {} if offset is None else self._line_at(offset)
        return tuple(line["rejected_attempts"]) if line.get("fingerprint") == item.fingerprint else ()

    def close(self) -> None:
        """Remove the temporary file."""
        self._lines.close()

    def _line_at(self, offset: int) -> dict[str, Any]:
        self._lines.seek(offset)
        line: dict[str, Any] = json.loads(self._lines.readline())
        return line

    def _add_lines(self, body: IO[bytes], *, is_own: bool = False) -> None:
        with body:
            for text in body:
                offset, line = self._lines.tell(), _parsed(text)
                self._lines.write(text)
                if (key := self._stored_key(line)) is not None:
                    self._offsets[_digest(key)] = offset
                    if is_own:
                        self._own.add(_digest(key))
                if is_own and line.get("rejected_attempts"):
                    self._attempts[_digest(line["key"])] = offset

    def _stored_key(self, line: Mapping[str, Any]) -> str | None:
        """Return the key of a line's stored image; None for any other line, whose image is read by itself."""
        is_stored = line.get("status") in (ImageStatus.GENERATED, ImageStatus.REUSED)
        # The lines of a copied prefix name the bucket that it was copied from.
        key = line.get("key") if is_stored and line.get("bucket") == self._bucket else None
        return key if isinstance(key, str) and key.isprintable() else None


def _parsed(text: bytes) -> dict[str, Any]:
    """Return a line, an empty one if it is not of the manifest's form: a manifest may have been edited."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return line if isinstance(line, dict) else {}


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=12).digest()
