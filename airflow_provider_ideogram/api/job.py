"""
A submitted request with everything that another process needs to complete it.

Invariant: the request is the one that was sent, with its seed; templates that render differently when a task resumes
change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from airflow_provider_ideogram.api.parameters import GenerationRequest


@dataclass(frozen=True, slots=True)
class Job:
    """
    A submitted request and where its image goes.

    :param request_id: The vendor's id.
    :param submitted_at: When it was sent, in seconds since the epoch by the worker's clock.
    :param request: What was sent, the drawn seed included; None if a request from elsewhere has unknown inputs.
    :param fingerprint: The fingerprint of what the user asked for, before a seed was drawn.
    :param target: The address ``s3://bucket/key`` where the image goes.
    :param record_key: The key of the ledger's record, None without a ledger.
    :param record_etag: The version of that record.
    :param paid_by_other_task: Whether another task submitted it.
    :param attempt_group: The attempts whose image it is, see
        :func:`~airflow_provider_ideogram.jobs.identity.attempt_group`.
    :param reservation: The amount that the account has reserved for it, None for none.
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
    reservation: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the job as plain JSON."""
        request = self.request.inputs() if self.request else None
        known = {item.name: getattr(self, item.name) for item in fields(self)} | {"request": request}
        if self.reservation is None:
            del known["reservation"]
        return known

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Job:
        """Restore the job from :meth:`to_json`."""
        request = value["request"]
        return cls(**{**value, "request": GenerationRequest.from_inputs(request) if request else None})
