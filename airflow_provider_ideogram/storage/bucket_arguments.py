"""
Which of the user's arguments of ``put_object`` go with calls for other objects than images.

Invariant: what a bucket may require goes with every write, and the payer also with every read. No argument makes an
object of the provider's own public: it holds prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENCRYPTION = ("ServerSideEncryption", "SSEKMSKeyId", "SSEKMSEncryptionContext", "BucketKeyEnabled")
_GRANTS = ("GrantFullControl", "GrantRead", "GrantReadACP", "GrantWriteACP")
_PAYER = "RequestPayer"
_WITH_WRITES = (*ENCRYPTION, *_GRANTS, "ACL", "ExpectedBucketOwner", _PAYER)
_PUBLIC_ACLS = ("public-read", "public-read-write", "authenticated-read")
#: Part of the name of a group that anyone belongs to.
_PUBLIC_GROUP = "/groups/global/"


def with_every_write(extra_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that the ledger's and a dataset's objects are written with."""
    return {name: extra_args[name] for name in _WITH_WRITES if name in extra_args and not _is_public(extra_args[name])}


def with_every_read(extra_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of reads and deletions."""
    return {_PAYER: extra_args[_PAYER]} if _PAYER in extra_args else {}


def probed(extra_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a probe's object is written with: all but those that would keep it from deletion."""
    return {
        name: value
        for name, value in extra_args.items()
        if name not in ("Metadata", "WriteOffsetBytes") and not name.startswith("ObjectLock")
    }


def _is_public(value: Any) -> bool:
    return isinstance(value, str) and (value in _PUBLIC_ACLS or _PUBLIC_GROUP in value)
