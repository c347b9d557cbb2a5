"""
What a run of the system test does, by its seed alone.

Invariant: nothing here looks at a clock or at a running system, so that equal options are equal plans.
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

#: Where a task's process is killed, in the order in which a task passes them.
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

#: States in which a person clears a task, in turn.
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
#: The connection's timeout is 5 s: what is slower is a read timeout.
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
_JOB_FAULTS = ({"kind": "failed", "probability": 0.03}, {"kind": "blocked", "probability": 0.01})


@dataclass(frozen=True)
class PlannedRun:
    """
    A DAG run: an image for each number below `images`, under keys of its set.

    :param run_id: Its id.
    :param image_set: Names its keys; runs of one set aim at the same keys.
    :param variant: Part of the prompts: runs of one set with different ones are rivals.
    :param rows: Of its dataset, which one task makes; 0 for a run with a task an image.
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


def planned_runs(images: int, *, contested: bool = True) -> list[PlannedRun]:
    """
    Return the runs.

    :param contested: Whether of ten sets one has a twin with the same inputs, and one a rival with others.
    """
    runs = []
    for number in range(-(-images // IMAGES_PER_RUN)):
        name = f"set-{number:02}"
        runs.append(PlannedRun(f"run-{number:02}", name))
        if contested and number % 10 == 0:
            runs.append(PlannedRun(f"run-{number:02}-twin", name))
        if contested and number % 10 == 1:
            runs.append(PlannedRun(f"run-{number:02}-rival", name, "rival"))
    return runs


def api_faults(seed: int, rate: float) -> Iterator[dict[str, Any]]:
    """
    Give the emulator's faults.

    :param rate: The share of calls of each operation that are struck, by one kind or another.
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
            yield {"on": operation, "times": None, "probability": rate / len(faults), "random_seed": number, **fault}
    for fault in _JOB_FAULTS:
        number += 1
        yield {"on": "job", "times": None, "random_seed": number, **fault}


def dies(seed: int, rate: float, task: tuple[str, int, int], point: str) -> bool:
    """
    Tell whether an attempt of a task is killed at a point.

    :param task: Run id, map index and try number.
    """
    digest = hashlib.sha256(repr((seed, task, point)).encode()).digest()
    return int.from_bytes(digest[:8], "big") < rate * 2**64


def moments(seed: int, what: str, count: int, until: float = 0.98) -> list[float]:
    """Return when something happens `count` times, as shares of the progress up to a last one, in order."""
    rng = random.Random(f"{seed} {what}")
    return sorted(rng.uniform(0.02, until) for _ in range(count))
