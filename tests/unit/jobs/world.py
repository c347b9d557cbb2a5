"""
The world of a paid job: the emulator, a bucket, a clock that stands still, and the tasks with one target.

The states are what an earlier attempt, or another task, has left in the ledger and at the vendor.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.polling import RequestPoll
from airflow_provider_ideogram.emulator.running import RunningEmulator
from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
from airflow_provider_ideogram.jobs.admission import UNLIMITED
from airflow_provider_ideogram.jobs.completion import poll_once
from airflow_provider_ideogram.jobs.identity import attempt_group
from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger
from airflow_provider_ideogram.jobs.record import Intent, LedgerRecord
from airflow_provider_ideogram.jobs.submission import Submitter
from airflow_provider_ideogram.storage.image_record import ImageRecord
from airflow_provider_ideogram.storage.image_store import ImageStore
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KEY = "images/lighthouse.png"
RECORD_KEY = f"_ideogram/{KEY}.json"
ME, OTHER_TASK = "night/run-2/generate/-1", "night/run-1/generate/-1"
ASKED, OTHER_INPUTS = GenerationRequest("a lighthouse"), GenerationRequest("a harbour")
QUEUE_SECONDS, JOB_SECONDS = 30.0, 600.0
HOUR, DAY = 3600.0, 86400.0
MAX_TRIES = 2


class Clock:
    """``time.time()``, which stands still until it is moved."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class World:
    """A vendor, a bucket and the tasks with one target in it."""

    def __init__(self, emulator: RunningEmulator, client: S3Client, bucket: str, clock: Clock) -> None:
        self.emulator, self.client, self.bucket, self.clock = emulator, client, bucket, clock
        self.hook = IdeogramHook()
        self.ledger: Ledger | NoLedger = Ledger(ObjectStore(client), bucket)
        self.target = Target(bucket, KEY)
        self.store = ImageStore("aws_default")
        self.store.client = client

    def submitter(self, owner: str = ME, **changes: Any) -> Submitter:
        known: dict[str, Any] = {
            "max_tries": MAX_TRIES,
            "if_exists": "reuse",
            "resubmit": False,
            "admission": UNLIMITED,
        }
        return Submitter(self.hook, self.store, self.ledger, self.target, owner=owner, **(known | changes))

    def get_or_submit(
        self, request: GenerationRequest = ASKED, owner: str = ME, **changes: Any
    ) -> tuple[Job, RequestPoll]:
        """Return the request of the target, which has no image."""
        result = self.submitter(owner, **changes).get_or_submit(request)
        assert not isinstance(result, ImageRecord)
        return result

    def find_image(self, owner: str = ME, *, absent: bool = False, **changes: Any) -> ImageRecord:
        """Return the image of the target, for which nothing is submitted."""
        submits = self.submits()
        result = self.submitter(owner, **changes).get_or_submit(ASKED, absent=absent)
        assert isinstance(result, ImageRecord)
        assert self.submits() == submits
        return result

    def store_image(self, request_id: str, owner: str = OTHER_TASK, **metadata: str) -> None:
        """Store an image of these inputs, as an attempt of the owner does."""
        known = {
            "ideogram-fingerprint": ASKED.fingerprint,
            "ideogram-request-id": request_id,
            "ideogram-attempt-group": attempt_group(owner, MAX_TRIES),
            "ideogram-original-cost-usd": "0.05",
        }
        key = self.target.named(request_id, "png", attempt_group(owner, MAX_TRIES)).key
        self.client.put_object(Bucket=self.bucket, Key=key, Body=b"an image", Metadata=known | metadata)

    def pass_time(self, seconds: float) -> None:
        """Let time pass at the worker and at the vendor."""
        self.clock.now += seconds
        self.emulator.advance(seconds)

    def record(self) -> LedgerRecord | None:
        return self.ledger.read(RECORD_KEY)

    def existing_record(self) -> LedgerRecord:
        record = self.record()
        assert record is not None
        return record

    def submits(self) -> int:
        return self.emulator.stats().calls.get("submit", 0)

    def accepted(self) -> int:
        return self.emulator.stats().accepted

    def polled(self, job: Job) -> RequestPoll:
        """Return a poll of the request that has asked for its status once."""
        poll = RequestPoll(job.request_id, job.submitted_at)
        poll_once(self.hook, poll)
        return poll


def queued(world: World, owner: str) -> str:
    return world.get_or_submit(owner=owner)[0].request_id


def processing(world: World, owner: str) -> str:
    request_id = queued(world, owner)
    world.pass_time(QUEUE_SECONDS + 1)
    return request_id


def completed(world: World, owner: str) -> str:
    request_id = queued(world, owner)
    world.pass_time(QUEUE_SECONDS + JOB_SECONDS + 1)
    return request_id


def failed(world: World, owner: str) -> str:
    world.emulator.fault("job", "failed")
    return completed(world, owner)


def blocked(world: World, owner: str) -> str:
    world.emulator.fault("job", "blocked")
    return completed(world, owner)


def record_gone(world: World, owner: str) -> str:
    """The vendor answers 404, and still has the file."""
    request_id = queued(world, owner)
    world.pass_time(HOUR + 1)
    return request_id


def expired(world: World, owner: str) -> str:
    """The vendor has neither the request's record nor a row of the history."""
    world.emulator.configure(history_lag_seconds=30 * DAY)
    request_id = queued(world, owner)
    world.pass_time(4 * HOUR)
    return request_id


def left_unknown(world: World, owner: str, *, accepted: bool = False, submit_attempts: int = 0) -> LedgerRecord:
    """Leave an intent behind, as a worker does that is killed during the submit."""
    sent = ASKED.with_seed(random.Random(7))
    intent = Intent(
        sent,
        ASKED.fingerprint,
        world.target.uri,
        time.time(),
        owner,
        MAX_TRIES,
        submit_attempts=submit_attempts,
    )
    record = world.ledger.write_intent(RECORD_KEY, intent)
    if accepted:
        world.hook.submit(sent)
    return record


State: TypeAlias = Callable[[World, str], str]
OWNERS = pytest.mark.parametrize("owner", [ME, OTHER_TASK], ids=["own", "other task's"])
INPUTS = pytest.mark.parametrize("request_", [ASKED, OTHER_INPUTS], ids=["same inputs", "other inputs"])

#: Faults of a history that does not respond, and the beginning of the reason.
UNREADABLE = pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"kind": "error", "status": 503}, "The API failed .HTTP 503"),
        ({"kind": "reset"}, "The API did not"),
        ({"kind": "truncated"}, "The API did not"),
    ],
    ids=["503", "reset", "truncated"],
)


def states(*values: State) -> pytest.MarkDecorator:
    """Run the test in each of the states."""
    return pytest.mark.parametrize("state", values, ids=lambda state: state.__name__)
