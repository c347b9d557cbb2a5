"""
Where a dataset's run stands.

Invariant: plain JSON of bounded size: what is in flight, what comes next, and counts; the items themselves are in
the workspace's chunks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.rate_limiter import RateLimiter
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.rows import Item

VERSION = 1


@dataclass(frozen=True, slots=True)
class InFlightItem:
    """An item whose job was submitted."""

    item: Item
    job: Job

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON; the request is in the job only."""
        item = self.item.to_json()
        del item["request"]
        return {"item": item, "job": self.job.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> InFlightItem:
        """Make it again."""
        job = Job.from_json(value["job"])
        if job.request is None:
            raise ValueError(f"request {job.request_id} has no inputs")
        asked = job.request.as_asked(job.fingerprint)
        return cls(Item.from_json({**value["item"], "request": asked.inputs()}), job)


@dataclass(frozen=True, slots=True)
class DelayedItem:
    """
    An item that is tried again.

    :param item: The item.
    :param at: When, in seconds since the epoch.
    :param since: Since when it has been put off.
    """

    item: Item
    at: float
    since: float

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {"item": self.item.to_json(), "at": self.at, "since": self.since}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DelayedItem:
        """Make it again."""
        return cls(Item.from_json(value["item"]), value["at"], value["since"])


@dataclass(slots=True)
class DatasetState:
    """
    Where the run stands.

    :param source: A fingerprint of what was asked for: rows and parameters.
    :param total: The number of rows.
    :param chunks: How many chunks of items there are to do.
    :param started_at: When the run began, in seconds since the epoch.
    :param rate_limiter: The rate limit's allowance.
    :param chunk: The chunk from which items are taken.
    :param offset: The next item in it.
    :param parts: How many parts of lines were written.
    :param counts: Items by what became of them.
    :param cost_usd: What was paid so far.
    :param slices: How many times a worker was used.
    :param max_tries: The task's, which changes when a person clears it.
    :param finished_at: When the run had succeeded, in seconds since the epoch; None until then.
    :param failure: The error of the last item that failed, without what tells it from another's.
    :param consecutive_same_failures: How many items have failed with it since any had an image, or another error.
    :param abandoned_request_ids: Requests that were paid and not waited for any longer; the ledger still knows them.
    :param examples: The first failures, as ``id: error``.
    :param copies: How many chunks of rows there are that get another row's image.
    :param copied_chunks: How many of them are done.
    :param in_flight: The jobs that were submitted.
    :param delayed: Items that are tried again.
    """

    source: str
    total: int
    chunks: int
    started_at: float
    rate_limiter: RateLimiter
    chunk: int = 0
    offset: int = 0
    parts: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ImageStatus, 0))
    cost_usd: float = 0.0
    slices: int = 0
    max_tries: int = 0
    finished_at: float | None = None
    failure: str = ""
    consecutive_same_failures: int = 0
    abandoned_request_ids: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    copies: int = 0
    copied_chunks: int = 0
    in_flight: list[InFlightItem] = field(default_factory=list)
    delayed: list[DelayedItem] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many items are decided."""
        return sum(self.counts.values())

    @property
    def failures(self) -> int:
        """How many items have no image."""
        return self.done - self.counts[ImageStatus.GENERATED] - self.counts[ImageStatus.REUSED]

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        return plain | {
            "version": VERSION,
            "rate_limiter": asdict(self.rate_limiter),
            "in_flight": [flight.to_json() for flight in self.in_flight],
            "delayed": [later.to_json() for later in self.delayed],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DatasetState:
        """Make the state again from what :meth:`to_json` returned; raise ValueError if it is of another form."""
        if value["version"] != VERSION:
            raise ValueError(f"it has version {value['version']!r}, and {VERSION} is known")
        known = {item.name: value[item.name] for item in fields(cls)}
        known["rate_limiter"] = RateLimiter.from_json(value["rate_limiter"])
        known["in_flight"] = [InFlightItem.from_json(flight) for flight in value["in_flight"]]
        known["delayed"] = [DelayedItem.from_json(later) for later in value["delayed"]]
        return cls(**known)
