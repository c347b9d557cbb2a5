"""
An image of a sister model: Ideogram 3.

Shows what differs from the default model: the slug, parameters of Ideogram 2a that are left out with `None`, and
parameters of the model itself in `model_params`. The ledger, the waiting and the recovery are the same for each model.

Before the first run: see `ideogram_one_image`; the bucket is the Airflow variable `ideogram_bucket`.
A run costs about 0.065 USD, the vendor's list price; `cost_usd` of the result is what was charged.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import dag

from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator

BUCKET = "{{ var.value.get('ideogram_bucket', 'ideogram-demo') }}"


@dag(schedule=None, tags=["ideogram"], doc_md=__doc__)
def ideogram_sister_model():
    IdeogramGenerateImageOperator(
        task_id="generate",
        model="ideogram-3",
        prompt="A red lighthouse in a storm, gouache",
        resolution="1024x1024",
        magic_prompt_option=None,  # named magic_prompt in Ideogram 3
        style_type=None,
        model_params={"magic_prompt": "AUTO"},
        seed=7,
        s3_bucket=BUCKET,
        s3_key="sister-model/lighthouse.png",
        retries=1,
    )


ideogram_sister_model()
