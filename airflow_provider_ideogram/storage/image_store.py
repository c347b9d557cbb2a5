"""
Images in S3, through Airflow's own S3 hook and connection.

Invariant: :meth:`ImageStore.find` finds every problem of a target that shows before money is spent. An upload is one
PUT whose bytes S3 compares with their hash. A thumbnail is made after its image is stored, and never fails the task.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from botocore.exceptions import ParamValidationError
from botocore.validate import validate_parameters

from airflow_provider_ideogram.exceptions import (
    IdeogramInvalidInput,
    IdeogramStorageError,
    IdeogramStorageRefused,
    completed_not_stored,
)
from airflow_provider_ideogram.hooks.image import EXTENSIONS, ImageSpool
from airflow_provider_ideogram.storage.image_record import (
    ImageRecord,
    fingerprint_of,
    made_by,
    made_from,
    metadata_of,
    paid_by_group,
    thumbnail_metadata,
    thumbnail_pointer,
)
from airflow_provider_ideogram.storage.objects import NOTHING_CHARGED, ObjectStore
from airflow_provider_ideogram.storage.provenance import mark
from airflow_provider_ideogram.storage.s3_client import make_client
from airflow_provider_ideogram.storage.target import Target, check_extra_args
from airflow_provider_ideogram.storage.thumbnail import CONTENT_TYPE, make_thumbnail, thumbnail_key

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.job import Job
    from airflow_provider_ideogram.api.parameters import GenerationRequest
    from airflow_provider_ideogram.hooks.image import SpooledImage
    from airflow_provider_ideogram.storage.image_record import Completion

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 18

#: Headers of an object that a copy with metadata of its own does not take from its source.
_CONTENT_HEADERS = ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType")


class ImageStore:
    """
    The images that an AWS connection can reach.

    :param aws_conn_id: The Airflow connection of type ``aws``.
    :param extra_args: Arguments of ``put_object`` for each upload, such as ``ServerSideEncryption``.
    :param thumbnail_prefix: The ledger's prefix, below which thumbnails are stored; None for no thumbnails.
    :param provenance: The mark that images get before they are stored, None for none.
    """

    def __init__(
        self,
        aws_conn_id: str | None,
        extra_args: Mapping[str, Any] | None = None,
        thumbnail_prefix: str | None = None,
        provenance: str | None = None,
    ) -> None:
        self._hook = S3Hook(aws_conn_id=aws_conn_id)
        self._extra_args = dict(extra_args or {})
        self._thumbnail_prefix = thumbnail_prefix
        self._provenance = provenance

    def use_connection(self, connection: Any) -> None:
        """Take a connection that was read already, as on an event loop, where reading it must not block."""
        setattr(self._hook, "get_connection", lambda conn_id: connection)  # noqa: B010, ARG005

    @cached_property
    def client(self) -> Any:
        """The S3 client of the connection; IdeogramStorageError if there can be none."""
        try:
            return make_client(self._hook)
        except Exception as error:  # of boto, of Airflow or a plain ValueError: the connection may hold anything
            raise IdeogramStorageError(
                f"The AWS connection {self._hook.aws_conn_id!r} gives no S3 client: {error}",
                NOTHING_CHARGED,
            ) from error

    @cached_property
    def objects(self) -> ObjectStore:
        """The S3 layer on the connection's client."""
        return ObjectStore(self.client, self._extra_args, conn_id=self._hook.aws_conn_id)

    def find(self, target: Target) -> Mapping[str, Any] | None:
        """
        Check the target before a submit.

        :return: S3's description of the object there, None if it is missing.
        :raises IdeogramInvalidInput: If the upload's arguments are not valid.
        :raises IdeogramStorageError: If the bucket is missing or can't be reached.
        """
        self._check_extra_args()
        head = self.head(target)
        if head is None:
            self.objects.check_bucket(target.bucket, "Nothing was charged.")
        elif fingerprint_of(head) is None:
            log.warning(
                "%s has no metadata of this provider, so it is not recognized as an image made from the same inputs. "
                "Another program stored it, or the S3 store does not keep metadata",
                target.uri,
            )
        return head

    def head(self, target: Target) -> Mapping[str, Any] | None:
        """Return S3's description of the object at the target, None if it is missing; raises IdeogramStorageError."""
        return None if target.is_prefix else self.objects.head(target.bucket, target.key)

    def find_in_prefix(self, prefix: Target, attempt_group: str) -> tuple[Target, Mapping[str, Any]] | None:
        """Find the image below a prefix that an attempt group paid for; return its address and description, or None."""
        for item in self.objects.list(prefix.bucket, prefix.below(attempt_group), delimiter="/"):
            target = replace(prefix, key=item.key)
            head = self.head(target)
            if head is not None and paid_by_group(head, attempt_group):
                return target, head
        return None

    def has_image_of(self, request_id: str, target: Target) -> bool:
        """Return whether the image of a request is at a target, or directly below it if that is a prefix."""
        if not target.is_prefix:
            head = self.head(target)
            return head is not None and made_by(head) == request_id
        items = self.objects.list(target.bucket, target.key, delimiter="/")
        return any(item.key.rpartition(".")[0].endswith((f"/{request_id}", f"-{request_id}")) for item in items)

    def read(self, bucket: str, key: str) -> SpooledImage:
        """
        Read a stored image, which the caller closes.

        :raises IdeogramStorageError: If it can't be read.
        :raises IdeogramInvalidImage: If it is not a complete image.
        """
        with self.objects.open(bucket, key) as body, ImageSpool() as spool:
            while chunk := body.read(_CHUNK_BYTES):
                spool.write(chunk)
            return spool.finish()

    def put(
        self,
        job: Job,
        image: SpooledImage,
        target: Target,
        completion: Completion,
        asked: str | None = None,
        *,
        if_missing: bool = False,
    ) -> ImageRecord:
        """
        Mark and store the image of a completed request, and then its thumbnail, whose failure is a warning.

        :param completion: When it was completed and what it cost.
        :param asked: The fingerprint that the image is found by; None for the job's.
        :param if_missing: Whether it must not replace an object.
        :raises IdeogramStorageError: If the image is not stored.
        :raises PreconditionFailed: If it must not replace the object that is there.
        :raises ConditionsNotSupported: If the store can't keep that.
        """
        with (mark(job, image) if self._provenance else None) or nullcontext(image) as stored:
            return self._put(job, stored, target, completion, asked, if_missing=if_missing)

    def _put(
        self,
        job: Job,
        image: SpooledImage,
        target: Target,
        completion: Completion,
        asked: str | None,
        *,
        if_missing: bool,
    ) -> ImageRecord:
        prefix = self._thumbnail_prefix
        thumbnail = None if prefix is None else thumbnail_key(prefix, target, image.sha256)
        # S3 compares names of metadata without case: the user's must not replace the provider's.
        metadata = {name.lower(): value for name, value in self._extra_args.get("Metadata", {}).items()}
        response = self.objects.put(
            target.bucket,
            target.key,
            image.file,
            sha256=image.sha256,
            if_missing=if_missing,
            advice=completed_not_stored(job.request_id),
            charged=True,
            **{
                **self._extra_args,
                "Metadata": metadata
                | metadata_of(job, image, completion, asked)
                | (thumbnail_pointer(thumbnail) if thumbnail else {}),
                "ContentLength": image.size_bytes,
                "ContentType": image.content_type,
            },
        )
        if thumbnail is not None:
            self._put_thumbnail(job, image, Target(target.bucket, thumbnail))
        return ImageRecord.of_upload(job, image, target, response, completion)

    def _put_thumbnail(self, job: Job, image: SpooledImage, target: Target) -> None:
        try:
            self.objects.put(
                target.bucket,
                target.key,
                make_thumbnail(image.file),
                ContentType=CONTENT_TYPE,
                Metadata=thumbnail_metadata(job.request_id),
            )
        except IdeogramStorageRefused as error:
            self._thumbnail_prefix = None  # the next ones would be refused, too
            log.warning("No thumbnails are stored, the gallery shows the images themselves: %s", error.reason)
        except Exception as error:  # of any class, by a decoder or by S3: the image is paid and stored
            log.warning("The image of request %s is stored without a thumbnail: %s", job.request_id, error)

    def copy(
        self, source: Target, target: Target, request: GenerationRequest, asked: str | None = None
    ) -> ImageRecord | None:
        """
        Copy an image made from the same inputs, with its metadata; return None if the source has no such image.

        :param asked: The fingerprint of the inputs that were asked for, if these are an attempt of them.
        """
        head = self.head(source)
        if head is None or not made_from(head, request, asked):
            return None
        return ImageRecord.of_object(target, self._copy(source, head, target), request)

    def copy_of_request(self, source: Target, target: Target, job: Job) -> ImageRecord | None:
        """Copy the image of a request as :meth:`copy` does; return None if the source has another one."""
        head = self.head(source)
        if head is None or made_by(head) != job.request_id:
            return None
        target = target.named(job.request_id, EXTENSIONS.get(head.get("ContentType", ""), "png"), job.attempt_group)
        return ImageRecord.of_object(target, self._copy(source, head, target), job.request, own=True)

    def _copy(self, source: Target, head: Mapping[str, Any], target: Target) -> Mapping[str, Any]:
        """Copy an object, and return the description of the copy."""
        # The metadata says what the image was made from. It is sent, because some stores copy none.
        described = {name: head[name] for name in ("Metadata", *_CONTENT_HEADERS) if name in head}
        arguments = {"MetadataDirective": "REPLACE", **self._copy_args, **described}
        copied = self.objects.copy((source.bucket, source.key), target.bucket, target.key, **arguments)
        return {**head, "ETag": copied["CopyObjectResult"]["ETag"], "VersionId": copied.get("VersionId")}

    @property
    def _copy_args(self) -> dict[str, Any]:
        """The user's arguments that CopyObject takes: S3 copies neither encryption, storage class nor access rights."""
        known = self.client.meta.service_model.operation_model("CopyObject").input_shape.members
        arguments = {name: self._extra_args[name] for name in self._extra_args.keys() & known}
        return arguments | ({"TaggingDirective": "REPLACE"} if "Tagging" in arguments else {})

    def _check_extra_args(self) -> None:
        """Check the upload's arguments before the submit, by botocore's own validation too."""
        if problems := check_extra_args(self._extra_args):
            raise IdeogramInvalidInput.of(problems)
        shape = self.client.meta.service_model.operation_model("PutObject").input_shape
        try:
            validate_parameters({**self._extra_args, "Bucket": "b", "Key": "k"}, shape)
        except ParamValidationError as problem:
            raise IdeogramInvalidInput.of([f"s3_extra_args: {problem}"]) from problem
