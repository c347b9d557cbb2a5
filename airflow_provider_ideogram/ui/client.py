"""
The S3 client of the API server.

Invariant: it has the timeouts of a page, and the connection that the administrator named; a connection that is not
defined is an error, never boto3's default credentials. One thread makes it, without holding a lock; the others wait no
longer than their time.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from threading import Lock
from typing import NamedTuple

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, conf
from botocore.config import Config

from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.storage.objects import NOTHING_CHARGED, ObjectStore
from airflow_provider_ideogram.storage.s3_client import make_client
from airflow_provider_ideogram.ui.work import THREADS

#: Seconds for which a client is kept: a changed connection takes effect afterwards.
_CLIENT_SECONDS = 300.0
#: A page waits for S3 for some seconds, not for the minutes of boto3's defaults. An image that is being sent keeps its
#: connection while other images are read.
_TIMEOUTS = Config(
    connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 2}, max_pool_connections=THREADS * 4
)


class _Made(NamedTuple):
    conn_id: str
    until: float
    objects: Future[ObjectStore]

    def serves(self, conn_id: str) -> bool:
        """Return whether it can be used, or is being made."""
        has_failed = self.objects.done() and self.objects.exception() is not None
        return self.conn_id == conn_id and self.until > time.monotonic() and not has_failed


_lock = Lock()
_made: _Made | None = None


def object_store(seconds: float) -> ObjectStore:
    """
    Return the S3 layer on the connection ``[ideogram] gallery_aws_conn_id``.

    The tasks' own connections are not used: an administrator may want the API server to read only.

    :param seconds: How long to wait while another thread makes the client.
    :raises IdeogramStorageError: If the connection is not defined or gives no client, or after the wait.
    """
    global _made
    conn_id = conf.get("ideogram", "gallery_aws_conn_id", fallback="aws_default")
    with _lock:
        made = _made if _made is not None and _made.serves(conn_id) else None
        is_ours = made is None
        if made is None:
            made = _made = _Made(conn_id, time.monotonic() + _CLIENT_SECONDS, Future())
    if is_ours:
        try:
            made.objects.set_result(_connect(conn_id))
        except Exception as error:  # of boto, of Airflow or a plain ValueError: the connection may hold anything
            made.objects.set_exception(error)
    try:
        return made.objects.result(seconds)
    except IdeogramStorageError:
        raise
    except Exception as error:
        raise IdeogramStorageError(
            f"The AWS connection {conn_id!r} gives no S3 client: {error}", NOTHING_CHARGED
        ) from error


def _connect(conn_id: str) -> ObjectStore:
    try:
        BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise IdeogramStorageError(
            f"The connection {conn_id!r}, which [ideogram] gallery_aws_conn_id names, is not defined", NOTHING_CHARGED
        ) from error
    own = S3Hook(aws_conn_id=conn_id).conn_config.botocore_config or Config()
    return ObjectStore(make_client(S3Hook(aws_conn_id=conn_id, config=own.merge(_TIMEOUTS))))
