"""
The last step of a slice: the images of rows whose inputs are those of another row.

Invariant: nothing is copied before all images are generated, and nothing is paid for a copy.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from airflow_provider_ideogram.datasets.parts import ItemResult, write_part
from airflow_provider_ideogram.datasets.rows import Item
from airflow_provider_ideogram.datasets.run import DatasetRun, gather
from airflow_provider_ideogram.datasets.workspace import chunk_name
from airflow_provider_ideogram.exceptions import IdeogramError, IdeogramJobFailed
from airflow_provider_ideogram.storage.image_record import ImageRecord, made_from
from airflow_provider_ideogram.storage.target import Target


def copy_images(run: DatasetRun, pool: ThreadPoolExecutor) -> list[IdeogramError]:
    """Copy the images if all are generated; return errors, after which the same chunk is copied again."""
    state = run.state
    if state.in_flight or state.has_more:
        return []
    while state.copied_chunks < state.copy_chunks:
        lines = run.workspace.read_lines(chunk_name("copy", state.copied_chunks))
        results, errors = gather(pool, lambda item: _copy(run, item), map(Item.from_json, lines))
        if errors:
            return errors
        write_part(run, [result for result in results if result is not None])
        state.copied_chunks += 1
    return []


def _copy(run: DatasetRun, item: Item) -> ItemResult:
    source, target = (Target(run.output_prefix.bucket, key) for key in (item.copy_of, item.key))
    record = _existing(run, target, item) if source == target else run.store.copy(source, target, item.request)
    if record is not None:
        return ItemResult.of_record(run, item, record)
    error = IdeogramJobFailed(f"The row with the same inputs, {item.copy_of}, has no image", "Nothing was charged.")
    return ItemResult.of_error(item, error, cost_usd=0.0)


def _existing(run: DatasetRun, target: Target, item: Item) -> ImageRecord | None:
    """Return the image of another row that has the same id, made from the same inputs."""
    head = run.store.head(target)
    return ImageRecord.of_object(target, head, item.request) if head and made_from(head, item.request) else None
