"""One image, and many mapped ones; each beside a task that only defers for as long as the image's job takes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator

from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator

#: What a job takes at the vendor: the trigger looks for its end then.
JOB_SECONDS = 12.4
MAPPED = 50
#: A task that resumes soon after it deferred can be marked failed while it goes on (apache/airflow#72716).
AGAIN = {"retries": 2, "retry_delay": timedelta(seconds=1)}


class DeferOnly(BaseOperator):
    """Do nothing but defer once."""

    def __init__(self, *, number: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number

    def execute(self, context: Any) -> None:  # noqa: ARG002
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=JOB_SECONDS)), method_name="resume")

    def resume(self, context: Any, event: Any) -> None:
        """Do nothing."""


with DAG("one_image", schedule=None, default_args=AGAIN):
    IdeogramGenerateImageOperator(task_id="task", prompt="a cat", s3_key="s3://benchmark/one/", poll_interval=None)

with DAG("one_nothing", schedule=None, default_args=AGAIN):
    DeferOnly(task_id="task")

with DAG("many_images", schedule=None, default_args=AGAIN):
    IdeogramGenerateImageOperator.partial(task_id="task", s3_key="s3://benchmark/many/").expand(
        prompt=[f"cat number {number}" for number in range(MAPPED)]
    )

with DAG("many_nothings", schedule=None, default_args=AGAIN):
    DeferOnly.partial(task_id="task").expand(number=list(range(MAPPED)))

with DAG("crowd", schedule=None):
    # In a pool without slots: no worker starts them, the benchmark puts them to the triggerer itself.
    DeferOnly.partial(task_id="task", pool="nobody").expand(number=list(range(1000)))
