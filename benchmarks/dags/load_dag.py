"""The work of one hour: a set of mapped images, and a dataset."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator, IdeogramGenerateImageOperator

DAG_ID = "hour"
MAPPED = 20
ROWS = 100
IMAGES = MAPPED + ROWS
#: A task that resumes soon after it deferred can be marked failed while it continues (apache/airflow#72716).
RETRIES: dict[str, Any] = {"retries": 5, "retry_delay": timedelta(seconds=1)}

with DAG(DAG_ID, schedule=None, default_args=RETRIES, max_active_runs=4):
    IdeogramGenerateImageOperator.partial(task_id="mapped", s3_key="s3://benchmark/{{ run_id }}/mapped/").expand(
        prompt=[f"image number {number}" for number in range(MAPPED)]
    )
    IdeogramGenerateDatasetOperator(
        task_id="dataset",
        prompts=[f"row number {number}" for number in range(ROWS)],
        s3_prefix="s3://benchmark/{{ run_id }}/dataset",
    )
