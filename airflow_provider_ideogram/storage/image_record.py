"""
What is known of a stored image.

Invariant: :meth:`ImageRecord.to_xcom` has exactly the keys that downstream tasks rely on, whether the image was
made or reused: what S3 does not tell of an object by itself is in its metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.api.prices import list_price
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.job import Job
    from airflow_provider_ideogram.api.parameters import GenerationRequest
    from airflow_provider_ideogram.hooks.image import SpooledImage

_FINGERPRINT = "ideogram-fingerprint"
_ATTEMPT_GROUP = "ideogram-attempt-group"
#: The fields that only the metadata can tell, as text, with what reads them back.
_IN_METADATA: dict[str, type] = {
    "width": int,
    "height": int,
    "sha256": str,
    "request_id": str,
    "model": str,
    "seed": int,
    "inference_seconds": float,
    "submitted_at": str,
    "completed_at": str,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """A stored image; the fields are the XCom's, times are ISO 8601 in UTC, ``cost_usd`` is what this task paid."""

    uri: str
    bucket: str
    key: str
    etag: str | None
    version_id: str | None
    content_type: str | None
    size_bytes: int | None
    width: int | None
    height: int | None
    sha256: str | None
    request_id: str | None
    model: str | None
    prompt: str | None
    magic_prompt_option: str | None
    resolution: str | None
    style_type: str | None
    seed: int | None
    inference_seconds: float | None
    cost_usd: float | None
    reused: bool
    submitted_at: str | None
    completed_at: str | None

    def to_xcom(self) -> dict[str, Any]:
        """Return the flat dict for downstream tasks."""
        return asdict(self)

    @classmethod
    def of_upload(
        cls, job: Job, image: SpooledImage, target: Target, answer: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> ImageRecord:
        """
        Describe an image that was made and stored.

        :param answer: S3's answer to the upload.
        :param facts: ``inference_seconds`` and ``completed_at`` (seconds since the epoch), where they are known.
        """
        completed_at = facts.get("completed_at")
        return cls(
            **_place(target, answer),
            **_inputs(job.request),
            content_type=image.content_type,
            size_bytes=image.size_bytes,
            width=image.width,
            height=image.height,
            sha256=image.sha256.hex(),
            request_id=job.request_id,
            model=job.request.model if job.request else None,
            seed=job.request.seed if job.request else None,
            inference_seconds=facts.get("inference_seconds"),
            cost_usd=0.0 if job.paid_by_other_task else list_price(job.request.model) if job.request else None,
            reused=job.paid_by_other_task,
            submitted_at=iso_utc(job.submitted_at),
            completed_at=None if completed_at is None else iso_utc(completed_at),
        )

    @classmethod
    def of_object(
        cls, target: Target, head: Mapping[str, Any], request: GenerationRequest | None, *, own: bool = False
    ) -> ImageRecord:
        """
        Describe an object that was made from the same inputs before.

        :param head: S3's answer to HeadObject.
        :param request: The inputs; None where nobody knows them.
        :param own: Whether an attempt of this task paid for it; another's image costs nothing.
        """
        metadata = head.get("Metadata", {})
        known = {name: _read(metadata.get(f"ideogram-{_dashed(name)}"), kind) for name, kind in _IN_METADATA.items()}
        if request is not None:
            known["model"] = request.model
        return cls(
            **_place(target, head),
            **_inputs(request),
            **known,
            content_type=head.get("ContentType"),
            size_bytes=head.get("ContentLength"),
            cost_usd=list_price(known["model"] or "") if own else 0.0,
            reused=not own,
        )


def metadata_of(job: Job, image: SpooledImage, facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the S3 metadata from which :meth:`ImageRecord.of_object` reads back; ASCII, far below S3's 2 KB."""
    record = ImageRecord.of_upload(job, image, Target("", ""), {}, facts)
    known = {name: getattr(record, name) for name in _IN_METADATA}
    own = {_FINGERPRINT: job.fingerprint, _ATTEMPT_GROUP: job.attempt_group}
    return {
        **{name: value for name, value in own.items() if value},
        **{f"ideogram-{_dashed(name)}": str(value) for name, value in known.items() if value is not None},
    }


def made_from(head: Mapping[str, Any], request: GenerationRequest) -> bool:
    """Return whether an object, as S3's HeadObject describes it, was made from these inputs."""
    return fingerprint_of(head) == request.fingerprint


def fingerprint_of(head: Mapping[str, Any]) -> str | None:
    """Return the fingerprint of what an object was made from, None if it is not one of this provider's."""
    fingerprint: str | None = head.get("Metadata", {}).get(_FINGERPRINT)
    return fingerprint


def made_by(head: Mapping[str, Any]) -> str | None:
    """Return the id of the request that made an object, None if it is not one of this provider's."""
    request_id: str | None = head.get("Metadata", {}).get("ideogram-request-id")
    return request_id


def paid_by_group(head: Mapping[str, Any], group: str) -> bool:
    """Return whether one of these attempts paid for an object."""
    paid: bool = head.get("Metadata", {}).get(_ATTEMPT_GROUP) == group
    return paid


def iso_utc(seconds: float) -> str:
    """Return a time in seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _place(target: Target, answer: Mapping[str, Any]) -> dict[str, Any]:
    etag = answer.get("ETag")
    return {
        "uri": target.uri,
        "bucket": target.bucket,
        "key": target.key,
        "etag": etag.strip('"') if etag else None,
        "version_id": answer.get("VersionId"),
    }


def _inputs(request: GenerationRequest | None) -> dict[str, Any]:
    names = ("prompt", "magic_prompt_option", "resolution", "style_type")
    return {name: getattr(request, name, None) for name in names}


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _read(text: str | None, kind: type) -> Any:
    """Return the metadata's text as a value, None where it is missing or was changed by somebody."""
    try:
        return None if text is None else kind(text)
    except ValueError:
        return None
