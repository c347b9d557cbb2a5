"""
The limits and the budgets that all tasks of the distributed system test share, and the check of their records.

The vendor enforces the same rate. The budgets are above what all requests cost, so that a task that finds one reached
shows amounts that were reserved for nothing.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.account.spend import Spend, read_spend
from airflow_provider_ideogram.storage.objects import ObjectStore
from tests.system.comparison import LEDGER_PREFIX, Verdict
from tests.system.plan import BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mypy_boto3_s3 import S3Client

Json = dict[str, Any]
CONNECTION = "AIRFLOW_CONN_IDEOGRAM_DEFAULT"
CONN_ID = "ideogram_default"
REQUESTS_PER_MINUTE = 90
#: The budgets, as a multiple of the price of all images.
_BUDGET_SHARE = 1.25
#: The share of submits that the vendor may answer with 429.
_MAX_RATE_LIMITED = 0.02


def with_limits(settings: Json, images: int, price_usd: float) -> Json:
    """Return Airflow's settings with the limit and all budgets in the connection."""
    connection = json.loads(settings[CONNECTION])
    budget = round(_BUDGET_SHARE * images * price_usd, 2)
    connection["extra"] |= {
        "requests_per_minute": REQUESTS_PER_MINUTE,
        "max_cost_usd_per_day": budget,
        "max_cost_usd_per_month": budget,
        "max_cost_usd_per_dag_and_day": budget,
    }
    return settings | {CONNECTION: json.dumps(connection)}


def read_recorded_spend(s3: S3Client) -> Spend:
    """Return the spend that the account has recorded since yesterday, and what is still reserved."""
    today = datetime.now(UTC).date()
    url = f"s3://{BUCKET}/{LEDGER_PREFIX}"
    days = read_spend(ObjectStore(s3), url, CONN_ID, today - timedelta(days=1), today)
    return sum((spend for _, _, spend in days), Spend())


def check_account(verdict: Verdict, requests: Iterable[Json], stats: Json, recorded: Spend) -> None:
    """
    Add the invariants of the account.

    :param requests: The requests that the vendor accepted, with their charges.
    :param stats: The vendor's counts of calls.
    :param recorded: What the account's objects say.
    """
    charged = sum(request["cost_usd"] for request in requests)
    spent, reserved = recorded.micros / 1e6, recorded.open_micros / 1e6
    submits, limited = stats["calls"]["submit"], stats["rate_limited"]
    verdict.violations["charges that the budget does not count"] = (
        [f"{charged:.4f} USD charged, {spent:.4f} spent and {reserved:.4f} reserved"]
        if spent + reserved < charged - 1e-4
        else []
    )
    verdict.violations[f"more than {_MAX_RATE_LIMITED:.0%} of submits answered 429"] = (
        [f"{limited} of {submits}"] if limited > _MAX_RATE_LIMITED * submits else []
    )
    verdict.facts |= {
        f"submits, at {REQUESTS_PER_MINUTE} a minute": submits,
        "submits answered 429": limited,
        "recorded by the budget as spent, in USD": round(spent, 4),
        "still reserved by the budget, in USD": round(reserved, 4),
    }
