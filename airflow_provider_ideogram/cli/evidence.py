"""
What a deployment has of the account's requests: images, records of the ledger, lines and plans of datasets, XComs.

Invariant: reads only. The memory does not grow with the number of images: the evidence is in a temporary database on
disk. What can't be read is an error, so that no image counts as lost because of it; of Airflow's database the caller
decides.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.account.account import FOLDER as ACCOUNT_FOLDER
from airflow_provider_ideogram.api.history import find_submitted
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.datasets.attempts import FOLDER as REJECTED_FOLDER
from airflow_provider_ideogram.datasets.rows import MANIFEST
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.jobs.record import MAX_BYTES, LedgerRecord, parse_record
from airflow_provider_ideogram.storage.image_record import made_by
from airflow_provider_ideogram.storage.target import Target
from airflow_provider_ideogram.storage.thumbnail import FOLDER as THUMBNAIL_FOLDER

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.history import HistoryRow
    from airflow_provider_ideogram.storage.objects import ListedObject, ObjectStore

#: Images that are read at once, and those that are known before they are.
_THREADS, _BATCH = 8, 500
_TABLES = """
create table objects (bucket text, key text, etag text, request_id text, primary key (bucket, key)) without rowid;
create index by_request on objects (request_id);
create table known (request_id text primary key, bucket text, record_key text) without rowid;
create table planned (fingerprint text primary key, bucket text, key text) without rowid;
"""
#: What the lines and records of another program raise.
_NOT_OURS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Claim:
    """
    Why a request is this deployment's.

    :param record: Its record in the ledger.
    :param target: Where its image goes, if that is known.
    :param fingerprint: The fingerprint of the inputs that it was asked with, if that is known.
    :param is_ended: Whether its record went while the evidence was read: its task has just ended it.
    """

    record: LedgerRecord | None = None
    target: Target | None = None
    fingerprint: str | None = None
    is_ended: bool = False

    @classmethod
    def of_record(cls, record: LedgerRecord) -> Claim:
        """Return the claim of a record."""
        return cls(record, Target.parse(record.intent.target), record.intent.fingerprint)


@dataclass(slots=True)
class Evidence:
    """
    What a deployment has of the requests since a time.

    :param objects: The S3 layer.
    :param ledger_prefix: The prefix of the ledger in each bucket.
    :param since: The time in seconds since the epoch: older objects are not read.
    """

    objects: ObjectStore
    ledger_prefix: str
    since: float
    _database: sqlite3.Connection = field(init=False)
    _intents: list[LedgerRecord] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        """Create the temporary database, which ends with the object."""
        self._database = sqlite3.connect("")
        self._database.executescript(_TABLES)

    def close(self) -> None:
        """Delete the temporary database."""
        self._database.close()

    def add_requests(self, request_ids: Iterable[str]) -> None:
        """Add requests that are the deployment's, of which nothing else is known."""
        rows = ((request_id, None, None) for request_id in request_ids)
        self._database.executemany("insert or ignore into known values (?, ?, ?)", rows)

    def add_tasks(self, requests: Iterable[tuple[str, Any]]) -> None:
        """Add the requests of tasks, and the images that the tasks' results name."""
        for request_id, result in requests:
            self.add_requests([request_id])
            uri = result.get("uri") if isinstance(result, dict) else None
            with suppress(IdeogramInvalidInput):
                if isinstance(uri, str):
                    self._add_object(Target.parse(uri), None)
        self._read_images()

    def add_place(self, place: Target) -> None:
        """Add the images below a prefix, and the ledger of its bucket."""
        for item in self.objects.list(place.bucket, self.ledger_prefix):
            if item.modified_at >= self.since:
                self._add_ledger_object(place.bucket, item)
        manifests = []
        for item in self.objects.list(place.bucket, place.key):
            if item.key.startswith(self.ledger_prefix) or item.modified_at < self.since:
                continue
            if item.key.rpartition("/")[2] == MANIFEST:
                manifests.append(item.key)
            else:
                self._add_object(Target(place.bucket, item.key), item.etag)
        for key in manifests:
            self._add_lines(place.bucket, key)
        self._read_images()

    def image_of(self, request_id: str) -> str | None:
        """Return the address of the image of a request, None if it is not stored."""
        row = self._one("select bucket, key from objects where request_id = ?", request_id)
        return row and Target(*row).uri

    def claim_of(self, row: HistoryRow) -> Claim | None:
        """Return why a request of the history is this deployment's, None if nothing says so."""
        known = self._one("select bucket, record_key from known where request_id = ?", row.request_id)
        if known is not None:
            record = self._record(*known) if known[1] else None
            if record is not None and record.request_id == row.request_id:
                return Claim.of_record(record)
            return Claim(is_ended=known[1] is not None)
        for intent in self._intents:
            if _is_submit_of(intent, row):
                return Claim.of_record(intent)
        request = row.request()
        for asked in (request, replace(request, seed=None)) if request else ():
            planned = self._one("select bucket, key from planned where fingerprint = ?", asked.fingerprint)
            if planned is not None:
                return Claim(None, Target(*planned), asked.fingerprint)
        return None

    def _add_object(self, target: Target, etag: str | None) -> None:
        row = (target.bucket, target.key, etag)
        self._database.execute("insert or ignore into objects values (?, ?, ?, null)", row)

    def _one(self, query: str, value: str) -> Any:
        return self._database.execute(query, (value,)).fetchone()

    def _add_ledger_object(self, bucket: str, item: ListedObject) -> None:
        name = item.key.removeprefix(self.ledger_prefix)
        if name.startswith((THUMBNAIL_FOLDER, ACCOUNT_FOLDER)):
            return
        if name.startswith(REJECTED_FOLDER):
            self._add_object(Target(bucket, item.key), item.etag)
            return
        file = name.rpartition("/")[2]
        if file.endswith(".jsonl"):
            if file.startswith("part-"):
                self._add_lines(bucket, item.key)
            elif file.startswith("todo-"):
                self._add_plan(bucket, item.key)
        elif file.endswith(".json") and (record := self._record(bucket, item.key)) is not None:
            if record.request_id is not None:
                known = (record.request_id, bucket, item.key)
                self._database.execute("insert or replace into known values (?, ?, ?)", known)
            elif not record.not_submitted:
                self._intents.append(record)

    def _record(self, bucket: str, key: str) -> LedgerRecord | None:
        stored = self.objects.get(bucket, key, max_bytes=MAX_BYTES)
        if stored is None:
            return None
        with suppress(*_NOT_OURS):  # the prefix has other objects, too
            return parse_record(key, stored.etag, stored.body)
        return None

    def _lines(self, bucket: str, key: str) -> Iterator[dict[str, Any]]:
        with closing(self.objects.open(bucket, key)) as body:
            for text in body:
                with suppress(ValueError, RecursionError):
                    line = json.loads(text)
                    if isinstance(line, dict):
                        yield line

    def _add_lines(self, bucket: str, key: str) -> None:
        """Add the lines of a dataset, which spare the reading of its images."""
        for line in self._lines(bucket, key):
            request_id = line.get("request_id")
            if isinstance(request_id, str):
                self.add_requests([request_id])
                of_image = (request_id, bucket, line.get("key"), line.get("etag"))
                query = "update objects set request_id = ? where bucket = ? and key = ? and etag = ?"
                self._database.execute(query, of_image)

    def _add_plan(self, bucket: str, key: str) -> None:
        """Add the items that a dataset's run generates."""
        for line in self._lines(bucket, key):
            with suppress(*_NOT_OURS):
                planned = (GenerationRequest.from_inputs(line["request"]).fingerprint, bucket, line["key"])
                self._database.execute("insert or ignore into planned values (?, ?, ?)", planned)

    def _read_images(self) -> None:
        """Read which requests made the objects that no line names."""
        query = "select bucket, key from objects where request_id is null limit ?"
        with ThreadPoolExecutor(_THREADS, "ideogram-evidence") as pool:
            while unread := self._database.execute(query, (_BATCH,)).fetchall():
                heads = pool.map(lambda place: self.objects.head(*place), unread)
                found = [((head and made_by(head)) or "", *place) for head, place in zip(heads, unread, strict=True)]
                self._database.executemany("update objects set request_id = ? where bucket = ? and key = ?", found)


