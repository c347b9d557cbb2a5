"""
The state of a dataset's run between two slices.

Invariant: plain JSON that does not grow with the number of rows: requests in flight, the position in the plan, counts
and costs. The items themselves are in the workspace's chunks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.rate_limiter import RateLimiter
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.outage import SubmitOutage
from airflow_provider_ideogram.datasets.rows import Item

VERSION = 1
#: Equal failures, with no other result between them, that end the run.
MAX_SAME_FAILURES = 20
#: The statuses of items that are attempted again only after a clear: a retry would be blocked or rejected again.
FINAL_STATUSES = (ImageStatus.CONTENT_BLOCKED, ImageStatus.REJECTED)


@dataclass(frozen=True, slots=True)
class InFlightItem:
    """An item whose request was submitted."""

    item: Item
    job: Job

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON, with the inputs in the job only."""
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
    An item whose submit is retried.

    :param retry_at: When, in seconds since the epoch.
    :param delayed_since: When it was delayed first, in seconds since the epoch.
    """

    item: Item
    retry_at: float
    delayed_since: float

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {"item": self.item.to_json(), "retry_at": self.retry_at, "delayed_since": self.delayed_since}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DelayedItem:
        """Restore it from :meth:`to_json`."""
        return cls(Item.from_json(value["item"]), value["retry_at"], value["delayed_since"])


@dataclass(frozen=True, slots=True)
class UnsettledRequest:
    """
    A request, or an unknown submit, that the run does not wait for and that may be charged.

    :param request_id: The vendor's id, None after an unknown submit.
    :param counted_usd: The part of its cost that ``DatasetState.cost_usd`` includes.
    :param estimate_usd: What it may still cost, None if that is unknown.
    :param fingerprint: The fingerprint of its inputs.
    """

    request_id: str | None
    counted_usd: float
    estimate_usd: float | None
    fingerprint: str


@dataclass(slots=True)
class DatasetState:
    """
    The state of a run.

    :param input_digest: Identifies the rows and the parameters; empty if they are to be planned.
    :param owner: The task instance: ``dag_id/run_id/task_id/map_index``.
    :param replaced_manifest: The version of the manifest when the attempt began, None without one.
    :param plan: The number of the plan, 0 without one.
    :param total: The number of images.
    :param todo_chunks: The number of chunks of items to generate.
    :param started_at: When the run began, in seconds since the epoch.
    :param written_at: When the last slice ended, in seconds since the epoch; None before the first.
    :param idle_seconds: The seconds between the last slice of an attempt and the beginning of the next attempt.
    :param rate_limiter: The state of the rate limiter.
    :param next_chunk: The chunk of the next item to submit.
    :param next_offset: The position of that item in its chunk.
    :param parts: The number of parts with lines of decided items.
    :param counts: The number of decided items by status.
    :param cost_usd: What the vendor charged for the run's requests, as far as it is known.
    :param abandoned_usd: The estimate of requests that no item waits for, since the input was changed or another
        request was submitted in their place.
    :param original_cost_usd: What the vendor charged for all images, reused ones included, when they were generated.
    :param cost_is_estimate: Whether a cost is a list price.
    :param observed_costs: The highest true cost of an image by model.
    :param images_without_cost: Generated images whose cost is unknown.
    :param slices: The number of slices so far, the present one included.
    :param max_tries: The task instance's, which changes on a clear.
    :param attempt_groups: The groups of the run's attempts: what one of them has paid for is the run's own.
    :param finished_at: When the run succeeded, in seconds since the epoch; None until then.
    :param outage: Whether submits may be sent.
    :param last_failure: The error of the last failed item, without its key, ids and numbers.
    :param last_failure_is_temporary: Whether a retry can help though nothing else changes.
    :param consecutive_same_failures: The number of items that failed with it since another result.
    :param unsettled_requests: Requests that may be charged though the run does not wait for them, by the item's key.
    :param counted_usd: The counted costs of requests that no item waits for, by request id: a record that could not be
        deleted, or inputs that are changed back, lead to them again.
    :param examples: The first failures, as ``id: error``.
    :param copy_chunks: The number of chunks of items that are copied from another item.
    :param copied_chunks: The number of those that are done.
    :param in_flight: The submitted items.
    :param delayed: The items whose submit is retried.
    """

    input_digest: str
    total: int
    todo_chunks: int
    started_at: float
    rate_limiter: RateLimiter
    owner: str = ""
    replaced_manifest: str | None = None
    plan: int = 0
    written_at: float | None = None
    idle_seconds: float = 0.0
    next_chunk: int = 0
    next_offset: int = 0
    parts: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ImageStatus, 0))
    cost_usd: float = 0.0
    abandoned_usd: float = 0.0
    original_cost_usd: float = 0.0
    cost_is_estimate: bool = False
    observed_costs: dict[str, float] = field(default_factory=dict)
    images_without_cost: int = 0
    slices: int = 0
    max_tries: int = 0
    attempt_groups: list[str] = field(default_factory=list)
    finished_at: float | None = None
    outage: SubmitOutage = field(default_factory=SubmitOutage)
    last_failure: str = ""
    last_failure_is_temporary: bool = False
    consecutive_same_failures: int = 0
    unsettled_requests: dict[str, UnsettledRequest] = field(default_factory=dict)
    counted_usd: dict[str, float] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    copy_chunks: int = 0
    copied_chunks: int = 0
    in_flight: list[InFlightItem] = field(default_factory=list)
    delayed: list[DelayedItem] = field(default_factory=list)

    @classmethod
    def unplanned(cls, now: float) -> DatasetState:
        """Return the state of a run before its plan."""
        return cls(input_digest="", total=0, todo_chunks=0, started_at=now, rate_limiter=RateLimiter())

    def begin_attempt(self, now: float) -> None:
        """Take up the state of an earlier attempt: the time since its last slice counts for nothing."""
        if self.finished_at is None and self.written_at is not None:
            self.idle_seconds += now - self.written_at
        self.consecutive_same_failures = 0
        self.delayed = [replace(delayed, delayed_since=now) for delayed in self.delayed]
        if self.outage.is_open:
            self.outage.since = now

    def add_attempt_group(self, group: str) -> None:
        """Add the group of an attempt that begins."""
        if group not in self.attempt_groups:
            self.attempt_groups.append(group)

    def elapsed(self, now: float) -> float:
        """Return the seconds that the run has taken, without those between its attempts."""
        return (self.finished_at or now) - self.started_at - self.idle_seconds

    @property
    def charged(self) -> bool | None:
        """Whether the run was charged so far; None if that is not known."""
        if self.cost_usd > 0 or self.images_without_cost:
            return True
        return None if self._open_keys or self.abandoned_usd > 0 else False

    @property
    def charged_text(self) -> str:
        """What was charged so far, as text for an error."""
        text = f"{self.cost_usd:.2f} USD were charged"
        if self.images_without_cost:
            text += f", and an unknown amount for {self.images_without_cost} images"
        open_requests = len(self._open_keys)
        return f"{text}; {open_requests} more requests were or may be charged" if open_requests else text

    @property
    def _open_keys(self) -> set[str]:
        """The keys of items with a request that may be charged, and whose cost is not counted."""
        unsettled = {key for key, request in self.unsettled_requests.items() if request.estimate_usd != 0}  # None too
        return unsettled | {each.item.key for each in self.in_flight if not each.job.paid_by_other_task}

    def is_in_doubt(self, item: Item) -> bool:
        """Return whether it is unknown whether a submit of the item was accepted."""
        unsettled = self.unsettled_requests.get(item.key)
        return unsettled is not None and unsettled.request_id is None

    @property
    def in_doubt(self) -> int:
        """The number of delayed items with a submit in doubt."""
        return sum(self.is_in_doubt(delayed.item) for delayed in self.delayed)

    @property
    def done(self) -> int:
        """The number of decided items."""
        return sum(self.counts.values())

    @property
    def failures(self) -> int:
        """The number of decided items without an image."""
        return self.done - self.counts[ImageStatus.GENERATED] - self.counts[ImageStatus.REUSED]

    @property
    def has_more(self) -> bool:
        """Whether items are still to be submitted."""
        return self.next_chunk < self.todo_chunks or bool(self.delayed)

    @property
    def is_failing(self) -> bool:
        """Whether so many items in a row failed for the same reason that nothing more is submitted."""
        return self.consecutive_same_failures >= MAX_SAME_FAILURES

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        return plain | {
            "version": VERSION,
            "rate_limiter": self.rate_limiter.to_json(),
            "outage": asdict(self.outage),
            "unsettled_requests": {key: asdict(request) for key, request in self.unsettled_requests.items()},
            "in_flight": [item.to_json() for item in self.in_flight],
            "delayed": [item.to_json() for item in self.delayed],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DatasetState:
        """Restore the state from :meth:`to_json`; raise ValueError, TypeError or a LookupError for another form."""
        if value["version"] != VERSION:
            raise ValueError(f"it has version {value['version']!r}; this provider reads version {VERSION}")
        known = {item.name: value[item.name] for item in fields(cls)}
        known["rate_limiter"] = RateLimiter.from_json(value["rate_limiter"])
        known["outage"] = SubmitOutage(**value["outage"])
        known["unsettled_requests"] = {
            key: UnsettledRequest(**request) for key, request in value["unsettled_requests"].items()
        }
        known["in_flight"] = [InFlightItem.from_json(item) for item in value["in_flight"]]
        known["delayed"] = [DelayedItem.from_json(item) for item in value["delayed"]]
        return cls(**known)
