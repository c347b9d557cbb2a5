"""
The address of an image in S3, and the checks of the arguments that concern S3.

Invariant: a :class:`Target` has a bucket and a key that S3 accepts unchanged. Imports nothing heavy: addresses are
checked while a DAG is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput

IF_EXISTS = ("reuse", "overwrite", "fail")
#: The marks that an image may get.
PROVENANCE = ("xmp",)
#: The default prefix of a bucket's ledger.
DEFAULT_LEDGER_PREFIX = "_ideogram/"

#: A name, or the ARN of an access point. An ARN contains a ``/``, so only its whole form separates it from a key.
_BUCKET = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}"
    r"|arn:aws[a-z-]*:s3(?:-object-lambda)?:[a-z0-9-]*:[0-9]{12}:accesspoint[/:][A-Za-z0-9.-]{1,63}"
    r"|arn:aws[a-z-]*:s3-outposts:[a-z0-9-]+:[0-9]{12}:outpost[/:][A-Za-z0-9-]{1,63}[/:]accesspoint[/:][A-Za-z0-9-]{1,63}"
)
_ADDRESS = re.compile(rf"s3://({_BUCKET.pattern})/(.+)", re.DOTALL)
#: S3's limit is 1024 bytes; the key of a ledger's record is longer than its target's by the prefix and ``.json``.
MAX_LEDGER_PREFIX_BYTES = 64
_MAX_KEY_BYTES = 1024 - MAX_LEDGER_PREFIX_BYTES - len(".json")
#: Characters of the attempt group in an image's name below a prefix.
_GROUP_CHARACTERS = 8
#: Below a prefix a SHA-256 in hex is added to the key of a record, and to that of an image at most the attempt group, a
#: request id of 128 characters and ``.webp``.
_MAX_PREFIX_BYTES = _MAX_KEY_BYTES - 64 - _GROUP_CHARACTERS - len("-")
#: The arguments of an upload that the provider sets.
_OWN_UPLOAD_ARGS = ("Bucket", "Key", "Body", "ContentLength", "ContentMD5", "ContentType", "IfMatch", "IfNoneMatch")
#: A name of metadata is a header's name.
_METADATA_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: The maximum size of the provider's own metadata.
OWN_METADATA_BYTES = 1180
#: S3 accepts 2 KB of names and values in total.
_MAX_METADATA_BYTES = 2048 - OWN_METADATA_BYTES


@dataclass(frozen=True, slots=True)
class Target:
    """
    An address in S3.

    :param bucket: The bucket's name or the access point's ARN.
    :param key: The key; one ending in ``/`` is a prefix, below which images are named after their task and request.
    """

    bucket: str
    key: str

    @classmethod
    def parse(cls, key: str, bucket: str | None = None) -> Target:
        """
        Parse a key with a bucket, or a full ``s3://bucket/key``.

        :raises IdeogramInvalidInput: If they are not a valid address.
        """
        problems = [*check_key(key, bucket is not None), *check_bucket(bucket)]
        if problems:
            raise IdeogramInvalidInput.of(problems)
        if bucket is not None:
            return cls(bucket, key)
        return cls(*_ADDRESS.fullmatch(key).groups())  # type: ignore[union-attr]  # as checked

    @property
    def uri(self) -> str:
        """The address ``s3://bucket/key``."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def is_prefix(self) -> bool:
        """Whether the image has a name of its own below the key."""
        return self.key.endswith("/")

    def below(self, attempt_group: str) -> str:
        """Return how the keys of a task's images below a prefix begin; ``attempt_group`` is empty if it is unknown."""
        return f"{self.key}{attempt_group[:_GROUP_CHARACTERS]}-" if attempt_group else self.key

    def named(self, request_id: str, extension: str, attempt_group: str) -> Target:
        """Return the address of the request's image: this one, or one below it if this is a prefix."""
        return replace(self, key=f"{self.below(attempt_group)}{request_id}.{extension}") if self.is_prefix else self


