"""Fixtures of this package's tests: S3, a ledger, and the world of :mod:`tests.unit.jobs.world`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.api import back_off
from airflow_provider_ideogram.emulator.running import RunningEmulator
from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
from airflow_provider_ideogram.jobs.ledger import Ledger
from airflow_provider_ideogram.storage.objects import ObjectStore
from tests.support.s3 import bucket, client
from tests.unit.jobs.world import JOB_SECONDS, QUEUE_SECONDS, Clock, World

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["bucket", "client"]


@pytest.fixture
def ledger(client: S3Client, bucket: str) -> Ledger:
    """The ledger of a fresh bucket."""
    return Ledger(ObjectStore(client), bucket)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return the messages that the ledger logged; the S3 server logs as well."""
    return lambda: [record.message for record in caplog.records if record.name.endswith("jobs.ledger")]


@pytest.fixture
def world(
    ideogram_emulator: RunningEmulator,
    ideogram_connection: str,
    client: S3Client,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """An emulator and a bucket, at a time that stands still; retries don't wait."""
    clock = Clock(time.time())
    monkeypatch.setattr(time, "time", clock)
    monkeypatch.setattr(back_off, "_BACK_OFF_BASE", 0.0)
    ideogram_emulator.configure(queue_seconds=QUEUE_SECONDS, job_seconds=JOB_SECONDS)
    world = World(ideogram_emulator, client, bucket, clock)
    world.ledger.check_store()
    with world.hook:
        yield world


@pytest.fixture
def gateway(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The world behind a gateway, whose connection has no history."""
    connection = {"conn_type": "ideogram", "password": world.emulator.api_key, "host": world.emulator.url}
    monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", json.dumps(connection))
    with IdeogramHook() as world.hook:
        yield world
