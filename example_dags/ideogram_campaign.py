"""
A campaign: each product of a table in two styles, two formats and two variants.

One task makes all images, 3 products x 2 styles x 2 formats x 2 variants = 24 for about 1.20 USD, and writes a manifest
beside them. The prompts come from the table's columns, and an image's id names its product, format, style and variant:
`mug-1024x1024-DESIGN-1`. Seeds follow from the rows, so a further run pays only for what is new: a product, a style, a
format, or a third variant. A blank image is made again with another seed, three times at most. Each image is marked as
made by a model, and the manifest is there as Parquet and for Hugging Face's image folders, too.

Before the first run: install the extra `parquet` (`pip install 'airflow-provider-ideogram[parquet]'`), which the
manifest as Parquet needs; and see `ideogram_one_image`. The bucket is the Airflow variable `ideogram_bucket`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator

BUCKET = "{{ var.value.get('ideogram_bucket', 'ideogram-demo') }}"


@task
def read_products() -> list[dict[str, Any]]:
    """Return the product table; in production a query, or a file that the operator reads by `prompts_path`."""
    return [
        {"id": "mug", "product": "an enamel mug", "background": "on a mossy rock at dawn", "price": 14.5},
        {"id": "lamp", "product": "a brass desk lamp", "background": "on a walnut desk at night", "price": 89},
        {"id": "rug", "product": "a woven wool rug", "background": "in a sunlit loft", "price": 240},
    ]


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["ideogram"],
    doc_md=__doc__,
)
def ideogram_campaign():
    IdeogramGenerateDatasetOperator(
        task_id="make_images",
        prompts=read_products(),
        prompt_template="A photo of {product} {background}, with a price tag that says {price:.2f}",
        matrix={"style_type": ["REALISTIC", "DESIGN"], "resolution": ["1024x1024", "832x1216"]},
        variants=2,
        s3_prefix=f"s3://{BUCKET}/campaign",
        key_template="{id}.png",
        gates={"blank": "redo"},
        provenance="xmp",
        outputs=["parquet", "imagefolder"],
        max_cost_usd=5,
        # A retry attempts only what failed, and takes up what is running.
        retries=3,
        retry_delay=timedelta(minutes=1),
    )


ideogram_campaign()
