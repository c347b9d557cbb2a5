"""
One image: the smallest DAG there is.

Shows what the operator needs: a prompt and a place in S3. It waits in the triggerer and holds no worker meanwhile.

Before the first run: a connection `ideogram_default` of type Ideogram with your API key, a connection `aws_default`,
and your bucket's name in `BUCKET`. A run costs 0.05 USD; running it again costs nothing, as the image is there already.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import dag

from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator

BUCKET = "ideogram-demo"


@dag(schedule=None, tags=["ideogram"], doc_md=__doc__)
def ideogram_one_image():
    IdeogramGenerateImageOperator(
        task_id="generate",
        prompt="A red lighthouse in a storm, gouache",
        seed=7,
        s3_bucket=BUCKET,
        s3_key="one-image/lighthouse.png",
        retries=1,
    )


ideogram_one_image()
