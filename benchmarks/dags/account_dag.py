"""Datasets and mapped images of one account; each dataset is a DAG of its own."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator, IdeogramGenerateImageOperator
from tests.system.plan import BUCKET

DATASETS = ("dataset_1", "dataset_2", "dataset_3", "dataset_4")
ROWS = 100
MAPPED_DAG_ID = "mapped"
MAPPED = 200
SMALL = "RESOLUTION_512_1536"
RETRIES = {"retries": 20, "retry_delay": timedelta(seconds=5)}

for dag_id in DATASETS:
    with DAG(dag_id, schedule=None, default_args=RETRIES):
        IdeogramGenerateDatasetOperator(
            task_id="task",
            prompts=[{"id": str(number), "prompt": f"{dag_id} {number}"} for number in range(ROWS)],
            s3_prefix=f"s3://{BUCKET}/{dag_id}/",
            resolution=SMALL,
        )

with DAG(MAPPED_DAG_ID, schedule=None, default_args=RETRIES, max_active_tasks=1000):
    IdeogramGenerateImageOperator.partial(task_id="task", s3_key=f"s3://{BUCKET}/mapped/", resolution=SMALL).expand(
        prompt=[f"{MAPPED_DAG_ID} {number}" for number in range(MAPPED)]
    )
