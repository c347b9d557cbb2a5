"""Fixtures of this package's tests: S3, a ledger, and the world of :mod:`tests.unit.jobs.world`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.jobs.ledger import Ledger
from tests.support.s3 import bucket, client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["bucket", "client"]


@pytest.fixture
def ledger(client: S3Client, bucket: str) -> Ledger:
    """The ledger of a fresh bucket."""
    return Ledger(client, bucket)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return the messages that the ledger logged; the S3 server logs as well."""
    return lambda: [record.message for record in caplog.records if record.name.endswith("jobs.ledger")]
