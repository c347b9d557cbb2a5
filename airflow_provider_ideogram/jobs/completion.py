"""
The end of a job that was submitted, on a worker.

Invariant: nothing here submits; a paid job is only looked at, fetched and stored, and every error names it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_provider_ideogram import metrics
from airflow_provider_ideogram.api.polling import Outcome
from airflow_provider_ideogram.exceptions import (
    IdeogramError,
    IdeogramInvalidImage,
    IdeogramNotCharged,
    IdeogramNotFound,
    IdeogramServerUnavailable,
    job_unreachable,
)
from airflow_provider_ideogram.storage.image_record import ImageRecord
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.job import Job
    from airflow_provider_ideogram.api.polling import RequestPoll
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.storage.image_store import ImageStore


def look(hook: IdeogramHook, poll: RequestPoll) -> None:
    """Ask for the job's state once, and let the poll decide what the answer or the error means."""
    try:
        poll.on_status(hook.get_status(poll.request_id, max_attempts=1), time.time())
    except IdeogramError as error:
        poll.on_error(error, time.time())


def fetch_and_store(hook: IdeogramHook, store: ImageStore, job: Job, poll: RequestPoll) -> ImageRecord:
    """
    Bring a completed job's image to S3.

    :raises IdeogramTemporaryError: If the vendor or S3 can't do their part now.
    :raises IdeogramJobError: If there is no image, or none that is fit to be stored.
    """
    try:
        result = hook.get_result(job.request_id)
    except IdeogramNotFound as problem:
        if not poll.hour_is_over(time.time()):
            raise IdeogramServerUnavailable(f"its result is not there yet: {problem.reason}") from problem
        poll.outcome = Outcome.EXPIRED
        raise poll.failure() from problem
    except IdeogramNotCharged as problem:  # true of this call, but the job was paid
        raise job_unreachable(job.request_id, problem.reason) from problem
    facts = {
        "completed_at": poll.completed_at,
        "inference_seconds": result.inference_seconds or poll.inference_seconds,
    }
    try:
        with hook.download_image(result.image) as image:
            target = Target.parse(job.target).named(job.request_id, image.extension)
            record = store.put(job, image, target, facts)
    except IdeogramInvalidImage as problem:
        raise IdeogramInvalidImage(
            f"Request {job.request_id} was paid, but {problem.reason}",
            f"{problem.advice} The vendor holds its result for one hour after the submission.",
            request_id=job.request_id,
        ) from problem
    metrics.completed(job, record, poll.completed_at)
    return record
