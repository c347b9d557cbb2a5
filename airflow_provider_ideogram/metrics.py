"""
Airflow's metrics (StatsD, OpenTelemetry) of requests and money.

Invariant: only workers count, since a trigger may run twice. Every name is fixed, so that a StatsD without tags has all
of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import Stats

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.job import Job
    from airflow_provider_ideogram.storage.image_record import ImageRecord

_MICROS = 1_000_000


def submitted(model: str) -> None:
    """Count an accepted request."""
    Stats.incr("ideogram.submitted", tags={"model": model})


def remaining_credits(usd: float | None) -> None:
    """Set the account's balance, if a response named it."""
    if usd is not None:
        Stats.gauge("ideogram.remaining_credits", usd)


def completed(job: Job, record: ImageRecord, completed_at: float | None) -> None:
    """
    Count a stored image and its cost in millionths of a USD, and time its request.

    :param completed_at: When its completion was noticed, in seconds since the epoch.
    """
    tags = {"model": record.model or "unknown"}
    Stats.incr("ideogram.completed", tags=tags)
    if record.cost_usd:
        Stats.incr("ideogram.cost_micros", round(record.cost_usd * _MICROS), tags=tags)
    if record.inference_seconds is None or completed_at is None:
        return
    Stats.timing("ideogram.inference", _milliseconds(record.inference_seconds), tags=tags)
    delay = completed_at - job.submitted_at - record.inference_seconds
    Stats.timing("ideogram.noticed_delay", _milliseconds(max(delay, 0.0)), tags=tags)


def reused(images: int = 1) -> None:
    """Count reused images."""
    if images:
        Stats.incr("ideogram.reused", images)


def rejected(gate: str) -> None:
    """Count an image that a gate of a dataset did not accept."""
    Stats.incr("ideogram.rejected", tags={"gate": gate})


def failed(reason: str) -> None:
    """
    Count an attempt, or a dataset's item, that ended without an image, with a tag and by name.

    :param reason: :attr:`~airflow_provider_ideogram.exceptions.IdeogramError.code` of the error.
    """
    Stats.incr("ideogram.failed", tags={"reason": reason})
    Stats.incr(f"ideogram.failed.{reason}")


def _milliseconds(seconds: float) -> float:
    return seconds * 1000.0
