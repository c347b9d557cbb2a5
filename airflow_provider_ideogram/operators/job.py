"""
A task that waits for one submitted request and stores its image.

Invariant: nothing here submits. The deferred and the blocking wait end in the same decisions, and every error says what
happened to the money.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL
from airflow_provider_ideogram.exceptions import (
    IdeogramContentBlocked,
    IdeogramError,
    IdeogramJobError,
    IdeogramStorageError,
    IdeogramTemporaryError,
    job_unreachable,
    request_continues,
)
from airflow_provider_ideogram.links import SegmindRequestLink
from airflow_provider_ideogram.links.ideogram import gallery_address, has_gallery
from airflow_provider_ideogram.operators.base import IdeogramTask
from airflow_provider_ideogram.operators.failures import airflow_failures, deferral_ended
from airflow_provider_ideogram.storage.target import Target, check_bucket, check_key

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_ideogram.api.job import Job
    from airflow_provider_ideogram.api.polling import RequestPoll
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger
    from airflow_provider_ideogram.jobs.refusal import OpenRequest
    from airflow_provider_ideogram.storage.image_record import ImageRecord

#: Seconds between two attempts to fetch or store a completed image.
FETCH_RETRY_SECONDS = 30.0


class IdeogramJobTask(IdeogramTask):
    """A task whose result is the image of one request."""

    own_links = (*IdeogramTask.own_links, SegmindRequestLink())
    s3_key: str
    s3_bucket: str | None
    on_content_blocked: str
    #: Errors that another attempt of the task cannot resolve.
    _final: ClassVar[tuple[type[IdeogramError], ...]] = ()
    _job: Job | None = None
    _is_submitting: bool = False
    _result: Mapping[str, Any] | None = None

    def _problems(self, is_final: Callable[[Any], bool]) -> list[str]:
        problems = super()._problems(is_final)
        if is_final(self.s3_key) and is_final(self.s3_bucket):
            problems += check_key(self.s3_key, self.s3_bucket is not None) + check_bucket(self.s3_bucket)
        return problems

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Resume after the trigger fired: fetch and store the image, wait on, or raise the request's error."""
        from airflow_provider_ideogram.api.job import Job
        from airflow_provider_ideogram.api.polling import RequestPoll

        self._job = job = Job.from_json(event["payload"])
        poll = RequestPoll(job.request_id, job.submitted_at)
        if report := event["requests"].get(job.request_id):
            poll.take_report(report)
        with self._failures(context), self._hook() as hook:
            return self._finish(context, hook, job, poll, trigger_error=event["error"])

    @property
    def request_id(self) -> str | None:
        """The id of the request of this slice, None before one was submitted or found; read by the link."""
        if self._job is not None:
            return self._job.request_id
        return self._result["request_id"] if self._result else None

    def on_kill(self) -> None:
        """Log what is known of the request: the API has no cancel call."""
        if self._job is not None:
            self.log.warning(request_continues(self._job.request_id))
        elif self._is_submitting:
            self.log.warning(
                "The task is ended while it may be submitting a request, which is charged if it completes. The next "
                "attempt finds out by the ledger and the account's history, unless the task has durable=False"
            )

    @contextmanager
    def _failures(self, context: Context) -> Iterator[None]:
        """End the task as the provider's errors and ``on_content_blocked`` ask for."""
        skipped = (IdeogramContentBlocked,) if self.on_content_blocked == "skip" else ()
        with airflow_failures(context["ti"], durable=self.durable, skipped=skipped, final=self._final):
            try:
                yield
            except (AirflowFailException, AirflowSkipException, IdeogramJobError):
                raise
            except Exception as error:
                if self.durable or self._job is None:
                    raise
                # Without a ledger a retry would submit and pay again, although this process knows the request.
                reason = error.reason if isinstance(error, IdeogramError) else type(error).__name__
                raise job_unreachable(self._job.request_id, reason) from error

    def _on_deferral_ended(self, context: Context, why: str) -> NoReturn:
        with self._failures(context):
            raise deferral_ended(why, self._open_request(context))

    def _open_request(self, context: Context) -> OpenRequest | None:
        """Return what is known of the request that an earlier slice left, None if there is certainly none."""
        raise NotImplementedError

    def _wait(self, hook: IdeogramHook, job: Job, poll: RequestPoll) -> None:
        """Wait on the worker, by the same decisions as the trigger and the worker that resumes after it."""
        from airflow_provider_ideogram.api.polling import Outcome
        from airflow_provider_ideogram.jobs.completion import poll_once
        from airflow_provider_ideogram.jobs.recovery import recover

        rng = random.Random()
        poll.poll_interval = self.poll_interval
        while True:
            if poll.outcome is Outcome.RECORD_GONE:
                recover(hook, poll, job.request)
            left = self._deadline(job) - time.time()
            if poll.settled or left <= 0:
                return
            time.sleep(min(poll.delay(time.time(), rng), left))
            poll_once(hook, poll)

    def _finish(
        self, context: Context, hook: IdeogramHook, job: Job, poll: RequestPoll, trigger_error: str | None = None
    ) -> dict[str, Any]:
        """Fetch and store the image, wait on where that helps, or raise the request's error."""
        from airflow_provider_ideogram.api.polling import Outcome
        from airflow_provider_ideogram.jobs.completion import poll_once
        from airflow_provider_ideogram.jobs.recovery import recover

        time_left = self.deferrable and time.time() < self._deadline(job)
        if poll.outcome in (Outcome.PENDING, Outcome.UNREACHABLE):
            poll_once(hook, poll)  # the request may have ended while the task waited for this worker
        if poll.outcome is Outcome.RECORD_GONE:
            recover(hook, poll, job.request)
        if poll.outcome is Outcome.COMPLETED:
            return self._store_image(context, hook, job, poll, time_left=time_left)
        if poll.outcome is Outcome.PENDING and trigger_error is not None:
            raise job_unreachable(job.request_id, trigger_error)
        if poll.outcome is Outcome.PENDING and time_left:
            if poll.hour_is_over(time.time()):  # its state is in the account's history only, which no trigger polls
                self._defer({}, time.time() + FETCH_RETRY_SECONDS, job.to_json(), "execute_complete")
            self._defer_until_done(job)
        if poll.is_terminal_failure:
            # The record of a blocked request tells a retry not to submit it again.
            keeps_record = poll.outcome is Outcome.CONTENT_BLOCKED and _has_retries(context)
            self._end_request(job, None, poll, keeps_record=keeps_record)
        raise poll.failure()

    def _store_image(
        self, context: Context, hook: IdeogramHook, job: Job, poll: RequestPoll, *, time_left: bool
    ) -> dict[str, Any]:
        """Fetch and store the image of a completed request; defer if that is not possible now and time is left."""
        from airflow_provider_ideogram.jobs.completion import fetch_and_store

        try:
            record = fetch_and_store(hook, self._store, job, poll)
        except IdeogramTemporaryError as problem:
            if time_left:
                self._defer_fetch(job, problem)
            raise job_unreachable(job.request_id, problem.reason, completed=True) from problem
        except IdeogramJobError:
            if poll.is_terminal_failure:  # the file is gone: the next attempt submits a new request
                self._end_request(job, None, poll)
            raise
        self._end_request(job, record.charged_usd)
        self.log.info(
            "Stored %s: %s x %s pixels, %d KiB, %s USD%s. Gallery: %s",
            record.uri,
            record.width,
            record.height,
            round((record.size_bytes or 0) / 1024),
            record.original_cost_usd,
            " (estimate)" if record.cost_is_estimate else "",
            gallery_address(context["ti"]) if has_gallery() else "none below Airflow 3.1",
        )
        return self._succeed(context, record)

    def _succeed(self, context: Context, record: ImageRecord) -> dict[str, Any]:
        """Return the stored image's XCom, and add it to the task's asset events."""
        self._result = record.to_xcom()
        self._add_asset_events(context, self._result, record.uri)
        return self._result

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """Return the image as the task's output; called by the openlineage provider if it is installed."""
        from airflow_provider_ideogram.operators.openlineage import lineage_of_image

        return lineage_of_image(self._result)

    def _defer_until_done(self, job: Job) -> NoReturn:
        model = job.request.model if job.request else DEFAULT_MODEL
        requests = {job.request_id: job.submitted_at}
        self._defer(requests, self._deadline(job), job.to_json(), "execute_complete", model)

    def _defer_fetch(self, job: Job, problem: IdeogramTemporaryError) -> NoReturn:
        """Defer until the next attempt to fetch or store a completed image."""
        self.log.warning(
            "Request %s is completed, but its image is not stored yet: %s. Next attempt in %.0f s",
            job.request_id,
            problem.reason,
            FETCH_RETRY_SECONDS,
        )
        self._defer({}, time.time() + FETCH_RETRY_SECONDS, job.to_json(), "execute_complete")

    def _defer(
        self,
        requests: Mapping[str, float],
        deadline: float,
        payload: Mapping[str, Any],
        method_name: str,
        model: str = DEFAULT_MODEL,
    ) -> NoReturn:
        from airflow_provider_ideogram.triggers.request import IdeogramTrigger

        trigger = IdeogramTrigger(
            requests=requests,
            deadline=deadline,
            ideogram_conn_id=self.ideogram_conn_id,
            poll_interval=self.poll_interval,
            model=model,
            payload=payload,
        )
        self._defer_to(trigger, method_name)

    def _deadline(self, job: Job) -> float:
        from airflow_provider_ideogram.api.polling import deadline_of

        return deadline_of(job.submitted_at, self.timeout)

    def _end_request(
        self, job: Job, cost_usd: float | None, failure: RequestPoll | None = None, *, keeps_record: bool = False
    ) -> None:
        """
        Settle the cost of a request that is stored or failed, and delete its record; a failure is only logged.

        :param cost_usd: What the vendor charged; None if that is unknown.
        :param failure: What is known of a request that has no image, or no longer; None for a stored one.
        :param keeps_record: Whether the next attempt needs the record.
        """
        try:
            is_settled = self._settle(job, cost_usd, failure)
            if is_settled and not keeps_record and job.record_key and job.record_etag:
                self._ledger_of(job).delete(job.record_key, job.record_etag)
        except IdeogramStorageError as error:
            self.log.warning("The ledger's record %s could not be deleted: %s", job.record_key, error.reason)

    def _settle(self, job: Job, cost_usd: float | None, failure: RequestPoll | None) -> bool:
        """Replace what the account has reserved by the cost, and return whether that was possible."""
        if job.reservation is None:
            return True
        from airflow_provider_ideogram.account.reservations import Settlement, settle
        from airflow_provider_ideogram.api.polling import Outcome

        is_lost = failure is not None and failure.outcome is Outcome.EXPIRED
        settlement = Settlement(
            job.reservation, cost_usd, failure is not None and not is_lost, job.request_id if is_lost else None
        )
        return settle(self._store.objects, [settlement])

    def _ledger_of(self, job: Job) -> Ledger | NoLedger:
        return self._ledger(Target.parse(job.target))


def _has_retries(context: Context) -> bool:
    """Return whether Airflow may run the task again without a person: this process may end before Airflow knows why."""
    ti = context["ti"]
    return bool(ti.try_number <= ti.max_tries)
