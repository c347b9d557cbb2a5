"""
The task instances that use a dataset's prefix.

Invariant: an attempt begins only where no other task instance of its DAG run has written, and none of another DAG run
is at work. A manifest replaces only the one that was there when the attempt began, or the task instance's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any

from airflow_provider_ideogram.datasets.rows import MANIFEST
from airflow_provider_ideogram.datasets.workspace import GENERATED_STORED, STATE, Workspace
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramStorageError, IdeogramTargetBusy
from airflow_provider_ideogram.jobs.identity import attempt_group
from airflow_provider_ideogram.storage.objects import (
    CONDITIONAL_ATTEMPTS,
    ConditionsNotSupported,
    ObjectStore,
    PreconditionFailed,
)
from airflow_provider_ideogram.storage.target import Target

#: The names of a manifest's metadata: digests of the DAG run, task instance and attempt group that wrote it.
_RUN, _TASK, _GROUP = "ideogram-dag-run", "ideogram-task-instance", "ideogram-attempt-group"
_OWN_PREFIX = "Give each task a prefix of its own, of mapped tasks for example with {{ ti.map_index }}"


class PrefixUse:
    """
    The use of a prefix by a task instance.

    :param objects: The S3 layer.
    :param output_prefix: The prefix.
    :param owner: The task instance: ``dag_id/run_id/task_id/map_index``.
    :param max_tries: The task instance's, which changes on a clear.
    """

    def __init__(self, objects: ObjectStore, output_prefix: Target, owner: str, max_tries: int) -> None:
        self._objects = objects
        self._prefix = output_prefix
        self._owner = owner
        self._max_tries = max_tries

    def check_others(self, own: Workspace, workspaces: str, is_at_work: Callable[[str], bool]) -> None:
        """
        Check that no other task instance is at work below the prefix.

        :param own: The task instance's own workspace.
        :param workspaces: The key prefix of the workspaces of all task instances.
        :param is_at_work: Whether Airflow runs a task instance.
        :raises IdeogramInvalidInput: If one of the same DAG run is.
        :raises IdeogramTargetBusy: If one of another DAG run is.
        """
        for item in self._objects.list(own.bucket, workspaces):
            if not item.key.endswith(f"/{STATE}") or item.key.startswith(own.prefix):
                continue
            other = self._owner_of_state(own.bucket, item.key)
            if other and _dag_run(other) == _dag_run(self._owner):
                raise self._same_run(f"Task instance {other!r}")
            if other and is_at_work(other):
                raise IdeogramTargetBusy(
                    f"Task instance {other!r} is at work at s3_prefix {self._prefix.uri}",
                    f"Nothing was sent or charged. A retry after its end reuses its images. {_OWN_PREFIX}.",
                )

    def manifest_version(self) -> str | None:
        """
        Return the version of the manifest, None without one.

        :raises IdeogramInvalidInput: If another task of the same DAG run has written it.
        """
        found = self._head(MANIFEST)
        written_by = {} if found is None else found.get("Metadata", {})
        mine = self._metadata()
        if written_by.get(_RUN) == mine[_RUN] and written_by.get(_TASK) != mine[_TASK]:
            raise self._same_run("Another task instance")
        return None if found is None else found["ETag"]

    def has_own_manifest(self) -> bool:
        """Return whether an attempt of this task since its last clear has written the manifest."""
        found = self._head(MANIFEST)
        return found is not None and found.get("Metadata", {}).get(_GROUP) == self._metadata()[_GROUP]

    def write_manifest(self, body: IO[bytes], replaces: str | None, arguments: Mapping[str, Any]) -> None:
        """
        Write the manifest.

        :param replaces: Its version when the attempt began, None for none.
        :param arguments: Further arguments of ``put_object``.
        :raises IdeogramTargetBusy: If another task instance has written it since.
        :raises IdeogramStorageError: If S3 does not accept it.
        """

        def is_replaceable(found: Mapping[str, Any] | None) -> bool:
            return found is None or found["ETag"] == replaces or self._is_own(found)

        self._write(MANIFEST, body, arguments, is_replaceable)

    def write_beside_manifest(self, name: str, body: IO[bytes], arguments: Mapping[str, Any]) -> None:
        """
        Write a file that belongs to the manifest which this task instance has written; else as :meth:`write_manifest`.

        :param name: Its name below the prefix.
        """
        self._write(name, body, arguments, lambda _: self._is_own(self._head(MANIFEST)))

    def _write(
        self,
        name: str,
        body: IO[bytes],
        arguments: Mapping[str, Any],
        is_replaceable: Callable[[Mapping[str, Any] | None], bool],
    ) -> None:
        call = {"advice": GENERATED_STORED, **arguments, "Metadata": self._metadata()}
        for _ in range(CONDITIONAL_ATTEMPTS):
            found = self._head(name)
            if not is_replaceable(found):
                raise self._replaced()
            body.seek(0)
            with suppress(PreconditionFailed):  # it was written meanwhile, or S3 answered with a single conflict
                self._put(name, body, call, None if found is None else found["ETag"])
                return
        raise IdeogramStorageError(
            f"Writing {self._prefix.uri}{name} failed: S3 answers with conflicts", GENERATED_STORED, charged=None
        )

    def _put(self, name: str, body: IO[bytes], call: Mapping[str, Any], version: str | None) -> None:
        place = self._prefix.bucket, self._prefix.key + name
        try:
            self._objects.put(*place, body, if_match=version, if_missing=version is None, **call)
        except ConditionsNotSupported:
            body.seek(0)
            self._objects.put(*place, body, **call)

    def _head(self, name: str) -> Mapping[str, Any] | None:
        return self._objects.head(self._prefix.bucket, self._prefix.key + name)

    def _is_own(self, found: Mapping[str, Any] | None) -> bool:
        return found is not None and found.get("Metadata", {}).get(_TASK) == self._metadata()[_TASK]

    def _owner_of_state(self, bucket: str, key: str) -> str | None:
        """Return the task instance that a workspace belongs to, None if its state is gone or has another form."""
        stored = self._objects.get(bucket, key)
        try:
            owner = None if stored is None else json.loads(stored.body)["owner"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return None
        return owner if isinstance(owner, str) else None

    def _metadata(self) -> dict[str, str]:
        group = attempt_group(self._owner, self._max_tries)
        return {_RUN: _digest(_dag_run(self._owner)), _TASK: _digest(self._owner), _GROUP: group}

    def _same_run(self, other: str) -> IdeogramInvalidInput:
        return IdeogramInvalidInput.of(
            [f"s3_prefix: {other} of the same DAG run has the prefix {self._prefix.uri}, too. {_OWN_PREFIX}"]
        )

    def _replaced(self) -> IdeogramTargetBusy:
        return IdeogramTargetBusy(
            f"Another task has written {self._prefix.uri}{MANIFEST} since this attempt began",
            f"{GENERATED_STORED} It then replaces that manifest. {_OWN_PREFIX}.",
            charged=None,
        )


def _dag_run(owner: str) -> str:
    """Return ``dag_id/run_id`` of a task instance; neither a task's id nor a map index has a slash."""
    return owner.rsplit("/", 2)[0]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
