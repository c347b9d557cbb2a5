"""Items, records and a slice's context for the tests of decisions that need neither S3 nor the vendor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.rate_limiter import RateLimiter
from airflow_provider_ideogram.datasets.options import DatasetOptions
from airflow_provider_ideogram.datasets.rows import Item
from airflow_provider_ideogram.datasets.slice import SliceContext
from airflow_provider_ideogram.datasets.state import DatasetState, InFlightItem
from airflow_provider_ideogram.storage.image_record import ImageRecord
from airflow_provider_ideogram.storage.target import Target

NOW = 1795392000.0
BUCKET = "my-bucket"
OPTIONS = DatasetOptions(
    prompts=[],
    prompts_path=None,
    defaults={},
    key_template="{id}",
    prompt_template=None,
    variants=None,
    matrix=None,
    dedupe=False,
    allow_empty=False,
    if_exists="reuse",
    max_in_flight=50,
    requests_per_minute=None,
    max_failures=0,
    outputs=(),
    gates={},
    max_attempts=3,
    max_cost_usd=None,
    price_usd=None,
    timeout=600.0,
    resubmit=False,
    waits_for_budget=False,
    resubmit_on_5xx=True,
    s3_extra_args={},
    ledger_prefix="_ideogram/",
)


def make_item(name: str, model: str = "ideogram-2a-txt-2-img") -> Item:
    """Return an item with this id."""
    return Item(0, name, GenerationRequest(f"a {name}", model=model), f"set/{name}.png")


def make_state() -> DatasetState:
    """Return the state at the start of a run."""
    return DatasetState("digest", total=100, todo_chunks=1, started_at=NOW, rate_limiter=RateLimiter())


def make_context(state: DatasetState | None = None, **options: Any) -> SliceContext:
    """Return a slice's context without services; options are the operator's arguments."""
    return SliceContext(
        options=replace(OPTIONS, **options),
        hook=mock.Mock(),
        store=mock.Mock(),
        ledger=mock.Mock(),
        account=None,
        workspace=mock.Mock(),
        output_prefix=Target(BUCKET, "set/"),
        state=state or make_state(),
        owner="dag/run/make/-1",
        max_tries=2,
        save_state=mock.Mock(),
    )


def make_record(item: Item, cost_usd: float | None, request_id: str = "r-1", **changes: Any) -> ImageRecord:
    """Return the record of an item's stored image."""
    record = ImageRecord(
        uri=f"s3://{BUCKET}/{item.key}",
        bucket=BUCKET,
        key=item.key,
        etag="etag",
        version_id=None,
        content_type="image/png",
        size_bytes=9,
        width=1024,
        height=1024,
        sha256="0" * 64,
        request_id=request_id,
        model=item.request.model,
        prompt=item.request.prompt,
        magic_prompt_option="AUTO",
        resolution="RESOLUTION_1024_1024",
        style_type="GENERAL",
        seed=7,
        inference_seconds=12.4,
        cost_usd=cost_usd,
        original_cost_usd=cost_usd,
        cost_is_estimate=False,
        reused=False,
        submitted_at=None,
        completed_at=None,
    )
    return replace(record, **changes)


def make_in_flight(item: Item, request_id: str = "r-1", **changes: Any) -> InFlightItem:
    """Return an item whose request was submitted."""
    target = f"s3://{BUCKET}/{item.key}"
    return InFlightItem(item, Job(request_id, NOW, item.request, item.request.fingerprint, target, **changes))
