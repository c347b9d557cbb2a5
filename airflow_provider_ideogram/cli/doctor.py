"""
The checks of ``ideogram doctor``.

Invariant: free of charge; each check runs whatever the others find. A check leaves no object in the bucket.
"""

from __future__ import annotations

import platform
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram import __version__

if TYPE_CHECKING:
    from airflow_provider_ideogram.storage.objects import ObjectStore

OK, FAILED, UNKNOWN = "ok", "failed", "unknown"
#: Seconds that a worker's clock may differ from S3's: signatures, the ledger's times and the schedule rely on it.
_MAX_CLOCK_DIFFERENCE = 60.0


@dataclass(frozen=True, slots=True)
class Check:
    """
    The result of a check.

    :param result: ``ok``, ``failed`` or ``unknown``.
    :param detail: What was found.
    """

    name: str
    result: str
    detail: str

    @property
    def has_failed(self) -> bool:
        """Whether a person has to do something."""
        return self.result == FAILED

    def to_row(self) -> dict[str, str]:
        """Return the result as the command prints it."""
        return {"check": self.name, "result": self.result, "detail": self.detail}


def check(conn_id: str, aws_conn_id: str, bucket: str | None, ledger_prefix: str) -> list[Check]:
    """
    Check the connections, S3 and Airflow.

    :param bucket: The bucket of the images, None to leave out the checks of S3.
    :param ledger_prefix: The prefix of the ledger, below which the checks write.
    """
    checks = [_api(conn_id)]
    if bucket is not None:
        checks += _s3(aws_conn_id, bucket, ledger_prefix)
    return [*checks, _triggerer(), _versions()]


def _api(conn_id: str) -> Check:
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook

    is_valid, message = IdeogramHook(conn_id).test_connection()
    return Check(f"API, connection {conn_id!r}", OK if is_valid else FAILED, message)


def _s3(aws_conn_id: str, bucket: str, ledger_prefix: str) -> Iterator[Check]:
    from airflow_provider_ideogram.storage.image_store import ImageStore
    from airflow_provider_ideogram.storage.probe import StoreProbe

    key = f"{ledger_prefix}.doctor-{uuid.uuid4().hex}"
    written: list[tuple[float, Any]] = []

    def objects() -> ObjectStore:
        return ImageStore(aws_conn_id).objects

    def write() -> str:
        written.append((time.time(), objects().put(bucket, key, b"1")))
        return ""

    def found(what: object) -> str:
        if not what:
            raise LookupError("the object that was written is not there")
        return ""

    def conditional_writes() -> str:
        if not StoreProbe(objects(), bucket, ledger_prefix).has_conditional_writes():
            raise ValueError("two tasks with the same target may both pay, and a budget can't be kept")
        return ""

    steps: Sequence[tuple[str, Callable[[], object]]] = (
        ("s3:PutObject", write),
        ("s3:GetObject", lambda: found(objects().get(bucket, key))),
        ("s3:ListBucket", lambda: found(list(objects().list(bucket, key)))),
        ("s3:DeleteObject", lambda: objects().delete(bucket, key)),
        ("conditional writes", conditional_writes),
    )
    for name, step in steps:
        yield _of_call(f"{name}, s3://{bucket}/{ledger_prefix}", step)
    if written:
        yield _clock(*written[0])


def _of_call(name: str, call: Callable[[], object]) -> Check:
    """Return the check of a call that raises an error if it fails; its result is the detail."""
    try:
        return Check(name, OK, str(call() or ""))
    except Exception as error:  # of any library: the check reports it
        return Check(name, FAILED, str(error))


def _clock(called_at: float, response: Any) -> Check:
    """Compare this machine's clock with the time of S3's response to a call."""
    sent_at = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if sent_at is None:
        return Check("clock", UNKNOWN, "S3's response has no time")
    seconds = called_at - parsedate_to_datetime(sent_at).timestamp()
    is_right = abs(seconds) <= _MAX_CLOCK_DIFFERENCE
    return Check("clock", OK if is_right else FAILED, f"{seconds:+.0f} s against S3")


def _triggerer() -> Check:
    """Look for a triggerer's heartbeat in Airflow's database."""
    try:
        from airflow.jobs.job import most_recent_job
        from airflow.jobs.triggerer_job_runner import TriggererJobRunner

        job = most_recent_job(TriggererJobRunner.job_type)
        is_alive = job is not None and job.is_alive()
    except Exception as error:  # without access to the database
        return Check("triggerer", UNKNOWN, f"Airflow's database can't be read here: {type(error).__name__}")
    return Check("triggerer", OK if is_alive else FAILED, "" if is_alive else "no triggerer is running")


def _versions() -> Check:
    airflow, python = version("apache-airflow"), platform.python_version()
    return Check("versions", OK, f"airflow-provider-ideogram {__version__}, Airflow {airflow}, Python {python}")
