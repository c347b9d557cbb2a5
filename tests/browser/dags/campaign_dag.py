"""A campaign with most features of a dataset, and tasks that are refused before they pay."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from airflow import __version__
from airflow.sdk import DAG, ObjectStoragePath, task
from packaging.version import Version

from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator

PREFIX = "s3://gallery/campaign"
TEMPLATE = "A photo of {product}, with a tag of {price:.2f} EUR"

with DAG("campaign", schedule=None, default_args={"retries": 1, "retry_delay": timedelta(seconds=1)}):

    @task
    def read_products() -> Any:
        """Return a table as pandas reads it: what the mug leaves empty is NaN."""
        import pandas

        columns = ["ID", "Product", "price", "seed", "style_type"]
        rows = [["mug", "an enamel mug", 14.5, None, None], ["lamp", "a brass lamp", 89, 41, "ANIME"]]
        table = pandas.DataFrame(rows, columns=columns)
        if Version(__version__) < Version("3.3"):  # whose XComs can't be tables of pandas 3
            return json.loads(table.to_json(orient="records"))
        return table

    products = read_products()
    generate = IdeogramGenerateDatasetOperator(
        task_id="generate",
        prompts=products,
        prompt_template=TEMPLATE,
        variants=2,
        matrix={
            "style_type": ["REALISTIC", "{{ dag_run.conf.get('style', 'DESIGN') }}"],
            "resolution": ["512x1536", "1024x1024"],
        },
        s3_prefix=PREFIX,
        key_template="{id}.png",
        gates={"blank": "redo", "tests.support.gates.has_its_size": "fail"},
        provenance="xmp",
        outputs=["parquet", "imagefolder"],
        max_cost_usd=1,
        poll_interval=0.2,
    )
    at_one_prefix = IdeogramGenerateDatasetOperator.partial(task_id="at_one_prefix", s3_prefix=PREFIX)
    generate >> at_one_prefix.expand(prompts=[["A refused fox"], ["A refused hen"]])

    IdeogramGenerateDatasetOperator(
        task_id="misspelt", prompts=products, prompt_template="A refused {produkt}", s3_prefix="s3://gallery/misspelt"
    )
    IdeogramGenerateDatasetOperator(
        task_id="empty",
        prompts_path=ObjectStoragePath("s3://gallery/products/none.csv"),
        prompt_template=TEMPLATE,
        s3_prefix="s3://gallery/empty",
        allow_empty=True,
    )
