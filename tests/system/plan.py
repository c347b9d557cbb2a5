"""
The plan of a run of the system test, which depends on its seed only.

Invariant: nothing here reads a clock or a running system, so that equal options are equal plans.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DAG_ID = "system_test"
DATASET_DAG_ID = "system_test_dataset"
DATASET = "dataset"
TASK_ID = "generate"
BUCKET = "system-test"
IMAGES_PER_RUN = 50

#: The points where a task's process is killed, in the order in which a task passes them.
KILL_POINTS = (
    "before the intent",
    "between intent and POST",
    "inside the POST, before it is accepted",
    "inside the POST, after it was accepted",
    "between POST and record",
    "after the record, before deferring",
    "after deferring, at the resumed start",
    "during the download",
    "during the upload",
    "after the upload, before the record's removal",
    "after the record's removal",
)

#: States of the tasks that a person clears, which alternate.
CLEARED_STATES = ("running", "deferred", "up_for_retry", "success", "queued", "running", "failed", "scheduled")

_STATUS_FAULTS = (
    {"kind": "error", "status": 500, "body": "error"},
    {"kind": "error", "status": 502, "body": "html"},
    {"kind": "error", "status": 429, "body": "message", "retry_after": 2},
    {"kind": "error", "status": 504, "body": "empty"},
    {"kind": "reset"},
    {"kind": "reset", "when": "after"},
    {"kind": "slow", "seconds": 2.0},
    {"kind": "content_type"},
)
_IMAGE_FAULTS = (
    {"kind": "error", "status": 503, "body": "text"},
    {"kind": "error", "status": 404, "body": "detail"},
    {"kind": "reset"},
    {"kind": "truncated"},
    {"kind": "not_image"},
    {"kind": "slow", "seconds": 2.0},
)
#: The connection's timeout is 5 s: a slower response is a read timeout.
_SUBMIT_FAULTS = (
    {"kind": "error", "status": 503},
    {"kind": "error", "status": 503, "when": "after"},
    {"kind": "error", "status": 500, "body": "binary", "when": "after"},
    {"kind": "reset"},
    {"kind": "reset", "when": "after"},
    {"kind": "error", "status": 429, "retry_after": 1},
    {"kind": "error", "status": 429, "body": "text", "retry_after": 7},
    {"kind": "slow", "seconds": 2.0},
    {"kind": "slow", "seconds": 8.0, "when": "after"},
)
#: The share of jobs that are still running when the vendor drops their record.
SLOW_JOBS = 0.05
_JOB_FAULTS = ({"kind": "failed", "probability": 0.03}, {"kind": "blocked", "probability": 0.01})


@dataclass(frozen=True)
class PlannedRun:
    """
    A DAG run: an image for each number below `images`, under keys of its set.

    :param run_id: Its id.
    :param image_set: The prefix of its keys; runs of one set have the same keys.
    :param variant: Part of the prompts; runs of one set with different variants compete for its keys.
    :param rows: The rows of its dataset, which one task makes; 0 for a run with one task per image.
    """

    run_id: str
    image_set: str
    variant: str = "plain"
    rows: int = 0

    @property
    def dag_id(self) -> str:
        return DATASET_DAG_ID if self.rows else DAG_ID

    def prompts(self, map_index: int) -> list[str]:
        """Return the prompts of one of its tasks, which name the images."""
        numbers = range(self.rows) if self.rows else [map_index]
        return [f"{self.image_set} {self.variant} {number}" for number in numbers]

    @property
    def conf(self) -> dict[str, Any]:
        return {"set": self.image_set, "variant": self.variant}


def planned_runs(images: int, *, shared_keys: bool = True) -> list[PlannedRun]:
    """
    Return the runs.

    :param shared_keys: Whether one of ten sets has a second run with the same inputs, and one a second run with others.
    """
    runs = []
    for number in range(-(-images // IMAGES_PER_RUN)):
        name = f"set-{number:02}"
        runs.append(PlannedRun(f"run-{number:02}", name))
        if shared_keys and number % 10 == 0:
            runs.append(PlannedRun(f"run-{number:02}-twin", name))
        if shared_keys and number % 10 == 1:
            runs.append(PlannedRun(f"run-{number:02}-other", name, "other"))
    return runs


def api_faults(seed: int, rate: float, *, limited_submits: int | None = None) -> Iterator[dict[str, Any]]:
    """
    Yield the emulator's faults.

    :param rate: The share of the calls of each operation that have a fault.
    :param limited_submits: How often each of the 429s of submits occurs at most, None for no limit: each one lowers the
        rate of an account.
    """
    kinds = {
        "submit": _SUBMIT_FAULTS,
        "status": _STATUS_FAULTS,
        "result": _STATUS_FAULTS,
        "history": _STATUS_FAULTS,
        "image": _IMAGE_FAULTS,
    }
    number = seed * 1000
    for operation, faults in kinds.items():
        for fault in faults:
            number += 1
            times = limited_submits if operation == "submit" and fault.get("status") == 429 else None
            yield {"on": operation, "times": times, "probability": rate / len(faults), "random_seed": number, **fault}
    for fault in _JOB_FAULTS:
        number += 1
        yield {"on": "job", "times": None, "random_seed": number, **fault}


def slow_jobs(seed: int, record_seconds: float) -> Iterator[dict[str, Any]]:
    """
    Yield the fault of jobs that outlive their record: their result is in the account's history only.

    :param record_seconds: Seconds for which the emulator serves status and result.
    """
    yield {
        "on": "job",
        "kind": "job_seconds",
        "seconds": record_seconds * 1.2,
        "times": None,
        "probability": SLOW_JOBS,
        "random_seed": seed,
    }


def is_killed(seed: int, rate: float, task: tuple[str, int, int], point: str) -> bool:
    """
    Return whether an attempt of a task is killed at a point.

    :param task: Run id, map index and try number.
    """
    digest = hashlib.sha256(repr((seed, task, point)).encode()).digest()
    return int.from_bytes(digest[:8], "big") < rate * 2**64


def moments(seed: int, what: str, count: int, until: float = 0.98) -> list[float]:
    """Return `count` shares of the progress up to `until`, in order."""
    rng = random.Random(f"{seed} {what}")
    return sorted(rng.uniform(0.02, until) for _ in range(count))
