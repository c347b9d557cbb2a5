"""
The description of a stored image.

Invariant: :meth:`ImageRecord.to_xcom` has exactly the keys that downstream tasks rely on, whether the image was
generated or reused: the object's metadata holds what S3 itself does not return.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from airflow_provider_ideogram.api.prices import list_price

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.job import Job
    from airflow_provider_ideogram.api.parameters import GenerationRequest
    from airflow_provider_ideogram.hooks.image import SpooledImage
    from airflow_provider_ideogram.storage.target import Target

_PREFIX = "ideogram-"
_FINGERPRINT = "ideogram-fingerprint"
#: Of the inputs that were sent, if they are another attempt of those that were asked for.
_SENT_FINGERPRINT = "ideogram-sent-fingerprint"
_ATTEMPT_GROUP = "ideogram-attempt-group"
_THUMBNAIL = "ideogram-thumbnail"


def _flag(text: str) -> bool:
    return text == "True"


#: The fields that only the metadata has, with the function that reads each from its text.
_IN_METADATA: dict[str, Any] = {
    "width": int,
    "height": int,
    "sha256": str,
    "request_id": str,
    "model": str,
    "seed": int,
    "inference_seconds": float,
    "submitted_at": str,
    "completed_at": str,
    "original_cost_usd": float,
    "cost_is_estimate": _flag,
    "provenance": str,
}


@dataclass(frozen=True, slots=True)
class Completion:
    """
    The end of a completed request.

    :param completed_at: When it was noticed, in seconds since the epoch; None if unknown.
    :param inference_seconds: How long the vendor computed; None if unknown.
    :param cost_usd: What the vendor charged; None if unknown, and then the list price is the estimate.
    """

    completed_at: float | None = None
    inference_seconds: float | None = None
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """
    A stored image; the fields are those of the XCom, times are ISO 8601 in UTC.

    ``cost_usd`` is what this task paid: 0 for a reused image. ``original_cost_usd`` is what the vendor charged for the
    image when it was generated. ``cost_is_estimate`` says that this is a list price.
    """

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
    original_cost_usd: float | None
    cost_is_estimate: bool
    reused: bool
    submitted_at: str | None
    completed_at: str | None
    provenance: str | None = None

    @property
    def charged_usd(self) -> float | None:
        """What the vendor charged for the image, None if that is unknown."""
        return None if self.cost_is_estimate else self.original_cost_usd

    def to_xcom(self) -> dict[str, Any]:
        """Return the flat dict for downstream tasks."""
        return asdict(self)

    @classmethod
    def of_upload(
        cls, job: Job, image: SpooledImage, target: Target, response: Mapping[str, Any], completion: Completion
    ) -> ImageRecord:
        """
        Describe an image that was generated and stored.

        :param response: S3's response to the upload.
        """
        cost, is_estimate = _cost_of(job, completion)
        return cls(
            **_address(target, response),
            **_inputs(job.request),
            content_type=image.content_type,
            size_bytes=image.size_bytes,
            width=image.width,
            height=image.height,
            sha256=image.sha256.hex(),
            provenance=image.provenance,
            request_id=job.request_id,
            model=job.request.model if job.request else None,
            seed=job.request.seed if job.request else None,
            inference_seconds=completion.inference_seconds,
            cost_usd=0.0 if job.paid_by_other_task else cost,
            original_cost_usd=cost,
            cost_is_estimate=is_estimate,
            reused=job.paid_by_other_task,
            submitted_at=iso_utc(job.submitted_at),
            completed_at=None if completion.completed_at is None else iso_utc(completion.completed_at),
        )

    @classmethod
    def of_object(
        cls, target: Target, head: Mapping[str, Any], request: GenerationRequest | None, *, own: bool = False
    ) -> ImageRecord:
        """
        Describe an object that was generated earlier.

        :param head: S3's description of it.
        :param request: Its inputs; None if they are unknown.
        :param own: Whether an attempt of this task paid for it.
        """
        metadata = head.get("Metadata", {})
        known = {name: _read(metadata.get(_metadata_name(name)), read) for name, read in _IN_METADATA.items()}
        known["cost_is_estimate"] = bool(known["cost_is_estimate"])
        if request is not None:
            known["model"] = request.model
        return cls(
            **_address(target, head),
            **_inputs(request),
            **known,
            content_type=head.get("ContentType"),
            size_bytes=head.get("ContentLength"),
            cost_usd=known["original_cost_usd"] if own else 0.0,
            reused=not own,
        )


#: The names of the fields, in their order.
RECORD_FIELDS = tuple(field.name for field in fields(ImageRecord))


def metadata_of(job: Job, image: SpooledImage, completion: Completion, asked: str | None = None) -> dict[str, str]:
    """
    Return the S3 metadata that :meth:`ImageRecord.of_object` reads; ASCII, far below S3's 2 KB.

    :param asked: The fingerprint that the image is found by; None for the job's.
    """
    from airflow_provider_ideogram.storage.target import Target

    record = ImageRecord.of_upload(job, image, Target("", ""), {}, completion)
    known = {name: getattr(record, name) for name in _IN_METADATA}
    own = {_FINGERPRINT: asked or job.fingerprint, _ATTEMPT_GROUP: job.attempt_group}
    if own[_FINGERPRINT] != job.fingerprint:
        own[_SENT_FINGERPRINT] = job.fingerprint
    return {
        **{name: value for name, value in own.items() if value},
        **{_metadata_name(name): str(value) for name, value in known.items() if value is not None},
    }


def made_from(head: Mapping[str, Any], request: GenerationRequest, asked: str | None = None) -> bool:
    """
    Return whether an object, by S3's description of it, was made from these inputs, or as an attempt of them.

    :param asked: The fingerprint of the inputs that were asked for, if these are an attempt of them.
    """
    known = (fingerprint_of(head), head.get("Metadata", {}).get(_SENT_FINGERPRINT))
    return request.fingerprint in known or (asked is not None and asked == known[0])


def fingerprint_of(head: Mapping[str, Any]) -> str | None:
    """Return the fingerprint of an object's inputs, None if it is not one of this provider's."""
    fingerprint: str | None = head.get("Metadata", {}).get(_FINGERPRINT)
    return fingerprint


def made_by(head: Mapping[str, Any]) -> str | None:
    """Return the id of the request that generated an object, None if it is not one of this provider's."""
    request_id: str | None = head.get("Metadata", {}).get(_metadata_name("request_id"))
    return request_id


