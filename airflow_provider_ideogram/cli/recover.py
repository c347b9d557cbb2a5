"""
``ideogram recover``: stores the images of paid requests that no task has stored.

Invariant: nothing is submitted, and no object is replaced. An image is checked, and gets its metadata, as that of any
task does.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.account.reservations import Settlement, settle
from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.polling import RequestPoll
from airflow_provider_ideogram.cli.evidence import Claim
from airflow_provider_ideogram.cli.reconcile import State
from airflow_provider_ideogram.exceptions import IdeogramError
from airflow_provider_ideogram.jobs.completion import fetch_and_store, target_of
from airflow_provider_ideogram.jobs.ledger import Ledger
from airflow_provider_ideogram.storage.image_record import ImageRecord, made_by
from airflow_provider_ideogram.storage.objects import ConditionsNotSupported, PreconditionFailed
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.history import HistoryRow
    from airflow_provider_ideogram.cli.reconcile import Finding
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.hooks.image import SpooledImage
    from airflow_provider_ideogram.jobs.record import LedgerRecord
    from airflow_provider_ideogram.storage.image_store import ImageStore

#: Images that are fetched and stored at once.
_THREADS = 8
STORED, NOT_STORED = "stored", "not stored"


@dataclass(frozen=True, slots=True)
class Recovery:
    """
    Store images of requests.

    :param hook: The API.
    :param store: The images in S3.
    :param ledger_prefix: The prefix of the ledger in each bucket.
    :param prefix: Where images go whose targets are unknown or taken; None to leave them out.
    :param states: The states of the requests that are recovered.
    """

    hook: IdeogramHook
    store: ImageStore
    ledger_prefix: str
    prefix: Target | None
    states: frozenset[State] = frozenset({State.RECOVERABLE})

    def run(self, findings: Iterable[Finding]) -> Iterator[dict[str, Any]]:
        """Yield a row for each request of these states: its place, or why it is not stored."""
        self.hook.get_conn()  # on the main thread: Airflow reads connections there only
        found = (finding for finding in findings if finding.state in self.states and finding.row.image_url)
        with ThreadPoolExecutor(_THREADS, "ideogram-recover") as pool:
            yield from pool.map(self._recover, found)

    def _recover(self, finding: Finding) -> dict[str, Any]:
        claim = finding.claim or Claim()
        problems = []
        for target in filter(None, (claim.target, self.prefix)):
            try:
                record = self._store(finding, claim, target)
            except IdeogramError as error:
                problems.append(error.reason or str(error))
            except PreconditionFailed:
                problems.append(f"{target.uri} has another object")
            except ConditionsNotSupported:
                problems.append(f"the store of s3://{target.bucket} has no conditional writes")
            else:
                return _row(finding, STORED, record.uri, "; ".join(problems))
        return _row(finding, NOT_STORED, "", "; ".join(problems) or "its target is unknown: give --prefix")

    def _store(self, finding: Finding, claim: Claim, target: Target) -> ImageRecord:
        row, record = finding.row, claim.record
        request = row.request()
        fingerprint = claim.fingerprint or (request.fingerprint if request else "")
        group = record.intent.attempt_group if record and record.intent.target == target.uri else ""
        job = Job(row.request_id, row.created_at, request, fingerprint, target.uri, attempt_group=group)
        stored = self._fetch(job, row)
        if record is not None:
            self._end(record, stored)
        return stored

    def _fetch(self, job: Job, row: HistoryRow) -> ImageRecord:
        """Store the image, unless it is there: its task may have stored it since the objects were listed."""
        poll = RequestPoll(row.request_id, row.created_at)
        poll.on_history(row, time.time())
        place = Target.parse(job.target)

        def named(image: SpooledImage) -> Target:
            nonlocal place
            place = target_of(job, image.extension)
            return place

        try:
            return fetch_and_store(self.hook, self.store, job, poll, place=named, if_missing=True)
        except PreconditionFailed:
            head = self.store.head(place)
            if head is None or made_by(head) != row.request_id:
                raise
            return ImageRecord.of_object(place, head, job.request, own=True)

    def _end(self, record: LedgerRecord, stored: ImageRecord) -> None:
        """Settle the cost, and delete the record, as the task that submitted the request would."""
        settlement = Settlement(record.intent.reservation, stored.charged_usd)
        if settle(self.store.objects, [settlement]):
            bucket = Target.parse(record.intent.target).bucket
            Ledger(self.store.objects, bucket, self.ledger_prefix).delete(record.key, record.etag)


def _row(finding: Finding, result: str, place: str, detail: str) -> dict[str, Any]:
    cost = finding.row.cost_usd
    return {"request_id": finding.row.request_id, "result": result, "cost_usd": cost, "place": place, "detail": detail}
