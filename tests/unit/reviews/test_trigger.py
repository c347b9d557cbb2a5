from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.module_loading import import_string

from airflow_provider_ideogram.exceptions import IdeogramStorageError, IdeogramStorageRefused
from airflow_provider_ideogram.reviews import trigger as trigger_module
from airflow_provider_ideogram.reviews.review import Review
from airflow_provider_ideogram.reviews.trigger import IdeogramReviewTrigger
from tests.unit.reviews.examples import review

ARGUMENTS: dict[str, Any] = {
    "bucket": "bucket",
    "prefix": "_ideogram/.reviews/x/",
    "deadline": 1.5,
    "aws_conn_id": None,
}


class Looks:
    """The review as each look finds it; the last one stays."""

    def __init__(self, *found: Review | Exception | None) -> None:
        self.found = list(found)
        self.reads = 0

    def version(self) -> str | None:
        """Return a version that changes with each look."""
        return None if self.found[0] is None else f"version {len(self.found)}"

    def read(self) -> Review | None:
        """Return the review, or raise what is to be raised."""
        self.reads += 1
        found = self.found.pop(0) if len(self.found) > 1 else self.found[0]
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that runs the trigger until its event."""
    monkeypatch.setattr(trigger_module, "POLL_SECONDS", 0.001)

    async def run(looks: Looks, seconds: float = 60.0) -> None:
        async def open_review(_: Any) -> Any:
            return trigger_module._Watched(looks)  # type: ignore[arg-type]

        monkeypatch.setattr(IdeogramReviewTrigger, "_open", open_review)
        trigger = IdeogramReviewTrigger(**{**ARGUMENTS, "deadline": time.time() + seconds})
        [event] = [event async for event in trigger.run()]
        assert event.payload == {"bucket": "bucket", "prefix": "_ideogram/.reviews/x/"}

    return run


def test_serialization_keeps_every_argument() -> None:
    path, arguments = IdeogramReviewTrigger(**ARGUMENTS).serialize()
    assert arguments == ARGUMENTS
    assert import_string(path)(**json.loads(json.dumps(arguments))).serialize() == (path, ARGUMENTS)


@pytest.mark.parametrize("end", [review(finished_by="alice"), None, IdeogramStorageRefused("Denied")])
async def test_it_fires_when_the_wait_is_over(run: Callable[..., Any], end: Any) -> None:
    looks = Looks(review(), IdeogramStorageError("S3 does not respond"), ValueError("of boto"), end)
    await run(looks)
    assert looks.found == [end]


async def test_it_fires_at_the_deadline(run: Callable[..., Any]) -> None:
    await run(Looks(review()), seconds=0.05)


def test_review_without_a_change_is_not_read_again() -> None:
    looks = Looks(review())
    watched = trigger_module._Watched(looks)  # type: ignore[arg-type]
    assert [watched.read() for _ in range(3)] == [review()] * 3
    assert looks.reads == 1
