"""
The surroundings of a task in an integration test: the vendor, a bucket, and the time of both.

Invariant: time passes for Airflow's processes and for the vendor alike, unless a test asks for one of them only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_ideogram.storage.thumbnail import FOLDER
from airflow_provider_ideogram.triggers import IdeogramTrigger

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator
    from tests.support.task_runner import Slice, TaskRun

    #: Makes the image operator from its arguments, and a task instance of it.
    Generate = Callable[..., IdeogramGenerateImageOperator]
    ImageTask = Callable[..., TaskRun]

KEY = "images/lighthouse.png"
RECORD_KEY = f"_ideogram/{KEY}.json"
PROMPT = "a lighthouse"
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


class Clock:
    """
    The time of Airflow's processes, in the place of ``time.time``.

    :param now: The clock that it follows.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ahead = 0.0

    def __call__(self) -> float:
        """Return the seconds since the epoch."""
        return self._now() + self._ahead

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._ahead += seconds


@dataclass(frozen=True)
class World:
    """
    What a test changes and compares.

    :param emulator: The vendor.
    :param clock: The time of Airflow's processes.
    :param s3: A client of the S3 server.
    :param bucket: The test's bucket.
    """

    emulator: RunningEmulator
    clock: Clock
    s3: S3Client
    bucket: str

    def pass_time(self, seconds: float) -> None:
        """Let time pass for Airflow's processes and the vendor."""
        self.clock.advance(seconds)
        self.emulator.advance(seconds)

    @property
    def accepted(self) -> int:
        """The number of accepted requests."""
        return self.emulator.stats().accepted

    @property
    def submits(self) -> int:
        """The number of submits that arrived at the vendor, refused ones included."""
        return self.emulator.stats().calls.get("submit", 0)

    @property
    def charged_usd(self) -> float:
        """What the account was charged."""
        return self.emulator.stats().charged_usd

    def uri(self, key: str = KEY) -> str:
        """Return the address of a key in the bucket."""
        return f"s3://{self.bucket}/{key}"

    def object_keys(self, prefix: str = "") -> list[str]:
        """Return the keys in the bucket, without thumbnails."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return [key for key in keys if FOLDER not in key]

    def put(self, key: str, body: bytes) -> str:
        """Store an object and return its address."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return self.uri(key)

    def stored(self, key: str = KEY) -> bytes:
        """Return the bytes of an object."""
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def image_of(self, run: TaskRun) -> bytes:
        """Return the bytes of the image that the vendor made for a task."""
        return self.emulator.image_bytes(run.xcom()["request_id"])

    def to_end(self, run: TaskRun, result: Slice) -> Slice:
        """Run an attempt to its end. Time passes while the task waits for something else than a request."""
        while result.state == "deferred":
            trigger = run.trigger()
            assert isinstance(trigger, IdeogramTrigger)
            if not trigger.requests:
                self.pass_time(max(trigger.deadline - self.clock(), 0.0))
            result = run.resume(run.fire())
        return result

    def run(self, run: TaskRun) -> Slice:
        """Run a task's next attempt from its beginning to its end."""
        return self.to_end(run, run.execute())


def assert_succeeded(result: Slice) -> None:
    """Check that a task succeeded; its log says why not."""
    assert result.state == "success", f"{result.error}\n{result.log_text[-5000:]}"


def assert_error(result: Slice, *parts: str) -> None:
    """Check that a task ended with an error whose text has all of the parts."""
    assert result.error is not None, result.log_text[-5000:]
    text = f"{type(result.error).__name__}: {result.error}"
    for part in parts:
        assert part in text, f"{part!r} is not in {text!r}"
