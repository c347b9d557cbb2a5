"""
The image at a target, as one task sees it.

Invariant: an image that an attempt of this task paid for is its result, also if ``if_exists`` is not ``reuse``. Nothing
here submits.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_ideogram.exceptions import IdeogramObjectExists
from airflow_provider_ideogram.storage.image_record import ImageRecord, made_from, paid_by_group

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from airflow_provider_ideogram.api.parameters import GenerationRequest
    from airflow_provider_ideogram.storage.image_store import ImageStore
    from airflow_provider_ideogram.storage.target import Target

log = logging.getLogger(__name__)

#: Seconds in which no other attempt can begin, submit and store. It spares most tasks a listing of the prefix.
_FASTEST_ATTEMPT = 5.0


@dataclass(frozen=True, slots=True)
class TargetImage:
    """
    The image at a target.

    :param store: The images in S3.
    :param target: Where the image goes.
    :param group: The task's attempt group.
    :param if_exists: What an object at the target means: ``reuse``, ``overwrite`` or ``fail``.
    :param tried_since: When the task's first attempt began at the earliest, in seconds since the epoch by Airflow's
        clock; None if that is unknown.
    """

    store: ImageStore
    target: Target
    group: str
    if_exists: str
    tried_since: float | None

    def usable(self, head: Mapping[str, Any], request: GenerationRequest) -> ImageRecord | None:
        """
        Return the image at the target if it is the task's result; None if it is to be replaced.

        :param head: S3's description of it.
        :raises IdeogramObjectExists: If ``if_exists`` forbids to replace it.
        """
        same = made_from(head, request)
        if same and paid_by_group(head, self.group):
            log.info("%s is this task's own image: an earlier attempt ended right after storing it", self.target.uri)
            return ImageRecord.of_object(self.target, head, request, own=True)
        if self.if_exists == "fail":
            raise object_exists(self.target)
        if same and self.if_exists == "reuse":
            log.info("%s was made from the same inputs: it is reused, and nothing is paid", self.target.uri)
            return ImageRecord.of_object(self.target, head, request)
        inputs = "the same" if same else "other"
        log.info("%s exists, made from %s inputs: it will be replaced", self.target.uri, inputs)
        return None

    def stored_since(
        self, before: Mapping[str, Any] | None, request: GenerationRequest, *, refuses_others: bool = False
    ) -> ImageRecord | None:
        """
        Return the image that was stored since the target was read.

        A slice of this task that Airflow has failed may still be running.

        :param before: S3's description of the object that was there.
        :param refuses_others: Whether ``if_exists="fail"`` refuses another object that was stored since.
        :raises IdeogramObjectExists: If there is one.
        """
        target, head = self.own_in_prefix() or (self.target, self.store.head(self.target))
        if head is None or (before and _version_of(before) == _version_of(head)):
            return None
        if not made_from(head, request):
            if refuses_others and self.if_exists == "fail" and not paid_by_group(head, self.group):
                raise object_exists(target)
            return None
        log.info("%s was stored just now from the same inputs: nothing more is paid", target.uri)
        return ImageRecord.of_object(target, head, request, own=paid_by_group(head, self.group))

    def own(self) -> tuple[Target, Mapping[str, Any]] | None:
        """Return the address and description of the image that an attempt of this task paid for, None if none did."""
        target, head = self.own_in_prefix() or (self.target, self.store.find(self.target))
        return (target, head) if head is not None and paid_by_group(head, self.group) else None

    def own_in_prefix(self) -> tuple[Target, Mapping[str, Any]] | None:
        """
        Return the image that another attempt stored below a prefix, where the target has no key.

        That may be a later attempt: Airflow can have failed this one while it went on.
        """
        is_first = self.tried_since is not None and time.time() < self.tried_since + _FASTEST_ATTEMPT
        return self.store.find_in_prefix(self.target, self.group) if self.target.is_prefix and not is_first else None


def object_exists(target: Target) -> IdeogramObjectExists:
    """Return the error of an object that must not be replaced."""
    return IdeogramObjectExists(
        f"{target.uri} exists and if_exists is 'fail'",
        "Nothing was charged. Choose another key, or if_exists='reuse' or 'overwrite'.",
    )


def _version_of(head: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what differs between two stored images, also if they are of one request that two tasks stored."""
    return head["ETag"], head["Metadata"]
