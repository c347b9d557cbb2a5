"""
The reviews of a run, and the decisions on its images.

Invariant: a review is read and changed only at the address that belongs to its own task instance, and only if the
object there names this task instance, whatever an XCom contains. The API server never makes a review.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramStorageError
from airflow_provider_ideogram.jobs.identity import owner_id
from airflow_provider_ideogram.reviews.review import Entry, Review
from airflow_provider_ideogram.reviews.store import REVIEW, ReviewStore, name_of
from airflow_provider_ideogram.storage.objects import NOTHING_CHARGED
from airflow_provider_ideogram.storage.target import Target
from airflow_provider_ideogram.ui.objects import Reader, why_not_read
from airflow_provider_ideogram.ui.places import Place
from airflow_provider_ideogram.ui.records import Instance, Item
from airflow_provider_ideogram.ui.work import LimitReached

#: The XCom that a review's task has.
REVIEW_XCOM = "review"


class ReviewMissing(IdeogramStorageError):
    """The review of a task instance is missing, or the object at its address is of another one."""


@dataclass(frozen=True, slots=True)
class RunReview:
    """
    A review of a run.

    :param instance: Its task instance.
    :param review: Its state, None if it can't be read.
    """

    instance: Instance
    review: Review | None

    @property
    def is_open(self) -> bool:
        """Whether decisions are taken."""
        return self.review is not None and self.review.closed_at is None

    @property
    def counts(self) -> Mapping[str, int]:
        """The numbers of decisions, empty if they are unknown."""
        return self.review.counts() if self.review else {}


def review_prefix(instance: Instance) -> Target | None:
    """Return the address of a task instance's own review; None if its XCom has no such address."""
    xcom = instance.xcoms.get(REVIEW_XCOM)
    uri = xcom.get("uri") if isinstance(xcom, Mapping) else None
    try:
        target = Target.parse(uri) if isinstance(uri, str) else None
    except IdeogramInvalidInput:
        return None
    if target is None or not target.key.endswith(f"{name_of(owner_id(instance))}{REVIEW}"):
        return None
    return replace(target, key=target.key.removesuffix(REVIEW))


def store_of(reader: Reader, instance: Instance) -> ReviewStore | None:
    """Return the objects of a task instance's review, None if it has none; changes take no longer than the request."""
    prefix = review_prefix(instance)
    return None if prefix is None else ReviewStore(reader.store(), prefix, reader.work.seconds_left)


def checked(review: Review | None, instance: Instance) -> Review:
    """Return a review that was read; raise ReviewMissing if it is missing or another task instance's."""
    if review is None or review.owner != owner_id(instance):
        raise ReviewMissing("The review is missing, or is not this task's", NOTHING_CHARGED)
    return review


def read_reviews(reader: Reader, instances: Iterable[Instance], problems: list[str]) -> list[RunReview]:
    """
    Read the reviews of a run.

    :param problems: Takes what can't be read.
    """
    found = []
    for instance in instances:
        review = None
        try:
            store = store_of(reader, instance)
            if store is not None:
                review = checked(store.read(), instance)
        except (IdeogramStorageError, LimitReached) as error:
            problems.append(f"The review {instance.label} can't be read: {why_not_read(error)}.")
        found.append(RunReview(instance, review))
    return found


class Decisions:
    """
    The decisions of a run's reviews.

    :param reviews: The reviews; where two have an image, the last one counts.
    """

    def __init__(self, reviews: Sequence[RunReview]) -> None:
        self._entries: dict[str, Entry] = {}
        for one in reviews:
            if one.review is not None:
                self._entries |= one.review.decisions()

    def on(self, item: Item) -> Item:
        """Return an item with the decision on its image."""
        entry = self._entries.get(item.facts.get("request_id", ""))
        if entry is None or not item.has_image:
            return item
        return replace(item, decision=entry.decision, note=entry.note, decided_by=entry.by)


def own_review(reviews: Sequence[RunReview], task_id: str | None, place: Place | None) -> RunReview | None:
    """Return the review that a page is about, None for a page of other tasks or of several reviews."""
    found = [
        one
        for one in reviews
        if one.instance.task_id == task_id and one.review and (place is None or place.includes(one.instance.place))
    ]
    return found[0] if len(found) == 1 else None
