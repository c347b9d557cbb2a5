"""
The state of a review: which images, and who decided what and when.

Invariant: plain data without I/O. Decisions are only added, so that each remains on record; the last one about an image
counts. A closed review takes no decisions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

#: The version of the object's format.
VERSION = 1
#: A review takes its images by a list in its object, which each decision writes again.
MAX_IMAGES = 10_000
MAX_NOTE = 1000
#: Seconds after the last decision in which it can be undone, before the review ends by itself.
UNDO_SECONDS = 15.0


class Decision(StrEnum):
    """What a person decides on an image."""

    APPROVE = "approve"
    REJECT = "reject"
    REDO = "redo"


class ReviewClosed(Exception):
    """The review has ended and takes no decisions."""


class DecisionRefused(ValueError):
    """The decision is not possible in this review; the message says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """
    A decision on an image.

    :param image: The id of the image's request, which no other image has.
    :param decision: One of :class:`Decision`, None to undo the last one.
    :param note: What the person wrote, None if nothing.
    :param by: The user's name.
    :param at: The time, in ISO 8601.
    """

    image: str
    decision: str | None
    note: str | None
    by: str
    at: str


@dataclass(slots=True)
class Review:
    """
    A review.

    :param owner: The task instance: ``dag_id/run_id/task_id/map_index``.
    :param images: The ids of the images' requests.
    :param allow_redo: Whether ``redo`` is possible.
    :param group: Identifies the attempts of the task instance between two clears.
    :param opened_at: When it was opened, in seconds since the epoch.
    :param deadline: When the task stops waiting, in seconds since the epoch.
    :param write_args: The arguments of ``put_object`` that the bucket may require.
    :param finished_by: Who ended it before all images were decided, None if no person did.
    :param closed_at: When the task took the result, in seconds since the epoch; None until then.
    :param timed_out: Whether it was closed at its deadline, with undecided images.
    :param entries: All decisions, the oldest first.
    """

    owner: str
    images: list[str]
    allow_redo: bool
    group: str
    opened_at: float
    deadline: float
    write_args: dict[str, Any] = field(default_factory=dict)
    finished_by: str | None = None
    closed_at: float | None = None
    timed_out: bool = False
    entries: list[Entry] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Review:
        """Restore it from :meth:`to_json`; raises ValueError, TypeError, LookupError or AttributeError otherwise."""
        fields = dict(value)
        if fields.pop("version") != VERSION:
            raise ValueError("it has another version")
        fields["entries"] = [Entry(**entry) for entry in fields["entries"]]
        review = cls(**fields)
        # What is computed later raises an error now if a value has another type.
        numbers = [review.deadline - review.opened_at, *map(_seconds, review.entries), *review.counts().values()]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("it has a time that is none")
        return review

    def decisions(self) -> dict[str, Entry]:
        """Return the decision that counts, by image; undecided images are left out."""
        last = {entry.image: entry for entry in self.entries}
        return {image: last[image] for image in self.images if image in last and last[image].decision}

    def counts(self) -> dict[str, int]:
        """Return how many images are ``approved``, ``rejected``, to ``redo``, and ``undecided``."""
        found = Counter(entry.decision for entry in self.decisions().values())
        return {
            "approved": found[Decision.APPROVE],
            "rejected": found[Decision.REJECT],
            "redo": found[Decision.REDO],
            "undecided": len(self.images) - found.total(),
        }

    def add(self, entries: Sequence[Entry]) -> bool:
        """
        Add decisions, and return whether one is new: one that stands already is not added again.

        :raises ReviewClosed: If the review has ended.
        :raises DecisionRefused: If an image is not in the review, or may not be made again.
        """
        if self.closed_at is not None:
            raise ReviewClosed
        images, last = set(self.images), {entry.image: entry for entry in self.entries}
        before = len(self.entries)
        for entry in entries:
            if entry.image not in images:
                raise DecisionRefused("The image is not in this review.")
            if entry.decision == Decision.REDO and not self.allow_redo:
                raise DecisionRefused("Images can't be made again in this review.")
            stands = last.get(entry.image)
            is_same = stands is not None and _content(stands) == _content(entry)
            if is_same or (stands is None and entry.decision is None):
                continue
            self.entries.append(entry)
            last[entry.image] = entry
        return len(self.entries) > before

    def is_finished(self, now: float) -> bool:
        """
        Return whether the people have decided.

        Either one of them has ended the review, or all images are decided and the last decision can't be undone any
        more. A review that was opened again needs a new decision or a person who ends it.
        """
        if self.closed_at is not None or self.finished_by is not None:
            return True
        if not self.entries or self.counts()["undecided"]:
            return False
        return self.opened_at <= _seconds(self.entries[-1]) <= now - UNDO_SECONDS

    def close(self, now: float) -> bool:
        """Close it if it is finished or its time is over, and return whether that is new."""
        is_finished = self.is_finished(now)
        if self.closed_at is not None or not (is_finished or now >= self.deadline):
            return False
        self.closed_at = now
        self.timed_out = not is_finished and self.counts()["undecided"] > 0
        return True

    def reopen(self, images: Sequence[str], group: str, now: float, deadline: float) -> None:
        """Take decisions again, after a person has cleared the task; those about the same images still count."""
        self.images, self.group = list(images), group
        self.opened_at, self.deadline = now, deadline
        self.finished_by, self.closed_at, self.timed_out = None, None, False


def _seconds(entry: Entry) -> float:
    return datetime.fromisoformat(entry.at).timestamp()


def _content(entry: Entry) -> tuple[str | None, str | None, str]:
    return entry.decision, entry.note, entry.by