def _is_submit_of(record: LedgerRecord, row: HistoryRow) -> bool:
    """Return whether a request of the history may be that of an unknown submit."""
    intent = record.intent
    if row.request_id in intent.excluded_request_ids:
        return False
    return bool(find_submitted([row], intent.request, intent.first_submit_at, intent.intent_at))


def requests_of_tasks(since: float) -> Iterator[tuple[str, Any]]:
    """
    Yield the requests that tasks have submitted since a time, each with its task's result, by Airflow's database.

    :param since: The time in seconds since the epoch.
    :raises SQLAlchemyError: If the database can't be read.
    """
    from airflow.models import xcom
    from airflow.utils.session import create_session
    from sqlalchemy import and_, select
    from sqlalchemy.orm import aliased

    tables = (getattr(xcom, name, None) for name in ("XComModel", "XCom"))  # the second one before Airflow 3.0
    request: Any = next(filter(None, tables))
    result = aliased(request)
    same = (getattr(request, name) == getattr(result, name) for name in ("dag_run_id", "task_id", "map_index"))
    query = (
        select(request.value, result.value)
        .outerjoin(result, and_(*same, result.key == "return_value"))
        .where(request.key == "request_id", request.timestamp >= datetime.fromtimestamp(since, UTC))
    )
    with create_session() as session:
        for request_id, of_task in session.execute(query.execution_options(yield_per=1000)):
            yield str(_plain(request_id)), _plain(of_task)


def _plain(value: Any) -> Any:
    """Return an XCom's value as plain JSON: versions of Airflow store it as JSON, text or bytes."""
    text = value.decode() if isinstance(value, bytes) else value
    if not isinstance(text, str) or text[:1] not in ('"', "{"):  # a plain request id may look like a number
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
