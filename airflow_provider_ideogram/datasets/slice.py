"""
What one slice of a dataset works with: a slice is one stay of the task on a worker.

Invariant: the fields of :class:`SliceContext` are not replaced during a slice; everything that changes is in the state,
which is stored, or in :class:`SliceProgress`, which ends with the slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_ideogram.exceptions import IdeogramError, IdeogramStorageError, IdeogramTemporaryError
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from airflow_provider_ideogram.datasets.state import DatasetState
    from airflow_provider_ideogram.datasets.workspace import Workspace
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger
    from airflow_provider_ideogram.storage.image_store import ImageStore

T = TypeVar("T")

#: Requests, downloads and uploads at once: this keeps a core busy, with at most eight images in memory.
CONCURRENCY = 8
#: Seconds until an item that met a temporary error is attempted again.
RETRY_SECONDS = 30.0
#: Completed images that can't be fetched, while none is stored, count as a failure of the storage or the image's host.
MAX_UNSTORED_IMAGES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceContext:
    """
    The services and settings of a slice.

    :param hook: The API.
    :param store: The images in S3.
    :param ledger: The ledger of the images' bucket.
    :param workspace: The run's own objects.
    :param state: The run's state; changed by the slice.
    :param output_prefix: The prefix of the images.
    :param owner: The task instance's id in the ledger.
    :param max_tries: The task instance's, which changes on a clear.
    :param if_exists: What an image at an item's key means.
    :param resubmit: Whether an unknown submit may be followed by another one.
    :param resubmit_on_5xx: Whether an answered 500, 502 or 503 may be followed by another submit.
    :param timeout: Seconds from an item's submission until it is abandoned.
    :param max_in_flight: Requests at the vendor at once.
    :param max_cost_usd: What the task may spend, None for no limit.
    :param price_usd: The estimated cost of an image, None if it is unknown.
    """

    hook: IdeogramHook
    store: ImageStore
    ledger: Ledger | NoLedger
    workspace: Workspace
    state: DatasetState
    output_prefix: Target
    owner: str
    max_tries: int
    if_exists: str
    resubmit: bool
    resubmit_on_5xx: bool
    timeout: float
    max_in_flight: int
    max_cost_usd: float | None
    price_usd: float | None

    def target(self, key: str) -> Target:
        """Return the address of a key."""
        return Target(self.output_prefix.bucket, key)

    @property
    def estimate_usd(self) -> float | None:
        """The expected cost of an image: the mean of those generated so far, else the given price."""
        return self.state.mean_cost_usd or self.price_usd

    @property
    def affordable(self) -> int | None:
        """How many more images the task may pay for, None for no limit."""
        if self.max_cost_usd is None:
            return None
        if not self.estimate_usd:  # unknown until one image is completed
            return 0 if self.state.running else 1
        left = self.max_cost_usd - self.state.cost_usd - self.estimate_usd * self.state.running
        return max(0, int(left / self.estimate_usd + 1e-9))

    @property
    def has_items_to_submit(self) -> bool:
        """Whether items of the plan, or delayed ones, are left to submit."""
        return self.state.chunk < self.state.chunks or bool(self.state.delayed)

    @property
    def takes_from_plan(self) -> bool:
        """Whether items are taken from the plan; not while as many as may be in flight are delayed."""
        return self.state.chunk < self.state.chunks and len(self.state.delayed) < self.max_in_flight


@dataclass(slots=True)
class SliceProgress:
    """
    What is known during one slice only.

    :param recheck_ids: Requests that were done, or could not be polled, and are checked again after RETRY_SECONDS.
    :param store_errors: Why images of completed requests could not be stored.
    :param stored: The number of images that were stored.
    """

    recheck_ids: set[str] = field(default_factory=set)
    store_errors: list[IdeogramTemporaryError] = field(default_factory=list)
    stored: int = 0

    @property
    def storage_blocked(self) -> bool:
        """Whether images can't be stored for a reason that is not a single image's own: nothing is submitted then."""
        no_storage = any(isinstance(error, IdeogramStorageError) for error in self.store_errors)
        return no_storage or (len(self.store_errors) >= MAX_UNSTORED_IMAGES and not self.stored)


def gather(
    pool: ThreadPoolExecutor, work: Callable[[T], Any], items: Iterable[T]
) -> tuple[list[Any], list[IdeogramError]]:
    """Run the work on all items; return the results, None for an item that raised, and the errors."""
    errors: list[IdeogramError] = []

    def attempt(item: T) -> Any:
        try:
            return work(item)
        except IdeogramError as error:
            errors.append(error)
            return None

    return list(pool.map(attempt, items)), errors
