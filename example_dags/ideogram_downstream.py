"""
An image and a task that works with it.

Shows what the operator hands on: its XCom says where the image is and how it was made, and the next task reads the
image from S3 by it. Here it writes a thumbnail beside the image.

Before the first run: see `ideogram_one_image`. A run costs 0.05 USD.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator

BUCKET = "ideogram-demo"
THUMBNAIL_SIZE = (256, 256)


@task
def make_thumbnail(image: dict[str, Any]) -> str:
    """Store a small JPEG of the image beside it and return its address."""
    # Imported here, as a DAG file is parsed again and again.
    from io import BytesIO

    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from PIL import Image

    s3 = S3Hook(aws_conn_id="aws_default")
    original = s3.get_key(image["key"], image["bucket"]).get()["Body"].read()
    with Image.open(BytesIO(original)) as picture:
        thumbnail = picture.convert("RGB")
    thumbnail.thumbnail(THUMBNAIL_SIZE)
    content = BytesIO()
    thumbnail.save(content, "JPEG")

    key = f"{image['key'].removesuffix('.png')}-thumbnail.jpg"
    s3.load_bytes(content.getvalue(), key, image["bucket"], replace=True)
    return f"s3://{image['bucket']}/{key}"


@dag(schedule=None, tags=["ideogram"], doc_md=__doc__)
def ideogram_downstream():
    generate = IdeogramGenerateImageOperator(
        task_id="generate",
        prompt="An observatory on a hill under the milky way, long exposure",
        resolution="1280x800",
        style_type="REALISTIC",
        s3_bucket=BUCKET,
        s3_key="downstream/observatory.png",
        retries=1,
    )
    make_thumbnail(generate.output)


ideogram_downstream()
