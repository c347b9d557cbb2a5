"""
A set of images every night, and a contact sheet of them.

Shows the operator mapped over a list (one task an image, all waiting in the triggerer at the same time), a key of its
own for each image under the night's date, and a task that reads all images by their XComs.

Before the first run: see `ideogram_one_image`; the bucket is the Airflow variable `ideogram_bucket`. A night costs
0.05 USD an image. A night that is run again pays only for images that are not in S3 yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator

BUCKET = "{{ var.value.get('ideogram_bucket', 'ideogram-demo') }}"
# A run that was triggered by hand without a date has no `ds`.
PREFIX = "nightly/{{ ds | default(run_id) }}"
PROMPTS = {
    "lighthouse": "A red lighthouse in a storm, gouache",
    "observatory": "An observatory on a hill under the milky way, long exposure",
    "market": "A night market in the rain, neon reflections, wide angle",
    "greenhouse": "A greenhouse full of ferns at dawn, soft light",
    "locomotive": "A steam locomotive crossing a viaduct, art deco poster",
    "library": "A library inside a hollow tree, paper cut-out",
}
COLUMNS = 3
CELL = 320


@task
def make_contact_sheet(images: Iterable[dict[str, Any]]) -> str:
    """Put small versions of all images side by side, store the sheet beside them and return its address."""
    # Imported here, as a DAG file is parsed again and again.
    from io import BytesIO

    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from PIL import Image, ImageOps

    s3 = S3Hook(aws_conn_id="aws_default")
    images = list(images)
    rows = -(-len(images) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL, rows * CELL), "white")
    for index, image in enumerate(images):
        content = s3.get_key(image["key"], image["bucket"]).get()["Body"].read()
        with Image.open(BytesIO(content)) as picture:
            small = ImageOps.fit(picture.convert("RGB"), (CELL, CELL))
        row, column = divmod(index, COLUMNS)
        sheet.paste(small, (column * CELL, row * CELL))

    content = BytesIO()
    sheet.save(content, "JPEG", quality=90)
    bucket, key = images[0]["bucket"], images[0]["key"].rsplit("/", 1)[0] + "/contact-sheet.jpg"
    s3.load_bytes(content.getvalue(), key, bucket, replace=True)
    return f"s3://{bucket}/{key}"


@dag(
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["ideogram"],
    doc_md=__doc__,
)
def ideogram_nightly_set():
    generate = IdeogramGenerateImageOperator.partial(
        task_id="generate", s3_bucket=BUCKET, retries=1, retry_delay=timedelta(seconds=30)
    ).expand_kwargs([{"prompt": prompt, "s3_key": f"{PREFIX}/{name}.png"} for name, prompt in PROMPTS.items()])
    make_contact_sheet(generate.output)


ideogram_nightly_set()
