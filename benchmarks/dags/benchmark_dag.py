"""Images, one and many, and what they are compared with: tasks that only defer as long as a job, and uploads."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.providers.amazon.aws.transfers.local_to_s3 import LocalFilesystemToS3Operator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator

from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator

#: Seconds that a job takes at the vendor.
JOB_SECONDS = 12.4
MAPPED = 50
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


with DAG("one_image", schedule=None, default_args=RETRIES):
    IdeogramGenerateImageOperator(task_id="task", prompt="a cat", s3_key="s3://benchmark/one/", poll_interval=None)

with DAG("one_deferral", schedule=None, default_args=RETRIES):
    DeferOnly(task_id="task")

for name, thumbnails in (("many_images", True), ("many_images_without_thumbnails", False)):
    with DAG(name, schedule=None, default_args=RETRIES):
        IdeogramGenerateImageOperator.partial(
            task_id="task", s3_key=f"s3://benchmark/{name}/", thumbnails=thumbnails
        ).expand(prompt=[f"cat number {number}" for number in range(MAPPED)])

with DAG("many_uploads", schedule=None, default_args=RETRIES):
    LocalFilesystemToS3Operator.partial(
        task_id="task", filename=os.environ.get("BENCHMARK_IMAGE", ""), dest_bucket="benchmark", replace=True
    ).expand(dest_key=[f"uploads/{number}.png" for number in range(MAPPED)])

with DAG("many_deferrals", schedule=None, default_args=RETRIES):
    DeferOnly.partial(task_id="task").expand(number=list(range(MAPPED)))

with DAG("many_triggers", schedule=None):
    # The pool has no slots: no worker starts these tasks, and the benchmark puts them into the triggerer.
    DeferOnly.partial(task_id="task", pool="without_slots").expand(number=list(range(1000)))
