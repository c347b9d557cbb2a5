"""An account in a bucket of its own, at a time that a test sets."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.account.account import Account, SubmittingTask
from airflow_provider_ideogram.account.admission import AccountAdmission
from airflow_provider_ideogram.account.budget import DayBudget
from airflow_provider_ideogram.account.store import AccountStore
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from airflow_provider_ideogram.storage.objects import ObjectStore
from tests.support.s3 import bucket, client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["bucket", "client"]

MODEL = "ideogram-2a-txt-2-img"
PRICE = 0.05
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()


class Setup:
    """Admissions of one account at a time that a test sets."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self.client, self.bucket = client, bucket
        self.objects = ObjectStore(client)
        self.now = NOW

    def admission(self, **settings: Any) -> AccountAdmission:
        """Make the admission of a task."""
        known = ConnectionSettings("a-key-of-tests", **settings)
        return AccountAdmission(
            Account(self.objects, f"s3://{self.bucket}/x/", "a/b", known, SubmittingTask("dag", "run", "task"))
        )

    def url(self, record: str) -> str:
        """Return the address of a record."""
        return f"s3://{self.bucket}/{record}"

    def object_keys(self) -> list[str]:
        """Return the keys of the account's objects."""
        return [item.key for item in self.objects.list(self.bucket, "x/_account/")]

    @property
    def prefix(self) -> str:
        """The beginning of their keys."""
        return "x/_account/a%2Fb/"

    def day_names(self, date: str = "2026-11-25") -> list[str]:
        """Return the names of a day's objects."""
        return [key.removeprefix(self.prefix) for key in self.object_keys() if f"/{date}" in key]

    def day(self, name: str) -> DayBudget:
        """Return the state of a day's object."""
        day = AccountStore(self.objects, self.bucket).read(f"{self.prefix}{name}", DayBudget.from_json)
        assert day is not None
        return day

    def write(self, name: str, day: DayBudget) -> None:
        """Write a day's object."""
        store = AccountStore(self.objects, self.bucket)
        store.update(f"{self.prefix}{name}", DayBudget.from_json, lambda _: (day.to_json(), None))


@pytest.fixture
def account(client: S3Client, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """Return the account of a fresh bucket."""
    setup = Setup(client, bucket)
    monkeypatch.setattr(time, "time", lambda: setup.now)
    return setup
