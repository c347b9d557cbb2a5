"""
What a run reports: its progress, its result, and the error of a run with too many failures.

Invariant: all three are of the same counts and sums, those of the state.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.state import FINAL_STATUSES, DatasetState
from airflow_provider_ideogram.exceptions import IdeogramDatasetFailed, IdeogramDatasetStopped, IdeogramError

log = logging.getLogger(__name__)


def log_progress(state: DatasetState) -> dict[str, Any]:
    """Log the progress, and return the same numbers for the XCom ``progress``."""
    minutes = max(state.elapsed(time.time()), 1.0) / 60
    per_minute = (state.done - state.counts[ImageStatus.REUSED]) / minutes
    seconds_left = (state.total - state.done) / per_minute * 60 if per_minute else None
    log.info(
        "%d of %d items, %d in flight, %.1f images a minute, %.2f USD spent, %s left",
        state.done,
        state.total,
        len(state.in_flight),
        per_minute,
        state.cost_usd,
        "unknown time" if seconds_left is None else f"{seconds_left:.0f} s",
    )
    return {
        "total": state.total,
        "done": state.done,
        **_totals(state),
        "in_flight": len(state.in_flight),
        "images_per_minute": round(per_minute, 1),
        "seconds_left": None if seconds_left is None else round(seconds_left),
        "slices": state.slices,
    }


def result_of(state: DatasetState, manifest_uri: str) -> dict[str, Any]:
    """Return the task's XCom."""
    return {
        "manifest_uri": manifest_uri,
        "total": state.total,
        **_totals(state),
        "seconds": round(state.elapsed(time.time()), 1),
    }


def failure_of(state: DatasetState, max_failures: float, manifest_uri: str) -> IdeogramDatasetFailed:
    """Return the error of a run with too many failures; its workspace stays for the next attempt."""
    is_final = state.failures == sum(state.counts[status] for status in FINAL_STATUSES)
    kind = IdeogramDatasetStopped if is_final else IdeogramDatasetFailed
    next_step = "A retry would end the same" if is_final else "A retry attempts only those that failed"
    examples = "".join(f"\n  - {example}" for example in state.examples)
    return kind(
        f"{state.failures} of {state.total} items have no image, and max_failures is {max_failures}",
        f"{state.charged_text}. {next_step}. {manifest_uri} has all of them{examples and f':{examples}'}",
        charged=state.charged,
    )


def tell_charges(error: IdeogramError, state: DatasetState, *, is_durable: bool) -> None:
    """
    Let an error that was not charged itself say what the run was charged: the task ends with it.

    :param is_durable: Whether the ledger keeps running requests, also if the input is changed.
    """
    if error.charged is not False or state.charged is False:
        return
    said, _, remedy = error.advice.partition(". ")
    sentences = [state.charged_text, remedy if "charged" in said else error.advice]
    if state.in_flight and is_durable and not error.retryable:
        sentences.append("Clear the task when the cause is gone: it goes on with the running requests")
    advice = " ".join(f"{sentence.rstrip('.')}." for sentence in sentences if sentence)
    text = str(error)
    error.args = (text.replace(error.advice, advice, 1) if error.advice else f"{text} {advice}",)
    error.advice, error.charged = advice, state.charged


def _totals(state: DatasetState) -> dict[str, Any]:
    return {
        **state.counts,
        "cost_usd": round(state.cost_usd, 6),
        "original_cost_usd": round(state.original_cost_usd, 6),
        "cost_is_estimate": state.cost_is_estimate,
    }
