"""
The last step of a slice: the images of rows whose inputs are those of another row.

Invariant: nothing is copied before all images are generated, and nothing is paid for a copy.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from airflow_provider_ideogram.datasets.outcomes import ItemResult, write_outcomes
from airflow_provider_ideogram.datasets.rows import Item
from airflow_provider_ideogram.datasets.slice import SliceContext, gather
from airflow_provider_ideogram.datasets.workspace import chunk_name
from airflow_provider_ideogram.exceptions import IdeogramError, IdeogramJobFailed
from airflow_provider_ideogram.jobs.target_image import object_exists
from airflow_provider_ideogram.storage.image_record import ImageRecord, made_from
from airflow_provider_ideogram.storage.target import Target


def copy_images(context: SliceContext, pool: ThreadPoolExecutor) -> list[IdeogramError]:
    """Copy the images if all are generated; return errors, after which the same chunk is copied again."""
    state = context.state
    if state.in_flight or state.has_more:
        return []
    while state.copied_chunks < state.copy_chunks:
        lines = context.workspace.read_lines(chunk_name(state.plan, "copy", state.copied_chunks))
        results, errors = gather(pool, lambda item: _copy(context, item), map(Item.from_json, lines))
        if errors:
            return errors
        write_outcomes(context, [result for result in results if result is not None])
        state.copied_chunks += 1
    return []


def _copy(context: SliceContext, item: Item) -> ItemResult:
    source, target = context.target(item.copy_of), context.target(item.key)
    if context.if_exists_of(item) == "fail":
        head = context.store.head(target)
        if head is not None and not made_from(head, item.request):
            return ItemResult.of_error(item, object_exists(target), cost_usd=0.0)
    record = _existing(context, target, item) if source == target else context.store.copy(source, target, item.request)
    if record is not None:
        return ItemResult.of_record(context, item, record)
    error = IdeogramJobFailed(f"The row with the same inputs, {item.copy_of}, has no image", "Nothing was charged.")
    return ItemResult.of_error(item, error, cost_usd=0.0)


def _existing(context: SliceContext, target: Target, item: Item) -> ImageRecord | None:
    """Return the image of another row that has the same id, made from the same inputs."""
    head = context.store.head(target)
    return ImageRecord.of_object(target, head, item.request) if head and made_from(head, item.request) else None
