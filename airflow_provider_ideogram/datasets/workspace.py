"""
What a dataset's run keeps in S3 between its slices.

Invariant: everything that a next slice or attempt needs is here or in the ledger, written before the worker is
given back; nothing of it is larger than a chunk. It is removed when the manifest is written.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import IO, TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from airflow_provider_ideogram.exceptions import IdeogramLedgerError
from airflow_provider_ideogram.storage.objects import storage_errors

if TYPE_CHECKING:
    from airflow_provider_ideogram.storage.target import Target

#: Rows in an object: a slice reads one or two, a million rows are two thousand.
CHUNK_ROWS = 500
_DELETED_AT_ONCE = 1000
#: Where the run stands; without it the other objects mean nothing.
STATE = "state.json"


def chunk_name(kind: str, number: int) -> str:
    """Return the name of a chunk, so that names sort as numbers do."""
    return f"{kind}-{number:06}.jsonl"


class Workspace:
    """
    The objects of one run.

    :param client: boto3's S3 client.
    :param bucket: The bucket of the images.
    :param prefix: What the objects' keys start with.
    """

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self.bucket = bucket
        self.prefix = prefix

    @classmethod
    def of(cls, client: Any, output_prefix: Target, ledger_prefix: str, owner: str) -> Workspace:
        """Return the workspace of a task instance, the same in each of its attempts."""
        return cls(client, output_prefix.bucket, f"{cls.all_of(output_prefix, ledger_prefix)}{cls.name_of(owner)}")

    @staticmethod
    def name_of(owner: str) -> str:
        """Return how the keys go on, which tells the task instance."""
        return f"{hashlib.sha256(owner.encode()).hexdigest()[:32]}/"

    @staticmethod
    def all_of(output_prefix: Target, ledger_prefix: str) -> str:
        """Return what the keys of all workspaces for these images start with."""
        return f"{ledger_prefix}{output_prefix.key}.dataset/"

    @property
    def uri(self) -> str:
        """The address that all of them start with."""
        return f"s3://{self.bucket}/{self.prefix}"

    def write(self, name: str, value: Any) -> None:
        """Write a JSON document."""
        self._put(name, json.dumps(value, ensure_ascii=False).encode())

    def write_lines(self, name: str, values: Iterable[Mapping[str, Any]]) -> None:
        """Write documents, one a line."""
        self._put(name, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode())

    def read(self, name: str) -> Any:
        """Return a JSON document, None if there is none; raise IdeogramLedgerError if nobody can tell."""
        try:
            with storage_errors(f"Reading {self.uri}{name}", "Nothing was charged."):
                body = self._client.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"].read()
        except Exception as error:
            if isinstance(error.__cause__, ClientError) and error.__cause__.response["Error"]["Code"] == "NoSuchKey":
                return None
            raise
        try:
            return json.loads(body)
        except ValueError as error:
            raise IdeogramLedgerError(
                f"{self.uri}{name} can't be understood ({error}). Requests that are running and paid may be noted "
                "in it. If it is beyond repair, remove it: the ledger still knows each of them."
            ) from error

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """Return documents that were written one a line."""
        with storage_errors(f"Reading {self.uri}{name}", "Nothing was charged by it."):
            body = self._client.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"].read()
        return [json.loads(line) for line in body.splitlines()]

    def copy_lines(self, kind: str, chunks: int, file: IO[bytes]) -> None:
        """Append the lines of the first chunks of a kind to a file; those of a slice that died may follow them."""
        end = self.prefix + chunk_name(kind, chunks)
        for key in self._keys(f"{kind}-"):
            if key >= end:
                break
            with closing(open_object(self._client, self.bucket, key)) as body:
                for line in body:
                    file.write(line)

    def clear(self, *, keep_state: bool = False) -> None:
        """Remove everything, the state first: it never speaks of what is gone."""
        keys = [key for key in self._keys("") if key != self.prefix + STATE]
        with storage_errors(f"Removing {self.uri}{STATE}", "All images are stored."):
            if not keep_state:
                self._client.delete_object(Bucket=self.bucket, Key=self.prefix + STATE)
        with storage_errors(f"Removing {self.uri}*", "All images are stored."):
            for first in range(0, len(keys), _DELETED_AT_ONCE):
                objects = [{"Key": key} for key in keys[first : first + _DELETED_AT_ONCE]]
                self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": objects, "Quiet": True})

    def _keys(self, prefix: str) -> Iterator[str]:
        for key, _ in list_objects(self._client, self.bucket, self.prefix + prefix):
            yield key

    def _put(self, name: str, body: bytes) -> None:
        with storage_errors(f"Writing {self.uri}{name}", "The ledger knows each request that is running and paid."):
            self._client.put_object(
                Bucket=self.bucket, Key=self.prefix + name, Body=body, ContentType="application/json"
            )


def list_objects(client: Any, bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield key and ETag of each object below a prefix, in the order of the keys, a thousand a request."""
    with storage_errors(f"Listing s3://{bucket}/{prefix}", "Nothing was charged by it."):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                yield item["Key"], item["ETag"].strip('"')


def open_object(client: Any, bucket: str, key: str) -> IO[bytes]:
    """Open an object for reading as a stream."""
    with storage_errors(f"Reading s3://{bucket}/{key}", "Nothing was charged by it."):
        return io.BufferedReader(client.get_object(Bucket=bucket, Key=key)["Body"])
