"""
Images in S3, by Airflow's own S3 hook and connection.

Invariant: whatever can be found wrong with the target is found by :meth:`ImageStore.find` before money is
spent; an upload is one PUT whose bytes S3 itself compares with their hash.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.validate import validate_parameters

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramStorageError
from airflow_provider_ideogram.storage.image_record import ImageRecord, made_from, metadata_of
from airflow_provider_ideogram.storage.target import check_extra_args

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.job import Job
    from airflow_provider_ideogram.api.parameters import GenerationRequest
    from airflow_provider_ideogram.hooks.image import SpooledImage
    from airflow_provider_ideogram.storage.target import Target


class ImageStore:
    """
    Images in S3.

    :param aws_conn_id: The Airflow connection of type ``aws``.
    :param extra_args: Arguments of ``put_object`` for each upload, such as ``ServerSideEncryption``.
    """

    def __init__(self, aws_conn_id: str | None, extra_args: Mapping[str, Any] | None = None) -> None:
        self._hook = S3Hook(aws_conn_id=aws_conn_id)
        self._extra_args = dict(extra_args or {})

    @cached_property
    def client(self) -> Any:
        """The S3 client of the connection; IdeogramStorageError if there can be none."""
        try:
            return self._hook.get_conn()
        except Exception as error:  # of boto, of Airflow or a plain ValueError: what the connection holds is anything
            raise IdeogramStorageError(
                f"The AWS connection {self._hook.aws_conn_id!r} gives no S3 client: {error}",
                "Nothing was charged by it.",
            ) from error

    def find(self, target: Target) -> Mapping[str, Any] | None:
        """
        Look at the target for the first time, before anything is paid.

        :return: What S3 says of the object there, None if there is none.
        :raises IdeogramInvalidInput: If the upload's arguments are not valid.
        :raises IdeogramStorageError: If the bucket can't be reached, or does not exist.
        """
        self._check_extra_args()
        head = self.look(target)
        if head is None:
            self.check_bucket(target)
        return head

    def look(self, target: Target) -> Mapping[str, Any] | None:
        """Return what S3 says of the object at the target, None if there is none; raises IdeogramStorageError."""
        with storage_errors(f"Looking at {target.uri}", "Nothing was charged by it."):
            return None if target.is_prefix else self._head(target)

    def find_below(
        self, prefix: Target, since: float, wanted: Callable[[Mapping[str, Any]], bool]
    ) -> tuple[Target, Mapping[str, Any]] | None:
        """
        Look for an object right below a prefix.

        :param since: When it was stored at the earliest, in seconds since the epoch: those before are not looked at.
        :param wanted: Tells by what S3 says of an object whether it is the one.
        :return: Where it is, and what S3 says of it; None if there is none.
        """
        with storage_errors(f"Looking below {prefix.uri}", "Nothing was charged by it."):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=prefix.bucket, Prefix=prefix.key, Delimiter="/"
            )
            for item in (item for page in pages for item in page.get("Contents", ())):
                target = replace(prefix, key=item["Key"])
                head = self._head(target) if item["LastModified"].timestamp() >= since else None
                if head is not None and wanted(head):
                    return target, head
        return None

    def check_bucket(self, target: Target) -> None:
        """Raise IdeogramStorageError if the bucket is missing: only this tells it from a missing key."""
        with storage_errors(f"Looking for the bucket of {target.uri} before the submit", "Nothing was charged."):
            self.client.head_bucket(Bucket=target.bucket)

    def put(self, job: Job, image: SpooledImage, target: Target, facts: Mapping[str, Any]) -> ImageRecord:
        """
        Store the image.

        :param facts: ``inference_seconds`` and ``completed_at`` (seconds since the epoch), where they are known.
        :raises IdeogramStorageError: If S3 does not take it.
        """
        paid = f"Request {job.request_id} is completed and paid; the vendor holds its image for one hour."
        with storage_errors(f"Storing {target.uri}", paid):
            answer = self.client.put_object(
                **{
                    **self._extra_args,
                    "Metadata": self._extra_args.get("Metadata", {}) | metadata_of(job, image, facts),
                },
                Bucket=target.bucket,
                Key=target.key,
                Body=image.file,
                ContentLength=image.size_bytes,
                ContentType=image.content_type,
                ChecksumSHA256=base64.b64encode(image.sha256).decode(),
            )
        return ImageRecord.of_upload(job, image, target, answer, facts)

    def copy(self, source: Target, target: Target, request: GenerationRequest) -> ImageRecord | None:
        """
        Copy an image that was made from the same inputs, with its metadata.

        :return: The copy, None if there is no such image at the source.
        """
        with storage_errors(f"Copying {source.uri} to {target.uri}", "Nothing was charged for it."):
            head = self._head(source)
            if head is None or not made_from(head, request):
                return None
            copied = self.client.copy_object(
                **self._copy_args,
                CopySource={"Bucket": source.bucket, "Key": source.key},
                Bucket=target.bucket,
                Key=target.key,
            )
        answer = {**head, "ETag": copied["CopyObjectResult"]["ETag"], "VersionId": copied.get("VersionId")}
        return ImageRecord.of_object(target, answer, request)

    @property
    def _copy_args(self) -> dict[str, Any]:
        """The user's arguments as far as a copy takes them: of encryption, class and access S3 copies nothing."""
        known = self.client.meta.service_model.operation_model("CopyObject").input_shape.members
        # Its metadata is the source's, which tells what the image was made from.
        arguments = {name: self._extra_args[name] for name in self._extra_args.keys() & known if name != "Metadata"}
        return arguments | ({"TaggingDirective": "REPLACE"} if "Tagging" in arguments else {})

    def _head(self, target: Target) -> Mapping[str, Any] | None:
        try:
            head: Mapping[str, Any] = self.client.head_object(Bucket=target.bucket, Key=target.key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise
        return head

    def _check_extra_args(self) -> None:
        """Check the arguments now, by botocore too, as it would when the image is paid and on its way."""
        if problems := check_extra_args(self._extra_args):
            raise IdeogramInvalidInput.of(problems)
        shape = self.client.meta.service_model.operation_model("PutObject").input_shape
        try:
            validate_parameters({**self._extra_args, "Bucket": "b", "Key": "k"}, shape)
        except ParamValidationError as problem:
            raise IdeogramInvalidInput.of([f"s3_extra_args: {problem}"]) from problem


@contextmanager
def storage_errors(doing: str, money: str) -> Iterator[None]:
    """
    Raise what goes wrong with S3 as an IdeogramStorageError.

    :param doing: What was being done, as the beginning of a sentence.
    :param money: A sentence that says what was paid.
    """
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise IdeogramStorageError(f"{doing} failed: {error}", money) from error
