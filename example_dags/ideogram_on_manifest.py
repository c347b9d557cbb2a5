"""
What comes after a day's images: runs whenever `ideogram_daily_dataset` has made some, and reads their manifest.

The asset's event carries the result of the task that made the images, so that no address is put together twice.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import Asset, dag, task

IMAGES = Asset("ideogram_daily_images")


@task(inlets=[IMAGES])
def summarize(**context: Any) -> dict[str, int]:
    """Return how many images there are of each resolution, over all days that were made since the last run."""
    # Imported here, as a DAG file is parsed again and again.
    import json
    from collections import Counter

    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    if "triggering_asset_events" in context:
        events = context["triggering_asset_events"][IMAGES]
    else:  # Airflow 2.11
        events = context["triggering_dataset_events"][IMAGES.uri]
    s3 = S3Hook(aws_conn_id="aws_default")
    found: Counter[str] = Counter()
    for event in events:
        bucket, _, key = event.extra["manifest_uri"].removeprefix("s3://").partition("/")
        for line in s3.get_key(key, bucket).get()["Body"].iter_lines():
            image = json.loads(line)
            if image["status"] in ("generated", "reused"):
                found[image["resolution"]] += 1
    return dict(found)


@dag(schedule=[IMAGES], start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False, tags=["ideogram"], doc_md=__doc__)
def ideogram_on_manifest():
    summarize()


ideogram_on_manifest()
