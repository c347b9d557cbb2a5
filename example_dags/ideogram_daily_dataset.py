"""
A dataset of prompts a day: `prompts/2026-01-31.jsonl` becomes `images/2026-01-31/` with a manifest.

One task makes all images of a day, whatever their number, and holds a worker only for short bursts. Its asset's event
carries the result with the manifest's address; `ideogram_on_manifest` is scheduled on that.

Past days, one after the other, as fast as the account's rate limit allows:

    airflow backfill create --dag-id ideogram_daily_dataset --max-active-runs 1 \\
        --from-date 2026-01-01 --to-date 2026-01-31

On Airflow 2.11:

    airflow dags backfill --start-date 2026-01-01 --end-date 2026-01-31 ideogram_daily_dataset

A day that is made again pays only for what is not in S3 yet. The bucket is the Airflow variable `ideogram_bucket`; put
the account's rate limit into the connection's extra as `requests_per_minute`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import Asset, dag

from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator

BUCKET = "{{ var.value.get('ideogram_bucket', 'ideogram-demo') }}"
IMAGES = Asset("ideogram_daily_images")


@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    # Two runs at once would share the account's rate limit. With requests_per_minute in the connection they take turns.
    max_active_runs=1,
    tags=["ideogram"],
    doc_md=__doc__,
)
def ideogram_daily_dataset():
    IdeogramGenerateDatasetOperator(
        task_id="make_images",
        prompts_path=f"s3://{BUCKET}/prompts/{{{{ ds }}}}.jsonl",
        s3_prefix=f"s3://{BUCKET}/images/{{{{ ds }}}}",
        max_failures=0.02,
        max_cost_usd=50,
        outlets=[IMAGES],
        # A retry attempts only what failed, and takes up what is running.
        retries=3,
        retry_delay=timedelta(minutes=1),
    )


ideogram_daily_dataset()
