"""
An image that a person looks at before it is published.

Shows Airflow's approval (3.1 and newer) between the image and the task that publishes it: the run waits, without a
worker, under *Required Actions* in Airflow's UI, where the image is shown. What is rejected stays a draft; the task
that would publish it is skipped.

Before the first run: see `ideogram_one_image`; the bucket is the Airflow variable `ideogram_bucket`.
A run costs 0.05 USD.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import dag, task
from airflow.providers.standard.operators.hitl import ApprovalOperator

from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator

BUCKET = "{{ var.value.get('ideogram_bucket', 'ideogram-demo') }}"
# The gallery's addresses of the image and of its page; both are shown to those only who may see this DAG.
RUN = "dags/{{ dag.dag_id }}/runs/{{ run_id | urlencode }}/tasks/draft"
BODY = f"""
![{{{{ ti.xcom_pull('draft')['prompt'] }}}}](/ideogram/{RUN}/images/-1/-/file)

[All about this image](/{RUN}/plugin/ideogram-images): {{{{ ti.xcom_pull('draft')['uri'] }}}}
"""


@task
def publish(image: dict[str, Any]) -> str:
    """Copy the image to where the world looks for it."""
    # Imported here, as a DAG file is parsed again and again.
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    key = image["key"].replace("drafts/", "published/", 1)
    S3Hook(aws_conn_id="aws_default").copy_object(image["key"], key, image["bucket"], image["bucket"])
    return f"s3://{image['bucket']}/{key}"


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 2},
    params={"prompt": "A poster for a summer fair: a carousel at dusk, linocut"},
    tags=["ideogram"],
    doc_md=__doc__,
)
def ideogram_approval():
    draft = IdeogramGenerateImageOperator(
        task_id="draft",
        prompt="{{ params.prompt }}",
        resolution="832x1216",
        s3_bucket=BUCKET,
        s3_key="drafts/{{ run_id }}.png",
    )
    approve = ApprovalOperator(task_id="approve", subject="Publish this image?", body=BODY)
    draft >> approve >> publish(draft.output)


ideogram_approval()
