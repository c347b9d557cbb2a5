"""
A request that is submitted by one task and waited for by another.

Shows `wait_for_completion=False`, which ends the task when the request is submitted, and the sensor that takes the
request over. Other work can be done between the two: the vendor serves the result for one hour, and keeps the image for
seven days. Shows `@task.ideogram`, too: what its function returns is the prompt.

Before the first run: see `ideogram_one_image`; the bucket is the Airflow variable `ideogram_bucket`.
A run costs 0.05 USD.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_ideogram.sensors import IdeogramRequestSensor

BUCKET = "{{ var.value.get('ideogram_bucket', 'ideogram-demo') }}"
KEY = "greetings/{{ run_id }}.png"


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 2},
    tags=["ideogram"],
    doc_md=__doc__,
)
def ideogram_submit_and_wait():
    @task.ideogram(s3_bucket=BUCKET, s3_key=KEY, style_type="DESIGN", wait_for_completion=False)
    def submit(season: str) -> str:
        return f"A greeting card for {season}, paper cut-out"

    IdeogramRequestSensor(task_id="wait", request=submit("winter"), s3_bucket=BUCKET, s3_key=KEY)


ideogram_submit_and_wait()