def check_key(key: Any, with_bucket: bool, name: str = "s3_key") -> list[str]:
    """Return the problems of a key or address; ``name`` is the argument that has it."""
    if not isinstance(key, str) or not key.strip():
        return [f"{name}: must be a key or an address s3://bucket/key"]
    problems = []
    path = key
    if "://" in key:
        address = _ADDRESS.fullmatch(key)
        path = address[2] if address else ""
        if not address:
            problems.append(f"{name}: {key!r} is not of the form s3://bucket/key")
        if with_bucket:
            problems.append(f"{name}: holds a bucket of its own; give s3_bucket or a full s3:// address, not both")
    elif not with_bucket:
        either = "s3_bucket or " if name == "s3_key" else ""
        problems.append(f"{name}: {key!r} names no bucket; give {either}a full s3://bucket/key")
    limit = _MAX_PREFIX_BYTES if path.endswith("/") else _MAX_KEY_BYTES
    if not path.isprintable() or len(path.encode("utf-8", "replace")) > limit:
        problems.append(f"{name}: must be printable and at most {limit} bytes long: the ledger's key is longer")
    if path.startswith("/") or {".", ".."} & set(re.split(r"[/\\]", path)):  # "\\" separates paths on Windows
        problems.append(f"{name}: {path!r} starts with '/' or holds '.' or '..', which some tools change")
    return problems


def check_bucket(bucket: Any) -> list[str]:
    """Return the problems of an ``s3_bucket``."""
    if bucket is None or (isinstance(bucket, str) and _BUCKET.fullmatch(bucket)):
        return []
    return [f"s3_bucket: {bucket!r} is not a bucket's name"]


def check_ledger_prefix(prefix: Any) -> list[str]:
    """Return the problems of a ``ledger_prefix``."""
    if isinstance(prefix, str) and prefix.isprintable() and len(prefix.encode()) <= MAX_LEDGER_PREFIX_BYTES:
        return []
    return [f"ledger_prefix: {prefix!r} is not printable text of at most {MAX_LEDGER_PREFIX_BYTES} bytes"]


def check_extra_args(extra_args: Any) -> list[str]:
    """Return the problems of ``s3_extra_args`` that can be found without the AWS library."""
    if extra_args is None:
        return []
    if not isinstance(extra_args, Mapping):
        return [
            "s3_extra_args: must be a mapping of put_object's arguments, such as {'ServerSideEncryption': 'AES256'}"
        ]
    if not all(isinstance(name, str) for name in extra_args):
        return ["s3_extra_args: the names of put_object's arguments must be text"]
    own = sorted(name for name in extra_args if name in _OWN_UPLOAD_ARGS or name.startswith("Checksum"))
    problems = [f"s3_extra_args: {', '.join(own)} are decided by the provider"] if own else []
    if secret := sorted(name for name in extra_args if name.startswith("SSECustomer")):
        problems.append(
            f"s3_extra_args: {', '.join(secret)} would store an image that the provider can't read, reuse, copy or "
            "show, and the encryption key would be in Airflow's rendered fields; use a key of KMS"
        )
    return problems + _check_metadata(extra_args.get("Metadata"))


def _check_metadata(metadata: Any) -> list[str]:
    """Return the problems of metadata; values of other types than text are left to the AWS library."""
    if not isinstance(metadata, Mapping) or not all(
        isinstance(text, str) for item in metadata.items() for text in item
    ):
        return []
    problems = [
        f"s3_extra_args: Metadata {name!r} is not of printable ASCII, and S3 accepts nothing else"
        for name, value in metadata.items()
        if not _METADATA_NAME.fullmatch(name) or not value.isascii() or not value.isprintable()
    ]
    size = sum(len(text.encode("utf-8", "replace")) for item in metadata.items() for text in item)
    if size > _MAX_METADATA_BYTES:
        problems.append(f"s3_extra_args: Metadata has {size} bytes; at most {_MAX_METADATA_BYTES} are possible")
    return problems
