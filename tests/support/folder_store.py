"""
An S3 layer in a folder, for processes that race: its conditional writes are atomic, and fast.

Invariant: a write is done under the folder's lock, which the system releases when a process is killed, and by a rename,
so that no object is half written.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from airflow_provider_ideogram.storage.objects import ListedObject, PreconditionFailed, StoredObject


@dataclass(frozen=True)
class FolderStore:
    """
    The objects of all buckets, each in a file.

    :param folder: The folder.
    """

    folder: Path

    def get(self, bucket: str, key: str, **_: Any) -> StoredObject | None:
        """Return an object, None if it is missing."""
        try:
            body = self._path(bucket, key).read_bytes()
        except FileNotFoundError:
            return None
        return StoredObject(body, _etag(body))

    def put(
        self, bucket: str, key: str, body: bytes, *, if_match: str | None = None, if_missing: bool = False, **_: Any
    ) -> None:
        """Write an object; raise PreconditionFailed if the condition does not hold."""
        with self._locked():
            current = self.get(bucket, key)
            if if_missing and current is not None:
                raise PreconditionFailed
            if if_match is not None and (current is None or current.etag != if_match):
                raise PreconditionFailed
            part = self.folder / f"{os.getpid()}.part"
            part.write_bytes(body)
            part.replace(self._path(bucket, key))

    def delete(self, bucket: str, key: str, **_: Any) -> None:
        """Delete an object."""
        with self._locked():
            self._path(bucket, key).unlink(missing_ok=True)

    def list(self, bucket: str, prefix: str) -> Iterator[ListedObject]:
        """Yield the objects below a prefix."""
        for path in sorted(self.folder.glob("*.object")):
            name = unquote(path.name.removesuffix(".object"))
            if name.startswith(f"{bucket}/{prefix}"):
                yield ListedObject(name.removeprefix(f"{bucket}/"), "", time.time())

    def _path(self, bucket: str, key: str) -> Path:
        return self.folder / f"{quote(f'{bucket}/{key}', safe='')}.object"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()}"'
