"""Reviews, decisions and images for the tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_ideogram.reviews.review import Entry, Review

OWNER = "cats/run/review/-1"
OPENED = datetime(2026, 11, 26, tzinfo=UTC)


def review(*images: str, **changes: Any) -> Review:
    """Return an open review, by default of the images ``a``, ``b`` and ``c``."""
    values = {"owner": OWNER, "allow_redo": True, "group": "first", "opened_at": at(0), "deadline": at(3600)}
    return Review(**{**values, "images": list(images or "abc"), **changes})


def entry(image: str, decision: str | None, note: str | None = None, by: str = "alice", second: float = 1) -> Entry:
    """Return a decision, some seconds after the review was opened."""
    return Entry(image, decision, note, by, (OPENED + timedelta(seconds=second)).isoformat())


def at(second: float) -> float:
    """Return a time some seconds after the review was opened."""
    return OPENED.timestamp() + second


def image(number: int = 1, /, **changes: Any) -> dict[str, Any]:
    """Return an image as the operators describe it."""
    known = {"bucket": "bucket", "key": f"cats/{number}.png", "uri": f"s3://bucket/cats/{number}.png", "seed": number}
    inputs = {"prompt": f"cat {number}", "resolution": "RESOLUTION_1024_1024", "model": "ideogram-2a-txt-2-img"}
    return {**known, **inputs, "request_id": f"request-{number}", "reused": False, **changes}
