"""
A submitted job: all that is needed to end it in another process.

Invariant: the request is the one that was sent, with its seed; templates that render differently when a task
resumes change nothing about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL, GenerationRequest

#: The vendor's list price of an image in USD, for the models whose price is published per image.
_PRICES = {DEFAULT_MODEL: 0.05}


def list_price(model: str = DEFAULT_MODEL) -> float | None:
    """Return the vendor's list price of an image in USD, None for a model without one."""
    return _PRICES.get(model)


@dataclass(frozen=True, slots=True)
class Job:
    """
    A request that was accepted and charged.

    :param request_id: The vendor's id.
    :param submitted_at: When it was sent, in seconds since the epoch by the worker's clock.
    :param request: What was asked for, the drawn seed included; None for a request from elsewhere that nobody knows.
    :param fingerprint: The fingerprint of what the user asked for, before a seed was drawn.
    :param target: The address ``s3://bucket/key`` where the image goes.
    :param record_key: The key of the ledger's record, None without a ledger.
    :param record_etag: The version of the record that speaks of this job.
    :param paid_by_other_task: Whether another task submitted and paid it.
    :param attempt_group: The attempts whose image it is, see
        :func:`~airflow_provider_ideogram.jobs.identity.attempt_group`.
    """

    request_id: str
    submitted_at: float
    request: GenerationRequest | None
    fingerprint: str
    target: str
    record_key: str | None = None
    record_etag: str | None = None
    paid_by_other_task: bool = False
    attempt_group: str = ""

    @property
    def cost_usd(self) -> float | None:
        """What this task paid: the vendor's list price, None for a model without one."""
        if self.paid_by_other_task:
            return 0.0
        return list_price(self.request.model) if self.request else None

    def to_json(self) -> dict[str, Any]:
        """Return the job as plain JSON."""
        request = self.request.inputs() if self.request else None
        return {item.name: getattr(self, item.name) for item in fields(self)} | {"request": request}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Job:
        """Make the job again from what :meth:`to_json` returned."""
        request = value["request"]
        return cls(**{**value, "request": GenerationRequest.from_inputs(request) if request else None})
