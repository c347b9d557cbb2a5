"""Mapped tasks that only defer, that upload a file with the amazon provider's operator, and that make an image."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.providers.amazon.aws.transfers.local_to_s3 import LocalFilesystemToS3Operator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator

from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator

MAPPED = 20
#: Seconds that a job takes at the vendor.
JOB_SECONDS = 5.0
#: A task that resumes soon after it deferred can be marked failed while it continues (apache/airflow#72716).
RETRIES = {"retries": 2, "retry_delay": timedelta(seconds=1)}


class DeferOnly(BaseOperator):
    """Defer once, and do nothing else."""

    def __init__(self, *, number: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number

    def execute(self, context: Any) -> None:  # noqa: ARG002
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=JOB_SECONDS)), method_name="resume")

    def resume(self, context: Any, event: Any) -> None:
        """Do nothing."""


with DAG("deferrals", schedule=None, default_args=RETRIES):
    DeferOnly.partial(task_id="task").expand(number=list(range(MAPPED)))

with DAG("uploads", schedule=None, default_args=RETRIES):
    LocalFilesystemToS3Operator.partial(
        task_id="task", filename=os.environ.get("BENCHMARK_IMAGE", ""), dest_bucket="benchmark", replace=True
    ).expand(dest_key=[f"uploads/{number}.png" for number in range(MAPPED)])

for name, thumbnails in (("images", True), ("images_without_thumbnails", False)):
    with DAG(name, schedule=None, default_args=RETRIES):
        IdeogramGenerateImageOperator.partial(
            task_id="task", s3_key=f"s3://benchmark/{name}/", thumbnails=thumbnails
        ).expand(prompt=[f"cat number {number}" for number in range(MAPPED)])
