from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.account.account import place_of
from airflow_provider_ideogram.account.budget import Caps, DayBudget, Spender
from airflow_provider_ideogram.account.spend import read_spend, sum_spend
from airflow_provider_ideogram.account.store import AccountStore
from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.storage.objects import ObjectStore

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MODEL = "ideogram-2a-txt-2-img"
POSTERS, CARDS = Spender("posters", "generate", MODEL), Spender("cards", "generate", MODEL)


def write_day(client: S3Client, bucket: str, day: str, part: int = 1) -> None:
    """Write a day with an image, a failed request, an unknown one and an open one of POSTERS, and an image of CARDS."""
    budget = DayBudget(day)
    for key, who in (("image", POSTERS), ("failed", POSTERS), ("unknown", POSTERS), ("open", POSTERS), ("card", CARDS)):
        assert budget.reserve(key, who, 0.05, Caps(), now=0.0, record=None) is None
    budget.settle("image", 0.04)
    budget.settle("failed", None, failed=True)
    budget.settle("unknown", None)
    budget.settle("card", 0.06)
    key = f"{place_of(f's3://{bucket}/_ideogram/', 'team')[1]}{day}-{part}.json"
    AccountStore(ObjectStore(client), bucket).update(key, DayBudget.from_json, lambda _: (budget.to_json(), None))


def summed(client: S3Client, bucket: str, by: str, first: str, last: str) -> list[dict[str, str | int | float]]:
    url = f"s3://{bucket}/_ideogram/"
    days = date.fromisoformat(first), date.fromisoformat(last)
    return sum_spend(read_spend(ObjectStore(client), url, "team", *days), by)


def test_days_are_summed_over_their_parts(client: S3Client, bucket: str) -> None:
    write_day(client, bucket, "2026-11-24")
    write_day(client, bucket, "2026-11-25", part=1)
    write_day(client, bucket, "2026-11-25", part=2)
    write_day(client, bucket, "2026-11-26")

    rows = summed(client, bucket, "day", "2026-11-25", "2026-11-26")

    assert [row["day"] for row in rows] == ["2026-11-25", "2026-11-26"]
    assert rows[1] == {
        "day": "2026-11-26",
        "images": 2,
        "failed": 1,
        "unknown": 1,
        "spent_usd": pytest.approx(0.15),
        "open_requests": 1,
        "reserved_usd": 0.05,
    }
    assert rows[0]["spent_usd"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("dag", [{"dag_id": "cards"}, {"dag_id": "posters"}]),
        ("task", [{"dag_id": "cards", "task_id": "generate"}, {"dag_id": "posters", "task_id": "generate"}]),
        ("model", [{"model": MODEL}]),
    ],
)
def test_spend_is_summed_by_names(by: str, names: list[dict[str, str]], client: S3Client, bucket: str) -> None:
    write_day(client, bucket, "2026-11-24")
    write_day(client, bucket, "2026-11-25")

    rows = summed(client, bucket, by, "2026-11-01", "2026-11-30")

    assert [{name: row[name] for name in names[0]} for row in rows] == names
    assert sum(float(row["spent_usd"]) for row in rows) == pytest.approx(0.3)


def test_object_that_is_no_day_is_an_error(client: S3Client, bucket: str) -> None:
    key = f"{place_of(f's3://{bucket}/_ideogram/', 'team')[1]}2026-11-25-1.json"
    client.put_object(Bucket=bucket, Key=key, Body=b'{"version": 1}')
    with pytest.raises(IdeogramStorageError, match="can't be understood"):
        summed(client, bucket, "day", "2026-11-25", "2026-11-25")


def test_limit_and_other_accounts_are_left_out(client: S3Client, bucket: str) -> None:
    own, other = (place_of(f"s3://{bucket}/_ideogram/", name)[1] for name in ("team", "team2"))
    for key in (f"{own}limit-1of1.json", f"{other}2026-11-25-1.json"):
        client.put_object(Bucket=bucket, Key=key, Body=b"{}")
    assert summed(client, bucket, "day", "2026-11-25", "2026-11-25") == []
