"""A DAG whose task makes a dataset of images; the environment sets their number."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator
from tests.system import crashes
from tests.system.plan import BUCKET, DATASET, DATASET_DAG_ID, TASK_ID

crashes.install()

ROWS = int(os.environ.get("SYSTEM_TEST_ROWS", "1"))

with DAG(DATASET_DAG_ID, schedule=None):
    IdeogramGenerateDatasetOperator(
        task_id=TASK_ID,
        prompts=[{"id": str(number), "prompt": f"{DATASET} plain {number}"} for number in range(ROWS)],
        s3_prefix=f"s3://{BUCKET}/images/{DATASET}",
        key_template="{id}.png",
        resolution="RESOLUTION_512_1536",
        # Requests that the emulator fails or blocks do not fail the task.
        max_failures=0.2,
        retries=8,
        retry_delay=timedelta(seconds=3),
    )
