from __future__ import annotations

import time
from string import ascii_lowercase
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.rate_limiter import RateLimiter
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.manifest import failed_line
from airflow_provider_ideogram.datasets.rows import Item
from airflow_provider_ideogram.datasets.runner import DatasetRun
from airflow_provider_ideogram.datasets.state import DatasetState
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable


def _alike(error: Callable[[str, str], str], status: ImageStatus = ImageStatus.FAILED) -> int:
    """Return how many of some items are found to have failed alike, given the error of a key and a request."""
    state = DatasetState("source", total=100, chunks=1, started_at=time.time(), rate_limiter=RateLimiter())
    run = DatasetRun(
        hook=mock.Mock(), store=mock.Mock(), ledger=mock.Mock(), workspace=mock.Mock(), state=state,
        output_prefix=Target("my-bucket", "set/"), owner="dag/run/make/-1", max_tries=0, if_exists="reuse",
        resubmit=False, timeout=600.0, max_in_flight=50, max_cost_usd=None, price_usd=0.05,
    )  # fmt: skip
    for row, word in enumerate(ascii_lowercase):
        item = Item(row, word, GenerationRequest(f"a {word}"), f"set/{word} cat.png")
        text = error(item.key, f"r-{word}")
        run._write_part([failed_line(item, status, text, f"r-{word}" if f"r-{word}" in text else None, None)])
    return state.consecutive_same_failures


@pytest.mark.parametrize(
    "error",
    [
        lambda key, _: (
            f"A submit of dag/run/make/-1 for s3://my-bucket/{key} at 2026-11-24T10:00:{ord(key[4]) - 90:02} may have "
            "been accepted and charged: nobody answered it, and the account's request history shows no requests"
        ),
        lambda key, request: (
            f"Request {request} was paid, but what came, {ord(key[4]) * 100:,} bytes, is not a complete image: "
            f"cannot identify image file <_io.BytesIO object at 0x7f{ord(key[4]):x}f0>"
        ),
        lambda _, request: f"Request {request} failed at the vendor: the worker ran out of memory",
    ],
    ids=["unknown submit", "bad image", "failed job"],
)
def test_items_fail_alike_whatever_their_keys_requests_times_and_sizes(error: Callable[[str, str], str]) -> None:
    assert _alike(error) == len(ascii_lowercase)


def test_items_that_fail_for_reasons_of_their_own_do_not_fail_alike() -> None:
    assert _alike(lambda key, request: f"Request {request} failed at the vendor: {key[4] * 3!r} is not for us") == 1


def test_blocked_items_do_not_count() -> None:
    assert _alike(lambda _, request: f"Request {request} was blocked", ImageStatus.CONTENT_BLOCKED) == 0
