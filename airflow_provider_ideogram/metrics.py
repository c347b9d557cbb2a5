"""
What Airflow's metrics (StatsD, OpenTelemetry) are told of jobs and money.

Invariant: counted where it happens, on workers only, since a trigger may run twice. The names are few and known, also
to a StatsD without tags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import Stats

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.job import Job
    from airflow_provider_ideogram.storage.image_record import ImageRecord

_CENTS = 100


def submitted(model: str, price_usd: float | None) -> None:
    """Count a request that was accepted, and what it costs by the vendor's list price, in US cents."""
    tags = {"model": model}
    Stats.incr("ideogram.submitted", tags=tags)
    if price_usd:
        Stats.incr("ideogram.cost_cents", round(price_usd * _CENTS), tags=tags)


def completed(job: Job, record: ImageRecord, completed_at: float | None) -> None:
    """
    Count a job whose image is stored, and time it.

    :param completed_at: When it was noticed to be done, in seconds since the epoch.
    """
    tags = {"model": record.model or "unknown"}
    Stats.incr("ideogram.completed", tags=tags)
    if record.inference_seconds is None or completed_at is None:
        return
    Stats.timing("ideogram.inference", _milliseconds(record.inference_seconds), tags=tags)
    delay = completed_at - job.submitted_at - record.inference_seconds
    Stats.timing("ideogram.noticed_delay", _milliseconds(max(delay, 0.0)), tags=tags)


def reused(images: int = 1) -> None:
    """Count images that were there already."""
    if images:
        Stats.incr("ideogram.reused", images)


def failed(reason: str) -> None:
    """
    Count an attempt, or an item of a dataset, that ended without an image.

    :param reason: :attr:`~airflow_provider_ideogram.exceptions.IdeogramError.code` of the error.
    """
    Stats.incr("ideogram.failed", tags={"reason": reason})
    Stats.incr(f"ideogram.failed.{reason}")


def _milliseconds(seconds: float) -> float:
    return seconds * 1000.0
