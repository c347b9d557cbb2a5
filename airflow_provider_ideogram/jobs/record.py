"""
The format of the ledger's records.

Invariant: a record that this version writes can be read by this and later versions. What can't be read raises; a record
too large to be read is not made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.jobs.identity import attempt_group
from airflow_provider_ideogram.storage.image_record import iso_utc

#: The version of the records' format. A change must keep older versions readable.
VERSION = 1
#: The size in bytes of a record that is read at most.
MAX_BYTES = 1 << 20
#: Leaves room for the request id, which is added after the submit.
MAX_INTENT_BYTES = MAX_BYTES - 1024
#: Seconds after which the submit of an intent certainly is no longer on its way.
SUBMITTED_AFTER = 120.0
#: Fields of the intent that a record has only if they differ from the default.
_OPTIONAL = ("excluded_request_ids", "submit_attempts", "submits_before", "unsettled_since", "reservation")


@dataclass(frozen=True, slots=True)
class Intent:
    """
    The intent to submit a request.

    :param request: What will be sent, the drawn seed included.
    :param fingerprint: The fingerprint of what the user asked for, before a seed was drawn.
    :param target: The address ``s3://bucket/key`` where the image goes.
    :param intent_at: When it was written, in seconds since the epoch; taken as the time of the submit.
    :param owner: The task instance: ``dag_id/run_id/task_id/map_index``.
    :param max_tries: The task instance's, which changes on a clear.
    :param excluded_request_ids: Ended requests with the same inputs: the history must not take them for this one.
    :param submit_attempts: Submits of it that were answered 500, 502 or 503.
    :param submits_before: Submits of it before the one that follows this intent.
    :param unsettled_since: When the first of several submits of it was intended that may all have been accepted; None
        if there is but one.
    :param reservation: The amount that the account has reserved for it, None for none.
    """

    request: GenerationRequest
    fingerprint: str
    target: str
    intent_at: float
    owner: str
    max_tries: int
    excluded_request_ids: tuple[str, ...] = ()
    submit_attempts: int = 0
    submits_before: int = 0
    unsettled_since: float | None = None
    reservation: str | None = None

    @property
    def first_submit_at(self) -> float:
        """When the first submit was intended that may have been accepted."""
        return self.intent_at if self.unsettled_since is None else self.unsettled_since

    @property
    def is_answered(self) -> bool:
        """Whether each submit of it was answered 500, 502 or 503."""
        return self.submit_attempts == self.submits_before + 1

    @property
    def attempt_group(self) -> str:
        """The attempts of the task instance between two clears, as a digest for the image's metadata."""
        return attempt_group(self.owner, self.max_tries)


@dataclass(frozen=True, slots=True)
class LedgerRecord:
    """
    A record as it is in S3.

    :param key: The record's own key.
    :param etag: Its version.
    :param intent: The intent.
    :param request_id: The vendor's id of the request; None if it is unknown whether the request was submitted.
    :param not_submitted: Whether it certainly was not submitted, though the record could not be deleted.
    """

    key: str
    etag: str
    intent: Intent
    request_id: str | None = None
    not_submitted: bool = False

    @property
    def job(self) -> Job:
        """The submitted request; raises ValueError if the record has no request id."""
        if self.request_id is None:
            raise ValueError("the record has no request id")
        intent = self.intent
        return Job(
            self.request_id,
            intent.intent_at,
            intent.request,
            intent.fingerprint,
            intent.target,
            record_key=self.key,
            record_etag=self.etag,
            attempt_group=intent.attempt_group,
            reservation=intent.reservation,
        )

    @property
    def is_in_doubt(self) -> bool:
        """Whether it is unknown whether the request was submitted."""
        return self.request_id is None and not self.not_submitted

    def is_of_image(self, request_id: str | None, submitted_at: str | None) -> bool:
        """
        Return whether the record is of the request of a stored image.

        :param request_id: The image's request.
        :param submitted_at: When that was submitted, in ISO 8601: it tells the request of a record without its id,
            since the intent's time is taken for it.
        """
        if self.request_id is None:
            return iso_utc(self.intent.intent_at) == submitted_at
        return self.request_id == request_id

    def is_ended_by_image(self, owner: str, fingerprint: str, now: float) -> bool:
        """
        Return whether a stored image of the same inputs ends the record.

        It does if nothing was submitted, or if its own task submitted more than two minutes ago without a response.

        :param owner: The task instance that has the image.
        :param fingerprint: The fingerprint of the image's inputs.
        :param now: Seconds since the epoch.
        """
        is_past = now > self.intent.intent_at + SUBMITTED_AFTER
        is_own = (self.intent.owner, self.intent.fingerprint) == (owner, fingerprint)
        return self.not_submitted or (self.is_in_doubt and is_past and is_own)

    def followed_by(self, intent: Intent, now: float) -> Intent:
        """
        Return an intent as it is written over this record; the same inputs keep the seed that was drawn before.

        :param now: Seconds since the epoch.
        """
        own = self.intent
        same = own.fingerprint == intent.fingerprint
        unsettled = same and self.is_in_doubt
        cleared = intent.max_tries != own.max_tries and intent.owner == own.owner
        return replace(
            intent,
            request=own.request if same else intent.request,
            intent_at=now,
            # Otherwise the history could take the ended request for the next one.
            excluded_request_ids=own.excluded_request_ids + ((self.request_id,) if self.request_id else ()),
            submit_attempts=own.submit_attempts if unsettled and not cleared else 0,
            submits_before=own.submits_before + 1 if unsettled and not cleared else 0,
            unsettled_since=own.first_submit_at if unsettled else None,
        )


def check_size(key: str, intent: Intent) -> None:
    """Raise IdeogramInvalidInput for an intent whose record would be too large to be read."""
    size = len(body_of(LedgerRecord(key, "", intent)))
    if size > MAX_INTENT_BYTES:
        raise IdeogramInvalidInput.of(
            [
                f"the inputs take {size:,} bytes in the ledger, which reads at most {MAX_INTENT_BYTES:,}; pass the "
                "address of an image in model_params instead of its data"
            ]
        )


def body_of(record: LedgerRecord) -> bytes:
    """Return the record as JSON."""
    intent = asdict(record.intent)
    document = {
        "version": VERSION,
        "request_id": record.request_id,
        **({"not_submitted": True} if record.not_submitted else {}),
        **{name: value for name, value in intent.items() if name not in _OPTIONAL or value},
        "request": record.intent.request.inputs(),
    }
    return json.dumps(document, ensure_ascii=False).encode()


def parse_record(key: str, etag: str, body: bytes) -> LedgerRecord:
    """Read a record; raise ValueError, TypeError, KeyError or RecursionError for anything else."""
    document: Mapping[str, Any] = json.loads(body)
    if document["version"] != VERSION:
        raise ValueError(f"it has version {document['version']!r}; this provider reads version {VERSION}")
    known = {item.name: document[item.name] for item in fields(Intent) if item.name not in _OPTIONAL}
    intent = Intent(
        **{**known, "request": GenerationRequest.from_inputs(document["request"])},
        excluded_request_ids=tuple(document.get("excluded_request_ids", ())),
        submit_attempts=int(document.get("submit_attempts", 0)),
        submits_before=int(document.get("submits_before", 0)),
        unsettled_since=document.get("unsettled_since"),
        reservation=document.get("reservation"),
    )
    return LedgerRecord(key, etag, intent, document["request_id"], not_submitted=document.get("not_submitted") is True)
