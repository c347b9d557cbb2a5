"""Every operator in each of its modes, and a task that reads their results."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, task

from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator, IdeogramGenerateImageOperator
from airflow_provider_ideogram.sensors import IdeogramRequestSensor
from dev.end_to_end import (
    BUCKET,
    DAG_ID,
    DECORATED_PROMPT,
    MAPPED_PROMPTS,
    REPORT_KEY,
    ROWS,
    SUBMITTED_PROMPT,
    WORKER_PROMPT,
)

with DAG(
    DAG_ID,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    default_args={"retries": 1, "retry_delay": timedelta(seconds=1)},
):
    mapped = IdeogramGenerateImageOperator.partial(task_id="mapped", s3_bucket=BUCKET).expand_kwargs(
        [{"prompt": prompt, "s3_key": f"images/{prompt}.png"} for prompt in MAPPED_PROMPTS]
    )
    on_worker = IdeogramGenerateImageOperator(
        task_id="on_worker",
        prompt=WORKER_PROMPT,
        s3_key=f"s3://{BUCKET}/images/{{{{ run_id }}}}.png",
        deferrable=False,
    )
    submitted = IdeogramGenerateImageOperator(
        task_id="submitted",
        prompt=SUBMITTED_PROMPT,
        s3_key=f"s3://{BUCKET}/images/submitted.png",
        wait_for_completion=False,
    )
    awaited = IdeogramRequestSensor(
        task_id="awaited", request=submitted.output, s3_key=f"s3://{BUCKET}/images/submitted.png"
    )

    @task.ideogram(s3_key=f"s3://{BUCKET}/images/decorated.png")
    def decorated() -> str:
        """Return what the image shows."""
        return DECORATED_PROMPT

    dataset = IdeogramGenerateDatasetOperator(
        task_id="dataset", prompts=ROWS, s3_prefix=f"s3://{BUCKET}/set", outlets=[Asset("end_to_end_images")]
    )

    @task
    def report(images: Any, others: Any, summary: Any) -> None:
        """Store the operators' results as this task received them."""
        import json

        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        received = json.dumps({"images": [*images, *others], "summary": summary})
        S3Hook("aws_default").load_string(received, REPORT_KEY, BUCKET)

    report(mapped.output, [on_worker.output, awaited.output, decorated()], dataset.output)
