"""Datasets, and the same prompts mapped over the operator of one image; each slice records its use of the worker."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from airflow.sdk import DAG

from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator, IdeogramGenerateImageOperator

#: Airflow's scheduler can fail a task that continues (apache/airflow#72716); each attempt reattaches to its requests.
RETRIES: dict[str, Any] = {"retries": 20, "retry_delay": timedelta(seconds=1)}
SETTINGS = json.loads(os.environ["DATASET_BENCHMARK"])


class MeasuredDatasetOperator(IdeogramGenerateDatasetOperator):
    """Write a line for each slice: seconds since the worker's process started, CPU seconds, and peak memory in MB."""

    def execute(self, context: Any) -> Any:
        """Measure the first slice."""
        try:
            return super().execute(context)
        finally:
            self._note(context)

    def execute_complete(self, context: Any, event: Mapping[str, Any]) -> Any:
        """Measure a later slice."""
        try:
            return super().execute_complete(context, event)
        finally:
            self._note(context)

    def _note(self, context: Any) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        line = {
            "seconds": time.time() - psutil.Process().create_time(),
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "peak_mb": used.ru_maxrss / 1024,
        }
        with (Path(SETTINGS["notes"]) / f"{context['ti'].dag_id}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


for name, arguments in SETTINGS["datasets"].items():
    with DAG(name, schedule=None):
        MeasuredDatasetOperator(task_id="make", **RETRIES, **arguments)

with DAG("mapped", schedule=None):
    IdeogramGenerateImageOperator.partial(task_id="make", s3_key="s3://benchmark/mapped/", **RETRIES).expand(
        prompt=[f"prompt number {number}" for number in range(SETTINGS["mapped"])]
    )
