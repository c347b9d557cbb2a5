"""
The wait for the end of a review, in the triggerer.

Invariant: it only reads, and may run twice at once. While nothing changes, a look is one HEAD request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_ideogram.exceptions import IdeogramInvalidRecord, IdeogramStorageRefused

if TYPE_CHECKING:
    from airflow_provider_ideogram.reviews.review import Review
    from airflow_provider_ideogram.reviews.store import ReviewStore

#: Seconds between two looks at the review.
POLL_SECONDS = 5.0


class IdeogramReviewTrigger(BaseTrigger):
    """
    Wait until a review is finished, then fire one event ``{"bucket": bucket, "prefix": prefix}``.

    It also fires at the deadline, if the review is gone, and if S3 refuses to return it: the task then says why.

    :param bucket: The bucket of the review.
    :param prefix: The key prefix of its objects.
    :param deadline: When to fire at the latest, in seconds since the epoch.
    :param aws_conn_id: The Airflow connection of type ``aws``.
    """

    def __init__(self, *, bucket: str, prefix: str, deadline: float, aws_conn_id: str | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bucket = bucket
        self.prefix = prefix
        self.deadline = deadline
        self.aws_conn_id = aws_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class and all arguments."""
        names = ("bucket", "prefix", "deadline", "aws_conn_id")
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire exactly one event."""
        try:
            async with asyncio.timeout(max(self.deadline - time.time(), 0.0)):
                await self._wait()
        except TimeoutError:
            self.log.info("The time of the review is over")
        yield TriggerEvent({"bucket": self.bucket, "prefix": self.prefix})

    async def _wait(self) -> None:
        """Return when the review is finished, or can't be."""
        watched: _Watched | None = None
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                watched = watched or await self._open()
                review = await asyncio.to_thread(watched.read)
                if review is None or review.is_finished(time.time()):
                    return
            except (IdeogramStorageRefused, IdeogramInvalidRecord) as error:
                self.log.warning("The review can't be read: %s", error)
                return
            except Exception as error:  # S3 may respond again, and the deadline ends the wait
                self.log.warning("The review can't be read now: %s", error)

    async def _open(self) -> _Watched:
        from airflow_provider_ideogram.reviews.store import ReviewStore
        from airflow_provider_ideogram.storage.async_store import open_objects
        from airflow_provider_ideogram.storage.target import Target

        return _Watched(ReviewStore(await open_objects(self.aws_conn_id), Target(self.bucket, self.prefix)))


class _Watched:
    """A review that is read again only when it has changed."""

    def __init__(self, store: ReviewStore) -> None:
        self._store = store
        self._version: str | None = None
        self._review: Review | None = None

    def read(self) -> Review | None:
        version = self._store.version()
        if version is None or version != self._version:
            self._review, self._version = self._store.read(), version
        return self._review
