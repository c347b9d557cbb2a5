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
from airflow_provider_ideogram.datasets.outcomes import write_outcomes
from airflow_provider_ideogram.datasets.rows import Item
from airflow_provider_ideogram.datasets.state import DatasetState

if TYPE_CHECKING:
    from collections.abc import Callable


def _same_failures(error: Callable[[str, str], str], status: ImageStatus = ImageStatus.FAILED) -> int:
    """Return how many items count as failed for the same reason, given the error of a key and a request."""
    state = DatasetState("source", total=100, chunks=1, started_at=time.time(), rate_limiter=RateLimiter())
    for row, word in enumerate(ascii_lowercase):
        item = Item(row, word, GenerationRequest(f"a {word}"), f"set/{word} cat.png")
        text = error(item.key, f"r-{word}")
        line = failed_line(item, status, text, f"r-{word}" if f"r-{word}" in text else None, None)
        write_outcomes(mock.Mock(), state, [line])
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
def test_same_failures_differ_in_keys_and_numbers_only(error: Callable[[str, str], str]) -> None:
    assert _same_failures(error) == len(ascii_lowercase)


def test_different_failures_are_not_the_same() -> None:
    assert (
        _same_failures(lambda key, request: f"Request {request} failed at the vendor: {key[4] * 3!r} is not for us")
        == 1
    )


def test_blocked_items_do_not_count() -> None:
    assert _same_failures(lambda _, request: f"Request {request} was blocked", ImageStatus.CONTENT_BLOCKED) == 0
