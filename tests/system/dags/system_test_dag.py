"""A DAG whose runs make a set of images each, while their processes are killed."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator
from tests.system import crashes
from tests.system.plan import BUCKET, DAG_ID, TASK_ID

crashes.install()

IMAGES = int(os.environ.get("SYSTEM_TEST_IMAGES_PER_RUN", "1"))
SET, VARIANT = "{{ dag_run.conf['set'] }}", "{{ dag_run.conf['variant'] }}"

with DAG(DAG_ID, schedule=None, max_active_runs=12, max_active_tasks=1000):
    IdeogramGenerateImageOperator.partial(
        task_id=TASK_ID,
        s3_bucket=BUCKET,
        resolution="RESOLUTION_512_1536",
        poll_interval=1.0,
        retries=6,
        retry_delay=timedelta(seconds=3),
    ).expand_kwargs(
        [
            {
                "prompt": f"{SET} {VARIANT} {number}",
                "s3_key": f"images/{SET}/{number}.png",
                # Half of the tasks leave an unknown submit to a person, and a tenth wait on a worker.
                "on_unknown_submit": "resubmit" if number % 2 else "fail",
                "deferrable": number % 10 != 9,
            }
            for number in range(IMAGES)
        ]
    )
