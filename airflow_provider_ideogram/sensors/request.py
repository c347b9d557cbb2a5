"""
The sensor that waits for a request which another task or another client submitted.

Invariant: it never submits. The image is stored as the operator stores its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_provider_ideogram.api.parameters import CHECKS, GenerationRequest
from airflow_provider_ideogram.api.poll_schedule import EXPECTED_SECONDS
from airflow_provider_ideogram.api.request_id import is_request_id
from airflow_provider_ideogram.api.values import path_text, seconds, shown
from airflow_provider_ideogram.exceptions import (
    STILL_AVAILABLE,
    IdeogramError,
    IdeogramJobFailed,
    IdeogramObjectExists,
    IdeogramResultExpired,
    IdeogramStorageError,
    IdeogramTimeout,
)
from airflow_provider_ideogram.operators.base import problem_of, read_if_valid
from airflow_provider_ideogram.operators.job import IdeogramJobTask
from airflow_provider_ideogram.storage.target import DEFAULT_LEDGER_PREFIX, IF_EXISTS, Target, check_key

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_ideogram.api.job import Job
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger
    from airflow_provider_ideogram.jobs.record import LedgerRecord
    from airflow_provider_ideogram.jobs.refusal import OpenRequest
    from airflow_provider_ideogram.storage.image_record import ImageRecord


class IdeogramRequestSensor(IdeogramJobTask, BaseSensorOperator):
    """
    Wait for a submitted request, store its image in S3, and return the same as the operator.

    :param request: The result of a task with ``wait_for_completion=False``, or the id of a request from elsewhere,
        whose inputs are read from the account's request history. If they are not there, the image is stored with a null
        prompt.
    :param s3_key: A key with ``s3_bucket``, or a full ``s3://bucket/key``. One ending in ``/`` gets
        ``<request_id>.<extension>``.
    :param s3_bucket: The bucket, None if ``s3_key`` names it.
    :param s3_extra_args: Arguments of ``put_object``.
    :param if_exists: An object of this request is always the result; any other object is replaced, or fails the task
        with ``fail``.
    :param ideogram_conn_id: The Airflow connection of type ``ideogram``.
    :param aws_conn_id: The Airflow connection of type ``aws``.
    :param deferrable: Wait in the triggerer; False pokes on a worker, or with ``mode="reschedule"`` in intervals.
    :param poke_interval: Seconds or a timedelta between polls; None follows the observed durations.
    :param timeout: Seconds or a timedelta from the submission until the task fails.
    :param on_content_blocked: ``fail`` or ``skip`` the task if the vendor blocks the content.
    :param thumbnails: Also store a thumbnail of the image below ``_ideogram/``, which the gallery shows.
    :param provenance: ``xmp`` marks the image as made by a model, without a change of its pixels.
    """

    template_fields: Sequence[str] = (
        "request",
        "s3_key",
        "s3_bucket",
        "s3_extra_args",
        "ideogram_conn_id",
        "aws_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"request": "json", "s3_extra_args": "json"}
    choices: ClassVar[Mapping[str, Sequence[str]]] = {"if_exists": IF_EXISTS, "on_content_blocked": ("fail", "skip")}
    durations: ClassVar[Mapping[str, str]] = {"timeout": "timeout", "poll_interval": "poke_interval"}

    #: A sensor submits nothing: its retry would find the same.
    _final = (IdeogramJobFailed, IdeogramResultExpired)
    #: Needed by the base class; the record is found by the argument's ``ledger_uri``.
    durable = True
    ledger_prefix = DEFAULT_LEDGER_PREFIX

    def __init__(
        self,
        *,
        request: Any,
        s3_key: str | os.PathLike[str] | ObjectStoragePath,
        s3_bucket: str | None = None,
        s3_extra_args: Mapping[str, Any] | None = None,
        if_exists: str = "reuse",
        ideogram_conn_id: str = "ideogram_default",
        aws_conn_id: str | None = "aws_default",
        deferrable: bool = True,
        poke_interval: float | timedelta | None = None,
        timeout: float | timedelta = 3600,
        on_content_blocked: str = "fail",
        thumbnails: bool = True,
        provenance: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)  # without the durations, for which Airflow raises an error that it retries
        interval = read_if_valid(seconds, poke_interval)
        self.poke_interval = EXPECTED_SECONDS if interval is None else interval
        self.timeout = read_if_valid(seconds, timeout)
        self.request = request
        self.thumbnails = thumbnails
        self.provenance = provenance
        self.s3_key = path_text(s3_key)
        self.s3_bucket = s3_bucket
        self.s3_extra_args = s3_extra_args
        self.if_exists = if_exists
        self.ideogram_conn_id = ideogram_conn_id
        self.aws_conn_id = aws_conn_id
        self.deferrable = deferrable
        self.poll_interval = interval
        self.on_content_blocked = on_content_blocked
        self._check_arguments()

    def _problems(self, is_final: Callable[[Any], bool]) -> list[str]:
        return super()._problems(is_final) + (check_request(self.request) if is_final(self.request) else [])

    def execute(self, context: Context) -> Any:
        """Check the request once; store its image, or wait for it."""
        if not self.deferrable:
            return self._poke_until_done(context)
        with self._skipping():
            return self._check_request(context)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Resume after the trigger fired: fetch and store the image, wait on, or raise the request's error."""
        with self._skipping():
            return super().execute_complete(context, event)

    def _on_deferral_ended(self, context: Context, why: str) -> NoReturn:
        with self._skipping():
            super()._on_deferral_ended(context, why)

    def _open_request(self, context: Context) -> OpenRequest:  # noqa: ARG002
        from airflow_provider_ideogram.jobs.refusal import submitted_before

        return submitted_before(request_id_of(self.request))

    def poke(self, context: Context) -> PokeReturnValue:
        """Check the request once; Airflow calls this repeatedly if the sensor does not defer."""
        with self._skipping():
            result = self._check_request(context)
        return PokeReturnValue(is_done=result is not None, xcom_value=result)

    def _poke_until_done(self, context: Context) -> Any:
        """Poke as Airflow does; its timeout becomes the request's error, which says that the request may be charged."""
        from airflow_provider_ideogram.api.polling import RequestPoll

        try:
            return super().execute(context)
        except AirflowSensorTimeout as ended:
            with self._skipping(), self._failures(context):
                raise RequestPoll(request_id_of(self.request), time.time()).failure() from ended

    @contextmanager
    def _skipping(self) -> Iterator[None]:
        """Skip the task on a final failure if ``soft_fail`` or ``never_fail`` is set."""
        try:
            yield
        except (AirflowFailException, IdeogramTimeout) as failure:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(str(failure)) from failure
            raise

    def _check_request(self, context: Context) -> dict[str, Any] | None:
        """Return the stored image's XCom; defer or return None while the request is running."""
        from airflow_provider_ideogram.api.polling import Outcome, RequestPoll
        from airflow_provider_ideogram.jobs.completion import poll_once
        from airflow_provider_ideogram.jobs.recovery import recover
        from airflow_provider_ideogram.jobs.refusal import retried_while_open

        with self._failures(context), self._hook() as hook:
            self._check_rendered()
            with retried_while_open(lambda: self._open_request(context)):
                self._job = job = self._find_job(hook)
            context["ti"].xcom_push(key="request_id", value=job.request_id)
            if stored := self._find_stored(job) or self._copy_stored(job):
                self._end_request(job, stored.charged_usd)
                return self._succeed(context, stored)
            poll = RequestPoll(job.request_id, job.submitted_at)
            poll_once(hook, poll)
            if poll.outcome is Outcome.RECORD_GONE and not self.deferrable:
                recover(hook, poll, job.request)  # while the history shows it as running, it is poked again
            if poll.settled or time.time() >= self._deadline(job):
                return self._finish(context, hook, job, poll)
            if self.deferrable:
                self._defer_until_done(job)
            return None

    def _find_job(self, hook: IdeogramHook) -> Job:
        """Return the request with its inputs: from the ledger, the ``request`` argument, or the account's history."""
        from airflow_provider_ideogram.api.job import Job

        target = Target.parse(self.s3_key, self.s3_bucket)
        known: Mapping[str, Any] = {"request_id": self.request} if isinstance(self.request, str) else self.request
        request_id = request_id_of(self.request)
        if record := self._find_record(request_id):
            if record.intent.target == target.uri:
                return record.job
            # Another target's record stays: a task for that one still needs it.
            return replace(record.job, target=target.uri, record_key=None, record_etag=None)
        asked, submitted_at = self._from_argument(known) or self._from_history(hook, request_id) or (None, time.time())
        fingerprint = known.get("fingerprint") or (asked.fingerprint if asked else "")
        return Job(request_id, submitted_at, asked, fingerprint, target.uri)

    def _find_record(self, request_id: str) -> LedgerRecord | None:
        """Return the request's record in the ledger, None if the argument names none or it was deleted."""
        target = self._record_target
        record = self._ledger(target).read(target.key) if target else None
        return record if record and record.request_id == request_id else None

    @property
    def _record_target(self) -> Target | None:
        uri = self.request.get("ledger_uri") if isinstance(self.request, Mapping) else None
        return Target.parse(uri) if uri else None

    def _ledger_of(self, job: Job) -> Ledger | NoLedger:
        return self._ledger(self._record_target or Target.parse(job.target))

    def _from_argument(self, known: Mapping[str, Any]) -> tuple[GenerationRequest, float] | None:
        if "prompt" not in known:
            return None
        request = GenerationRequest.from_inputs({name: known[name] for name in CHECKS if name in known})
        submitted_at = known.get("submitted_at")
        return request, datetime.fromisoformat(submitted_at).timestamp() if submitted_at else time.time()

    def _from_history(self, hook: IdeogramHook, request_id: str) -> tuple[GenerationRequest | None, float] | None:
        try:
            row = hook.find_in_history(request_id)
        except IdeogramError as problem:
            self.log.warning("The inputs of request %s are unknown: %s", request_id, problem.reason)
            return None
        return (row.request(), row.created_at) if row else None

    def _find_stored(self, job: Job) -> ImageRecord | None:
        """Return the request's image if it is stored; raise if another object must stay at the target."""
        from airflow_provider_ideogram.jobs.refusal import retried_while_open, submitted_before
        from airflow_provider_ideogram.storage.image_record import ImageRecord, made_by

        target = Target.parse(job.target)
        with retried_while_open(lambda: submitted_before(job.request_id)):
            head = self._store.find(target)
        if head is None:
            return None
        if made_by(head) == job.request_id:
            return ImageRecord.of_object(target, head, job.request, own=True)
        if self.if_exists == "fail":
            raise IdeogramObjectExists(
                f"{target.uri} exists and if_exists is 'fail'",
                f"{STILL_AVAILABLE} Choose another key, or if_exists='overwrite'.",
                charged=None,
                request_id=job.request_id,
            )
        return None

    def _copy_stored(self, job: Job) -> ImageRecord | None:
        """
        Copy the image from where the submitting task found it stored, also after the vendor's seven days.

        :return: None if the argument names no such image, or if it can't be copied: then it is fetched.
        """
        uri = self.request.get("uri") if isinstance(self.request, Mapping) else None
        if not isinstance(uri, str) or check_key(uri, with_bucket=False):
            return None
        try:
            return self._store.copy_of_request(Target.parse(uri), Target.parse(job.target), job)
        except IdeogramStorageError as error:
            self.log.warning("%s can't be copied, and is fetched from the vendor: %s", uri, error.reason)
            return None


def request_id_of(request: str | Mapping[str, Any]) -> str:
    """Return the id that a valid ``request`` argument names."""
    return request if isinstance(request, str) else str(request["request_id"])


def check_request(request: Any) -> list[str]:
    """Return the problems of a ``request`` argument."""
    submitted = request if isinstance(request, Mapping) else {"request_id": request}
    if not is_request_id(submitted.get("request_id")):
        return [f"request: {shown(request)} is neither a request id nor the result of a task that submitted a request"]
    problems = problem_of("request, submitted_at", _check_time, submitted.get("submitted_at"))
    for name in ("fingerprint", "ledger_uri"):
        if not isinstance(submitted.get(name), str | None):
            problems.append(f"request, {name}: must be text, not {shown(submitted[name])}")
    return problems


def _check_time(value: Any) -> None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a time in ISO 8601")
    if value:
        datetime.fromisoformat(value)
