"""
The attempts of an item: which image of it is accepted, and where a rejected one is kept.

Invariant: the image at an item's key is one that all gates accepted. A rejected image is stored all the same, at a key
that its inputs give, and a later run that comes to the same attempt checks it again instead of paying again.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_provider_ideogram import metrics
from airflow_provider_ideogram.datasets.gates import Rejection, reject
from airflow_provider_ideogram.datasets.outcomes import ItemResult
from airflow_provider_ideogram.exceptions import (
    IdeogramGateFailed,
    IdeogramImageRejected,
    IdeogramJobError,
    IdeogramStorageError,
)
from airflow_provider_ideogram.jobs.completion import fetch_and_store
from airflow_provider_ideogram.storage.image_record import ImageRecord, made_from, paid_by_group

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.job import Job
    from airflow_provider_ideogram.api.polling import RequestPoll
    from airflow_provider_ideogram.datasets.rows import Item
    from airflow_provider_ideogram.datasets.slice import SliceContext
    from airflow_provider_ideogram.hooks.image import SpooledImage
    from airflow_provider_ideogram.storage.target import Target

log = logging.getLogger(__name__)

#: The folder of rejected images below the ledger's prefix.
FOLDER = ".rejected/"


@dataclass(frozen=True, slots=True)
class Attempts:
    """
    The attempts of a run's items.

    :param context: The slice.
    """

    context: SliceContext

    def fetch(self, item: Item, job: Job, poll: RequestPoll) -> ItemResult:
        """
        Store a completed request's image where the gates' decision puts it; raises what :func:`fetch_and_store` does.

        :param item: The item of the attempt.
        """
        context = self.context
        rejection: Rejection | None = None

        def place(image: SpooledImage) -> Target:
            nonlocal rejection
            rejection = self._reject(item, image, job.request.seed if job.request else None)
            return context.target(item.key) if rejection is None else self._kept_at(item)

        record = fetch_and_store(context.hook, context.store, job, poll, place=place, asked=item.fingerprint)
        return self._result(item, record, rejection)

    def accept(self, item: Item, record: ImageRecord) -> ItemResult:
        """Return the result of an image that is at the item's key; one that is rejected is moved away."""
        context = self.context
        rejection = self._check(item, record)
        if rejection is None:
            return ItemResult.of_record(context, item, record)
        kept_at = self._kept_at(item)
        if context.store.copy(context.target(item.key), kept_at, item.request, item.fingerprint) is None:
            # Another program has replaced it. Another attempt would replace what is there now.
            return self._result(item, record, replace(rejection, is_redone=False))
        try:
            context.store.objects.delete(record.bucket, record.key)
        except IdeogramStorageError as error:
            log.warning("The rejected image stays at %s as well: %s", record.uri, error.reason)
        return self._result(item, replace(record, uri=kept_at.uri, key=kept_at.key), rejection)

    def take_stored(self, item: Item) -> tuple[Item, ItemResult | None]:
        """
        Check the images of attempts that were rejected before, up to one that is accepted or is not there.

        :return: The item of the attempt to pay for, or its result if none is to be paid for.
        """
        while (record := self._stored(item)) is not None:
            rejection = self._check(item, record)
            if rejection is None:
                source, target = self._kept_at(item), self.context.target(item.key)
                copied = self.context.store.copy(source, target, item.request, item.fingerprint)
                return item, None if copied is None else ItemResult.of_record(self.context, item, copied)
            result = self._result(item, record, rejection)
            if result.redone is None:
                return item, result
            item = result.redone
        return item, None

    def _stored(self, item: Item) -> ImageRecord | None:
        """Return the image of an item's present attempt that was rejected before, None without one."""
        context = self.context
        if not context.options.gates:
            return None
        target = self._kept_at(item)
        head = context.store.head(target)
        if head is None or not made_from(head, item.request, item.fingerprint):
            return None
        is_own = any(paid_by_group(head, group) for group in context.state.attempt_groups)  # also before a clear
        if context.options.if_exists != "reuse" and not is_own:
            return None
        return ImageRecord.of_object(target, head, item.request)  # what the run paid for it is counted already

    def _check(self, item: Item, record: ImageRecord) -> Rejection | None:
        """Return why the gates reject a stored image."""
        if not self.context.options.gates:
            return None
        with self.context.store.read(record.bucket, record.key) as image:
            return self._reject(item, image, record.seed)

    def _reject(self, item: Item, image: SpooledImage, seed: int | None) -> Rejection | None:
        options = self.context.options
        if not options.gates:
            return None
        attempt = len(item.rejected) + 1
        facts = {"id": item.id, "row": item.row, "key": item.key, "attempt": attempt}
        return reject(options.gates, image.file, {**facts, **item.request.inputs(), "seed": seed})

    def _result(self, item: Item, record: ImageRecord, rejection: Rejection | None) -> ItemResult:
        """
        Return the result of a stored image.

        :param record: Its description, at the address where the gates' decision has put it.
        """
        context = self.context
        if rejection is None:
            return ItemResult.of_record(context, item, record)
        if not record.reused:
            metrics.rejected(rejection.gate)
        error = _error(record, rejection)
        is_redone = rejection.is_redone and len(item.rejected) + 1 < context.options.max_attempts
        return ItemResult.of_rejection(context, item, record, rejection, error, is_redone=is_redone)

    def _kept_at(self, item: Item) -> Target:
        """Return the address of the image of an item's present attempt if it is rejected."""
        name = hashlib.sha256(f"{item.key}\0{item.request.fingerprint}".encode()).hexdigest()
        return self.context.target(f"{self.context.options.ledger_prefix}{FOLDER}{name[:40]}")


def _error(record: ImageRecord, rejection: Rejection) -> IdeogramJobError:
    paid = f"The image is paid, and kept at {record.uri}."
    if rejection.is_error:
        return IdeogramGateFailed(
            f"Gate {rejection.reason} on the image of request {record.request_id}",
            f"{paid} A retry checks it again, and does not pay for it again.",
            request_id=record.request_id,
        )
    return IdeogramImageRejected(
        f"Gate {rejection.gate!r} rejected the image of request {record.request_id}: {rejection.reason}",
        f"{paid} Clear the task after a change of the gates, or with more max_attempts.",
        request_id=record.request_id,
    )
