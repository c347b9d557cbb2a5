"""
Which task instance, and which group of its attempts, a job belongs to.

Invariant: the same in each attempt of a task instance. Imports nothing heavy: DAG files load it.
"""

from __future__ import annotations

import hashlib
from typing import Any


def owner_id(ti: Any) -> str:
    """
    Return the task instance's id in the ledger, ``dag_id/run_id/task_id/map_index``.

    The iterations of a task loop, which Airflow has from 3.4 on, share these four; ``@region.index`` tells them apart.

    :param ti: A task instance, or any object with these four attributes.
    """
    region = getattr(ti, "region_id", None)
    iteration = f"@{region.hex}.{ti.region_index}" if region is not None and region.int else ""
    return f"{ti.dag_id}/{ti.run_id}/{ti.task_id}/{ti.map_index}{iteration}"


def attempt_group(owner: str, max_tries: int) -> str:
    """
    Return a digest that the attempts of a task instance between two clears share.

    :param max_tries: The task instance's ``max_tries``, which Airflow changes on a clear only.
    """
    return hashlib.sha256(f"{owner}/{max_tries}".encode()).hexdigest()[:32]
