"""
The state of a dataset's run.

Invariant: plain JSON of bounded size: requests in flight, delayed items, positions and counts. The items themselves are
in the workspace's chunks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.rate_limiter import RateLimiter
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.rows import Item

VERSION = 1


@dataclass(frozen=True, slots=True)
class InFlightItem:
    """An item whose request was submitted."""

    item: Item
    job: Job

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON; the request is in the job only."""
        item = self.item.to_json()
        del item["request"]
        return {"item": item, "job": self.job.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> InFlightItem:
        """Restore it from :meth:`to_json`."""
        job = Job.from_json(value["job"])
        if job.request is None:
            raise ValueError(f"request {job.request_id} has no inputs")
        asked = job.request.as_asked(job.fingerprint)
        return cls(Item.from_json({**value["item"], "request": asked.inputs()}), job)


@dataclass(frozen=True, slots=True)
class DelayedItem:
    """
    An item that is attempted again.

    :param item: The item.
    :param at: When, in seconds since the epoch.
    :param since: Since when it is delayed.
    """

    item: Item
    at: float
    since: float

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {"item": self.item.to_json(), "at": self.at, "since": self.since}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DelayedItem:
        """Restore it from :meth:`to_json`."""
        return cls(Item.from_json(value["item"]), value["at"], value["since"])


@dataclass(slots=True)
class DatasetState:
    """
    The state of a run.

    :param source: A fingerprint of rows and parameters.
    :param total: The number of rows.
    :param chunks: The number of planned chunks.
    :param started_at: When the run began, in seconds since the epoch.
    :param rate_limiter: The token bucket of the account.
    :param chunk: The chunk from which items are taken.
    :param offset: The next item in it.
    :param parts: The number of written parts.
    :param counts: Decided items by status.
    :param cost_usd: What was charged so far.
    :param charged_images: How many images were charged, with a known cost.
    :param slices: The number of slices.
    :param max_tries: The task instance's, which changes on a clear.
    :param finished_at: When the run had succeeded, in seconds since the epoch; None until then.
    :param failure: The error of the last failed item, without the parts that differ between items.
    :param consecutive_same_failures: How many items failed with it since the last image or other error.
    :param abandoned_request_ids: Requests that are no longer waited for and may be charged; the ledger keeps them.
    :param examples: The first failures, as ``id: error``.
    :param copies: The number of chunks of rows that get another row's image.
    :param copied_chunks: How many of these are done.
    :param in_flight: The submitted items.
    :param delayed: Items that are attempted again later.
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
    charged_images: int = 0
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
    def running(self) -> int:
        """How many requests may still be charged: those in flight, and abandoned ones."""
        in_flight = {item.job.request_id for item in self.in_flight}
        return len(in_flight | set(self.abandoned_request_ids))

    def add_cost(self, line: Mapping[str, Any]) -> None:
        """Add what a line's image cost; its request is no longer running."""
        if line["request_id"] in self.abandoned_request_ids:
            self.abandoned_request_ids.remove(line["request_id"])
        if line["cost_usd"]:
            self.cost_usd += line["cost_usd"]
            self.charged_images += 1

    @property
    def mean_cost_usd(self) -> float | None:
        """The mean cost of the images that were charged, None before the first."""
        return self.cost_usd / self.charged_images if self.charged_images else None

    @property
    def charged_text(self) -> str:
        """What was charged so far, as text for an error."""
        more = f"; {self.running} more requests were or may be charged" if self.running else ""
        return f"{self.cost_usd:.2f} USD were charged{more}"

    @property
    def done(self) -> int:
        """The number of decided items."""
        return sum(self.counts.values())

    @property
    def failures(self) -> int:
        """The number of items without an image."""
        return self.done - self.counts[ImageStatus.GENERATED] - self.counts[ImageStatus.REUSED]

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        return plain | {
            "version": VERSION,
            "rate_limiter": self.rate_limiter.to_json(),
            "in_flight": [flight.to_json() for flight in self.in_flight],
            "delayed": [later.to_json() for later in self.delayed],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DatasetState:
        """Restore the state from :meth:`to_json`; raise ValueError if it has another version."""
        if value["version"] != VERSION:
            raise ValueError(f"it has version {value['version']!r}; this provider reads version {VERSION}")
        known = {item.name: value[item.name] for item in fields(cls)}
        known["rate_limiter"] = RateLimiter.from_json(value["rate_limiter"])
        known["in_flight"] = [InFlightItem.from_json(flight) for flight in value["in_flight"]]
        known["delayed"] = [DelayedItem.from_json(later) for later in value["delayed"]]
        return cls(**known)
