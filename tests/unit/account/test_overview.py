from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.account.account import limit_keys, place_of
from airflow_provider_ideogram.account.limiter import AccountLimiter
from airflow_provider_ideogram.account.overview import Rate, read_rate
from airflow_provider_ideogram.account.store import AccountStore
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from airflow_provider_ideogram.storage.objects import ObjectStore

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

NOW = 1_790_000_000.0


def rate_of(client: S3Client, bucket: str, requests_per_minute: float, *parts: AccountLimiter) -> Rate:
    """Return the rate of an account of which the first parts are stored."""
    url = f"s3://{bucket}/x/"
    settings = ConnectionSettings("a-key-of-tests", requests_per_minute=requests_per_minute)
    objects = ObjectStore(client)
    store = AccountStore(objects, bucket)
    keys = limit_keys(place_of(url, "team")[1], settings)
    for key, part in zip(keys, parts, strict=False):
        store.update(key, AccountLimiter.from_json, lambda _, part=part: (part.to_json(), None))  # type: ignore[misc]
    return read_rate(objects, url, "team", settings, NOW)


def limiter(requests_per_minute: float) -> AccountLimiter:
    part = AccountLimiter()
    part.configure(requests_per_minute, NOW)
    return part


@pytest.mark.parametrize("stored", range(4))
def test_part_that_no_task_has_used_has_its_share(stored: int, client: S3Client, bucket: str) -> None:
    rate = rate_of(client, bucket, 300, *(limiter(100) for _ in range(stored)))
    assert rate.per_minute == pytest.approx(300)
    assert (rate.waiting, rate.blocked_until) == (0, 0.0)
    assert rate.seconds_for(300) == pytest.approx(60)


def test_part_that_has_learned_of_a_lower_rate_counts_with_it(client: S3Client, bucket: str) -> None:
    learned = limiter(100)
    learned.limited(NOW, 40)
    rate = rate_of(client, bucket, 300, learned)
    assert rate.per_minute == pytest.approx(250)
    assert rate.blocked_until == NOW + 40


@pytest.mark.parametrize("stored", [0, 1])
def test_limit_that_is_unknown_is_none(stored: int, client: S3Client, bucket: str) -> None:
    rate = rate_of(client, bucket, 0, *(limiter(0) for _ in range(stored)))
    assert rate == Rate(None, 0, 0.0)
    assert rate.seconds_for(1) is None