def thumbnail_metadata(request_id: str) -> dict[str, str]:
    """Return the S3 metadata of a thumbnail, by which :func:`made_by` recognizes it."""
    return {_metadata_name("request_id"): request_id}


def thumbnail_pointer(key: str) -> dict[str, str]:
    """Return the metadata of an image that names its thumbnail, in ASCII."""
    return {_THUMBNAIL: quote(key)}


def thumbnail_of(head: Mapping[str, Any]) -> str | None:
    """Return the key of an object's thumbnail in the same bucket, None if it names none."""
    key: str | None = head.get("Metadata", {}).get(_THUMBNAIL)
    return key and unquote(key)


def paid_by_group(head: Mapping[str, Any], group: str) -> bool:
    """Return whether an attempt of this group paid for an object."""
    paid: bool = head.get("Metadata", {}).get(_ATTEMPT_GROUP) == group
    return paid


def iso_utc(seconds: float) -> str:
    """Return a time in seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _cost_of(job: Job, completion: Completion) -> tuple[float | None, bool]:
    """Return what the vendor charged, and whether it is an estimate."""
    if completion.cost_usd is not None:
        return completion.cost_usd, False
    price = list_price(job.request.model) if job.request else None
    return price, price is not None


def _address(target: Target, response: Mapping[str, Any]) -> dict[str, Any]:
    etag = response.get("ETag")
    return {
        "uri": target.uri,
        "bucket": target.bucket,
        "key": target.key,
        "etag": etag.strip('"') if etag else None,
        "version_id": response.get("VersionId"),
    }


def _inputs(request: GenerationRequest | None) -> dict[str, Any]:
    names = ("prompt", "magic_prompt_option", "resolution", "style_type")
    return {name: getattr(request, name, None) for name in names}


def _metadata_name(field: str) -> str:
    return _PREFIX + field.replace("_", "-")


def _read(text: str | None, read: Any) -> Any:
    """Return the metadata's text as a value, None if it is missing or not readable."""
    try:
        return None if text is None else read(text)
    except ValueError:
        return None
