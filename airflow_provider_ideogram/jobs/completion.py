"""
The completion of a submitted request, on a worker.

Invariant: nothing here submits; a request is polled, and its image fetched and stored. Every error names the request.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_provider_ideogram import metrics
from airflow_provider_ideogram.api.image_source import ImageUrl
from airflow_provider_ideogram.api.polling import FILE_LIFETIME, RESULT_LIFETIME, Outcome
from airflow_provider_ideogram.exceptions import (
    IdeogramError,
    IdeogramImageGone,
    IdeogramInvalidImage,
    IdeogramNotCharged,
    IdeogramNotFound,
    IdeogramServerUnavailable,
    completed_not_stored,
    job_unreachable,
)
from airflow_provider_ideogram.jobs.recovery import recover
from airflow_provider_ideogram.storage.image_record import Completion, ImageRecord
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_ideogram.api.image_source import ImageSource
    from airflow_provider_ideogram.api.job import Job
    from airflow_provider_ideogram.api.polling import RequestPoll
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.hooks.image import SpooledImage
    from airflow_provider_ideogram.storage.image_store import ImageStore


def poll_once(hook: IdeogramHook, poll: RequestPoll) -> None:
    """Get the request's status once; the poll decides what the response or the error means."""
    try:
        poll.on_status(hook.get_status(poll.request_id, max_attempts=1), time.time())
    except IdeogramError as error:
        poll.on_error(error, time.time())


def target_of(job: Job, extension: str) -> Target:
    """Return where the image of a request is stored."""
    return Target.parse(job.target).named(job.request_id, extension, job.attempt_group)


def fetch_and_store(
    hook: IdeogramHook,
    store: ImageStore,
    job: Job,
    poll: RequestPoll,
    *,
    place: Callable[[SpooledImage], Target] | None = None,
    asked: str | None = None,
    if_missing: bool = False,
) -> ImageRecord:
    """
    Store a completed request's image in S3.

    :param place: Returns the address for an image; None takes the job's.
    :param asked: The fingerprint that the image is found by, if the request is another attempt of what was asked.
    :param if_missing: Whether it must not replace an object, see :meth:`ImageStore.put`.
    :raises IdeogramTemporaryError: If the vendor or S3 can't do their part now.
    :raises IdeogramJobError: If there is no image, or none that may be stored.
    """
    source = _image_source(hook, job, poll)
    completion = Completion(poll.completed_at, poll.inference_seconds, poll.cost_usd)
    try:
        with hook.download_image(source) as image:
            target = place(image) if place else target_of(job, image.extension)
            record = store.put(job, image, target, completion, asked, if_missing=if_missing)
    except IdeogramImageGone as problem:
        if not _is_gone(problem, time.time() - job.submitted_at):
            raise IdeogramServerUnavailable(
                problem.reason, completed_not_stored(job.request_id), charged=True
            ) from problem
        poll.outcome = Outcome.EXPIRED
        expired = poll.failure()
        expired.charged = True
        raise expired from problem
    except IdeogramInvalidImage as problem:
        raise IdeogramInvalidImage(
            f"The image of request {job.request_id} can't be stored: {problem.reason}",
            f"{problem.advice} A retry fetches the image again.",
            request_id=job.request_id,
        ) from problem
    metrics.completed(job, record, poll.completed_at)
    metrics.remaining_credits(poll.remaining_credits)
    return record


def _is_gone(problem: IdeogramImageGone, age: float) -> bool:
    """Return whether the vendor no longer has the file: a new one may be missing, and a proxy may answer 403."""
    return age > FILE_LIFETIME or (age > RESULT_LIFETIME and problem.status_code in (404, 410))


def _image_source(hook: IdeogramHook, job: Job, poll: RequestPoll) -> ImageSource:
    """Return where the image is: by the history's address, or by the request's result."""
    if poll.image_url is None:
        try:
            result = hook.get_result(job.request_id)
        except IdeogramNotFound as problem:
            if not poll.hour_is_over(time.time()):
                raise IdeogramServerUnavailable(
                    f"the result of request {job.request_id} is not there yet: {problem.reason}",
                    completed_not_stored(job.request_id),
                    charged=True,
                ) from problem
            recover(hook, poll, job.request)
        except IdeogramNotCharged as problem:  # this call was not charged, the request was
            raise job_unreachable(job.request_id, problem.reason, completed=True) from problem
        else:
            poll.inference_seconds = result.inference_seconds or poll.inference_seconds
            poll.cost_usd = poll.cost_usd if result.cost_usd is None else result.cost_usd
            if result.remaining_credits is not None:
                poll.remaining_credits = result.remaining_credits
            return result.image
    if poll.image_url is not None:
        return ImageUrl(poll.image_url)
    if poll.outcome is Outcome.PENDING:  # the status said COMPLETED: the history lags behind
        raise IdeogramServerUnavailable(
            f"the account's history does not show the image of request {job.request_id} yet",
            completed_not_stored(job.request_id),
            charged=True,
        )
    raise poll.failure()
