"""The pure parts of the system tests: their plans, and the comparison of results."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_ideogram.account.spend import Spend
from tests.system.account import check_account
from tests.system.comparison import Verdict, compare_manifest, contradicts, has_true_cost
from tests.system.plan import DAG_ID, DATASET_DAG_ID, PlannedRun, moments, planned_runs

DATASET = PlannedRun("run", "dataset", rows=2)

Json = dict[str, Any]


def _line(row: int, status: str = "generated", error: str | None = None) -> Json:
    return {"row": row, "prompt": f"dataset plain {row}", "status": status, "error": error}


def _counts(**counts: int) -> Json:
    return {"generated": 0, "reused": 0, "content_blocked": 0, "failed": 0} | counts


def test_moments_depend_on_the_seed_only() -> None:
    found = moments(1, "workers", 20, until=0.5)

    assert found == moments(1, "workers", 20, until=0.5) == sorted(found)
    assert found != moments(2, "workers", 20, until=0.5)
    assert found != moments(1, "redis", 20, until=0.5)
    assert 0.02 <= found[0] < found[-1] <= 0.5


def test_runs_without_shared_keys_have_their_own_sets() -> None:
    sets = [run.image_set for run in planned_runs(1000, shared_keys=False)]

    assert len(sets) == len(set(sets)) == 20
    assert len(planned_runs(1000)) == 24


def test_dataset_is_one_task_with_all_prompts() -> None:
    single = PlannedRun("run", "set-00")

    assert (single.dag_id, single.prompts(7)) == (DAG_ID, ["set-00 plain 7"])
    assert (DATASET.dag_id, DATASET.prompts(-1)) == (DATASET_DAG_ID, ["dataset plain 0", "dataset plain 1"])


def test_manifest_with_a_line_for_each_row_agrees() -> None:
    lines = [_line(0), _line(1, "failed", "The job failed")]

    assert compare_manifest(DATASET, lines, _counts(generated=1, failed=1)) == []
    assert compare_manifest(DATASET, lines, None) == []


@pytest.mark.parametrize(
    ("lines", "xcom", "problem"),
    [
        ([_line(0)], _counts(generated=1), "its 1 lines are not the 2 rows"),
        ([_line(1), _line(0)], _counts(generated=2), "its 2 lines are not the 2 rows in their order"),
        ([_line(0), _line(1)], _counts(generated=1, reused=1), "its task counts"),
        ([_line(0), _line(1, "failed")], _counts(generated=1, failed=1), "row 1 is failed with error None"),
        ([_line(0, error="Odd"), _line(1)], _counts(generated=2), "row 0 is generated with error 'Odd'"),
    ],
)
def test_each_difference_of_a_manifest_is_found(lines: list[Json], xcom: Json, problem: str) -> None:
    (found,) = compare_manifest(DATASET, lines, xcom)

    assert problem in found


@pytest.mark.parametrize(
    ("cost_usd", "reused", "sha256", "wrong"),
    [
        (0.05, False, "made", False),
        (0.0, True, "made", False),
        (0.05, True, "made", True),
        (0.0, False, "made", True),
        (0.05, False, "other", True),
    ],
)
def test_result_is_either_paid_or_reused_with_the_right_hash(
    cost_usd: float, reused: bool, sha256: str, wrong: bool
) -> None:
    assert contradicts({"cost_usd": cost_usd, "reused": reused, "sha256": sha256}, "made") is wrong


@pytest.mark.parametrize(
    ("changes", "true"),
    [
        ({}, True),
        ({"cost_usd": 0.05130001}, True),
        ({"cost_usd": 0.0, "reused": True}, True),
        ({"cost_usd": 0.05}, False),
        ({"original_cost_usd": 0.05}, False),
        ({"cost_usd": None}, False),
        ({"reused": True}, False),
        ({"cost_is_estimate": True}, False),
    ],
)
def test_cost_is_compared_with_the_charge(changes: Json, true: bool) -> None:
    result = {"cost_usd": 0.0513, "original_cost_usd": 0.0513, "reused": False, "cost_is_estimate": False} | changes
    assert has_true_cost(result, 0.0513) is true


@pytest.mark.parametrize(
    ("spent", "limited", "violated"),
    [
        (0.10, 2, []),
        (0.09, 2, ["charges that the budget does not count"]),
        (0.10, 3, ["more than 2% of submits answered 429"]),
    ],
)
def test_account_counts_each_charge_and_keeps_the_limit(spent: float, limited: int, violated: list[str]) -> None:
    verdict, requests = Verdict(), [{"cost_usd": 0.05}, {"cost_usd": 0.1}]
    recorded = Spend(micros=round(spent * 1e6), open_micros=50_000)

    check_account(verdict, requests, {"calls": {"submit": 100}, "rate_limited": limited}, recorded)

    assert [name for name, violations in verdict.violations.items() if violations] == violated
