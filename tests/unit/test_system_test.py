"""The pure parts of the system tests: what they plan, and how they compare a dataset's books."""

from __future__ import annotations

import pytest

from tests.system.plan import DAG_ID, DATASET_DAG_ID, PlannedRun, moments, planned_runs
from tests.system.stats import compare_manifest, contradicts

DATASET = PlannedRun("run", "dataset", rows=2)


def line(row, status="generated", error=None):
    return {"row": row, "prompt": f"dataset plain {row}", "status": status, "error": error}


def counts(**given):
    return {"generated": 0, "reused": 0, "content_blocked": 0, "failed": 0} | given


def test_the_seed_alone_decides_when_something_happens():
    found = moments(1, "workers", 20, until=0.5)

    assert found == moments(1, "workers", 20, until=0.5) == sorted(found)
    assert found != moments(2, "workers", 20, until=0.5)
    assert found != moments(1, "redis", 20, until=0.5)
    assert 0.02 <= found[0] < found[-1] <= 0.5


def test_runs_that_nobody_contests_aim_at_keys_of_their_own():
    sets = [run.image_set for run in planned_runs(1000, contested=False)]

    assert len(sets) == len(set(sets)) == 20
    assert len(planned_runs(1000)) == 24


def test_a_dataset_is_one_task_with_all_prompts():
    single = PlannedRun("run", "set-00")

    assert (single.dag_id, single.prompts(7)) == (DAG_ID, ["set-00 plain 7"])
    assert (DATASET.dag_id, DATASET.prompts(-1)) == (DATASET_DAG_ID, ["dataset plain 0", "dataset plain 1"])


def test_a_manifest_with_a_line_a_row_agrees():
    lines = [line(0), line(1, "failed", "The job failed")]

    assert compare_manifest(DATASET, lines, counts(generated=1, failed=1)) == []
    assert compare_manifest(DATASET, lines, None) == []


@pytest.mark.parametrize(
    ("lines", "xcom", "problem"),
    [
        ([line(0)], counts(generated=1), "its 1 lines are not the 2 rows"),
        ([line(1), line(0)], counts(generated=2), "its 2 lines are not the 2 rows in their order"),
        ([line(0), line(1)], counts(generated=1, reused=1), "its task counts"),
        ([line(0), line(1, "failed")], counts(generated=1, failed=1), "row 1 is failed with error None"),
        ([line(0, error="Odd"), line(1)], counts(generated=2), "row 0 is generated with error 'Odd'"),
    ],
)
def test_a_manifest_that_is_not_what_was_ordered_is_told(lines, xcom, problem):
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
def test_a_result_says_either_paid_or_reused_and_the_bytes_that_were_made(cost_usd, reused, sha256, wrong):
    assert contradicts({"cost_usd": cost_usd, "reused": reused, "sha256": sha256}, "made") is wrong
