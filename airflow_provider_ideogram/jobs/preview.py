"""
What a task would do for an image, found out by reads alone.

Invariant: nothing is submitted, reserved or written. The order of the decisions is that of
:class:`~airflow_provider_ideogram.jobs.submission.Submitter`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.api.prices import list_price
from airflow_provider_ideogram.exceptions import IdeogramError
from airflow_provider_ideogram.jobs.ledger import Ledger
from airflow_provider_ideogram.storage.image_record import made_from

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.parameters import GenerationRequest
    from airflow_provider_ideogram.jobs.record import LedgerRecord
    from airflow_provider_ideogram.storage.objects import ObjectStore
    from airflow_provider_ideogram.storage.target import Target

#: Images whose state is read at once, and images that are read ahead.
_THREADS, _BATCH = 8, 1000
#: Keys of a folder that are read one by one; from the next one on, a listing of the folder says which of them exist.
_SINGLE_READS = 100


class Verdict(StrEnum):
    """
    What a task would do for an image.

    ``CONTINUE`` goes on with a request that the ledger has; ``UNKNOWN`` shows only when the task runs.
    """

    GENERATE = "generate"
    CONTINUE = "continue"
    REUSE = "reuse"
    REFUSE = "refuse"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class WantedImage:
    """
    An image that a task makes.

    :param target: Where it goes.
    :param request: Its inputs; None if they are known only when the task runs.
    :param model: Its model.
    :param if_exists: What an object at the target means.
    :param ledger_prefix: The prefix of the ledger's keys; None for a task without a ledger.
    :param owner: The task instance, ``dag_id/run_id/task_id/map_index``.
    :param price_usd: Its estimated cost, None for the list price.
    """

    target: Target
    request: GenerationRequest | None
    model: str
    if_exists: str
    ledger_prefix: str | None
    owner: str
    price_usd: float | None = None

    @property
    def usd(self) -> float | None:
        """What it may cost."""
        return list_price(self.model) if self.price_usd is None else self.price_usd


@dataclass(slots=True)
class PlannedImages:
    """
    What a task would do for one or several images, and why.

    :param usd: What they may cost by the list price; None if that is unknown of one of them.
    """

    verdict: Verdict
    reason: str = ""
    images: int = 1
    usd: float | None = 0.0

    def __str__(self) -> str:
        """Return it in words."""
        cost = "at an unknown cost" if self.usd is None else f"for {self.usd:.2f} USD at most" if self.usd else ""
        return " ".join(
            filter(None, [f"{self.verdict}: {self.images} images", cost, self.reason and f"({self.reason})"])
        )

    def add(self, other: PlannedImages) -> None:
        """Count images with the same plan."""
        self.images += other.images
        self.usd = None if self.usd is None or other.usd is None else self.usd + other.usd


def sum_up(images: Iterable[PlannedImages]) -> list[PlannedImages]:
    """Return the images by verdict and reason, in the order of the verdicts."""
    sums: dict[tuple[Verdict, str], PlannedImages] = {}
    for image in images:
        key = image.verdict, image.reason
        sums.setdefault(key, PlannedImages(*key, images=0)).add(image)
    order = list(Verdict)
    return sorted(sums.values(), key=lambda each: order.index(each.verdict))


def refused(error: IdeogramError) -> PlannedImages:
    """Return the plan of an image that an error prevents."""
    return PlannedImages(Verdict.REFUSE, error.reason)


@dataclass(slots=True)
class Preview:
    """
    What tasks would do for images of an S3 connection.

    :param objects: The S3 layer.
    """

    objects: ObjectStore
    _asked: Counter[tuple[str, str]] = field(default_factory=Counter, init=False)
    _listed: dict[tuple[str, str], set[str]] = field(default_factory=dict, init=False)
    _buckets: set[str] = field(default_factory=set, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def of(self, images: Iterable[WantedImage | PlannedImages]) -> Iterator[PlannedImages]:
        """Yield the plan of each image; what is planned already stays as it is."""
        remaining = iter(images)
        with ThreadPoolExecutor(_THREADS, "ideogram-preview") as pool:
            while batch := list(islice(remaining, _BATCH)):
                yield from pool.map(self._plan, batch)

    def _plan(self, image: WantedImage | PlannedImages) -> PlannedImages:
        if not isinstance(image, WantedImage):
            return image
        try:
            known = self._of_object(image) or self._of_record(image)
            return known or PlannedImages(Verdict.GENERATE, usd=image.usd)
        except IdeogramError as error:
            return refused(error)

    def _of_object(self, image: WantedImage) -> PlannedImages | None:
        """Return the plan if the object at the target decides it."""
        head = self._head(image.target)
        if head is None:
            return None
        if image.if_exists == "fail":
            return PlannedImages(Verdict.REFUSE, "an object is at the target and if_exists is 'fail'")
        if image.if_exists == "reuse" and image.request is not None and made_from(head, image.request):
            return PlannedImages(Verdict.REUSE)
        return None

    def _of_record(self, image: WantedImage) -> PlannedImages | None:
        """Return the plan if the ledger's record of the target decides it."""
        record = self._record(image)
        if record is None or record.not_submitted:
            return None
        whose = f"of {record.intent.owner}"
        reason = f"the running request {whose}" if record.request_id else f"the submit {whose} without a response"
        if image.request is not None and record.intent.fingerprint != image.request.fingerprint:
            if record.intent.owner == image.owner:
                return PlannedImages(Verdict.GENERATE, f"{reason} is abandoned", usd=image.usd)
            return PlannedImages(Verdict.REFUSE, f"a request {whose} with other inputs has the target")
        return PlannedImages(Verdict.CONTINUE, reason, usd=image.usd)

    def _record(self, image: WantedImage) -> LedgerRecord | None:
        if image.ledger_prefix is None:
            return None
        ledger = Ledger(self.objects, image.target.bucket, image.ledger_prefix)
        key = ledger.key_of(image.target, image.owner)
        return None if self._is_absent(image.target.bucket, key) else ledger.read(key)

    def _head(self, target: Target) -> Mapping[str, Any] | None:
        if target.is_prefix:
            return None
        if self._is_absent(target.bucket, target.key):
            return None
        head = self.objects.head(target.bucket, target.key)
        if head is None and target.bucket not in self._buckets:
            self.objects.check_bucket(target.bucket, "Nothing was charged.")
            self._buckets.add(target.bucket)
        return head

    def _is_absent(self, bucket: str, key: str) -> bool:
        """Return whether a listing shows that there is no object; False as long as there is no listing."""
        folder = bucket, key[: key.rfind("/") + 1]
        with self._lock:
            self._asked[folder] += 1
            if self._asked[folder] > _SINGLE_READS and folder not in self._listed:
                self._listed[folder] = {item.key for item in self.objects.list(*folder, delimiter="/")}
        return folder in self._listed and key not in self._listed[folder]
