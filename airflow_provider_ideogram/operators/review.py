"""
The operator that waits for people's decisions on images.

Invariant: it spends no money and holds no worker while it waits. Its result follows from the closed review alone, so
that a later attempt returns the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow_provider_ideogram.api.values import number, seconds
from airflow_provider_ideogram.exceptions import IdeogramNotApproved, IdeogramReviewTimeout, IdeogramStorageError
from airflow_provider_ideogram.jobs.identity import attempt_group, owner_id
from airflow_provider_ideogram.links.ideogram import gallery_address, has_gallery
from airflow_provider_ideogram.operators.base import IdeogramTask, check_number, problem_of, read_if_valid
from airflow_provider_ideogram.operators.failures import airflow_failures, deferral_ended
from airflow_provider_ideogram.storage.target import DEFAULT_LEDGER_PREFIX, Target, check_ledger_prefix

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ideogram.reviews.review import Review
    from airflow_provider_ideogram.reviews.store import ReviewStore

#: Decisions that an asset event has; the review in S3 has all.
_MAX_IN_EVENT = 1000
_AGAIN = (
    "Nothing was charged: a review spends no money. Clear the task to open the review again; the decisions are kept."
)


class IdeogramReviewOperator(IdeogramTask):
    """
    Wait until people have decided on images in the gallery: approve, reject, or make again with a note.

    Any user may decide who has the right to change the DAG's task instances in Airflow. Returns the list of the
    approved images, each as the operators describe it. The XCom ``redo`` has the images to make again, as rows of a
    dataset, and the XCom ``review`` the counts and the review's address in S3. Needs Airflow 3.1 or newer, which shows
    the gallery.

    :param images: What the tasks return whose images are reviewed: an image, a dataset's result, or a list of them. At
        most 10,000.
    :param min_approved: How many images have to be approved at least, or their share below 1: with fewer the task
        fails. An image to make again counts as approved, since it can be in the next review.
    :param allow_redo: Whether images can be made again.
    :param timeout: Seconds or a timedelta until the task stops waiting.
    :param on_timeout: What the task does then: ``fail``, ``skip``, or ``continue`` with what is approved.
    :param aws_conn_id: The Airflow connection of type ``aws``.
    :param s3_extra_args: Arguments of ``put_object`` that the bucket requires, such as
        ``{"ServerSideEncryption": "AES256"}``.
    :param ledger_prefix: The prefix of the review's key in the images' bucket, at most 64 bytes.
    """

    template_fields: Sequence[str] = ("images", "s3_extra_args", "aws_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"images": "json", "s3_extra_args": "json"}
    choices: ClassVar[Mapping[str, Sequence[str]]] = {"on_timeout": ("fail", "skip", "continue")}
    flags: ClassVar[Sequence[str]] = ("allow_redo",)
    durations: ClassVar[Mapping[str, str]] = {"timeout": "timeout"}

    #: Needed by the base class: a review uses no account and stores no image.
    ideogram_conn_id = "ideogram_default"
    thumbnails = False

    def __init__(
        self,
        *,
        images: Any,
        min_approved: float = 0,
        allow_redo: bool = True,
        timeout: float | timedelta = timedelta(days=7),
        on_timeout: str = "fail",
        aws_conn_id: str | None = "aws_default",
        s3_extra_args: Mapping[str, Any] | None = None,
        ledger_prefix: str = DEFAULT_LEDGER_PREFIX,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.images = images
        self.min_approved = read_if_valid(number, min_approved)
        self.allow_redo = allow_redo
        self.timeout = read_if_valid(seconds, timeout)
        self.on_timeout = on_timeout
        self.aws_conn_id = aws_conn_id
        self.s3_extra_args = s3_extra_args
        self.ledger_prefix = ledger_prefix
        self._check_arguments()

    def _problems(self, is_final: Callable[[Any], bool]) -> list[str]:
        problems = super()._problems(is_final)
        if not has_gallery():
            problems.append("IdeogramReviewOperator needs Airflow 3.1 or newer, which shows the gallery")
        is_reference = hasattr(self.images, "iter_references")  # another task's output
        is_template = isinstance(self.images, str) and not is_final(self.images)
        if not is_reference and not is_template:
            from airflow_provider_ideogram.reviews.images import check_images

            problems += problem_of("images", check_images, self.images)
        problems += problem_of("min_approved", check_number, self.min_approved, int | float, 0, "a number from 0 up")
        return problems + check_ledger_prefix(self.ledger_prefix)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Open the review, or continue that of an earlier attempt, and wait."""
        from airflow_provider_ideogram.reviews.images import read_images
        from airflow_provider_ideogram.reviews.store import ReviewStore

        with self._failures(context):
            self._check_rendered()
            lines = read_images(self.images, self._store.objects)
            if not lines:
                self.log.info("There are no images to review")
                context["ti"].xcom_push(key="redo", value=[])
                self._check_enough(0, 0)
                return []
            bucket = lines[0]["bucket"]
            store = ReviewStore.of(self._store.objects, bucket, self.ledger_prefix, owner_id(context["ti"]))
            review = self._open(context, store, lines)
            self._push(context, store, review, len(lines))
            self.log.info("%d images wait for decisions: %s", len(review.images), gallery_address(context["ti"]))
            return self._wait_or_end(context, store)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Resume after the trigger fired: take the result, or wait on."""
        from airflow_provider_ideogram.reviews.store import ReviewStore

        with self._failures(context):
            prefix = Target(event["bucket"], event["prefix"])
            return self._wait_or_end(context, ReviewStore(self._store.objects, prefix))

    def _on_deferral_ended(self, context: Context, why: str) -> NoReturn:
        with self._failures(context):
            raise deferral_ended(why, None)

    def _failures(self, context: Context) -> Any:
        skipped = (IdeogramReviewTimeout,) if self.on_timeout == "skip" else ()
        return airflow_failures(context["ti"], durable=True, skipped=skipped)

    def _open(self, context: Context, store: ReviewStore, lines: list[dict[str, Any]]) -> Review:
        """Open the review, or open it again after a clear; that of an earlier attempt stays as it is."""
        from airflow_provider_ideogram.reviews.review import Review
        from airflow_provider_ideogram.storage.bucket_arguments import with_every_write

        owner = owner_id(context["ti"])
        # A run that was deleted and made again has the same owner.
        group = attempt_group(f"{owner}/{context['dag_run'].start_date}", context["ti"].max_tries)
        images = list(dict.fromkeys(line["request_id"] for line in lines))  # copies are one image
        now = time.time()
        before = store.read()
        if before is not None and before.group == group:
            return before
        store.write_images(lines)

        def change(review: Review | None) -> Review:
            if review is None:
                review = Review(owner, images, self.allow_redo, group, now, now + self.timeout)
            else:
                review.reopen(images, group, now, now + self.timeout)
            review.allow_redo, review.write_args = self.allow_redo, with_every_write(self.s3_extra_args or {})
            return review

        return _there(store.update(change), store)

    def _wait_or_end(self, context: Context, store: ReviewStore) -> list[dict[str, Any]]:
        """Close the review if it is finished or its time is over, and return its result; otherwise defer."""
        from airflow_provider_ideogram.reviews.trigger import IdeogramReviewTrigger

        now = time.time()

        def close(review: Review | None) -> Review | None:
            found = _there(review, store)
            return found if found.close(now) else None

        review = _there(store.update(close), store)
        if review.closed_at is None:
            prefix = store.prefix
            self._defer_to(
                IdeogramReviewTrigger(
                    bucket=prefix.bucket, prefix=prefix.key, deadline=review.deadline, aws_conn_id=self.aws_conn_id
                ),
                "execute_complete",
            )
        return self._end(context, store, review)

    def _end(self, context: Context, store: ReviewStore, review: Review) -> list[dict[str, Any]]:
        """Push and return the result; raise IdeogramNotApproved if it is not enough."""
        from airflow_provider_ideogram.reviews.images import approved_images, redo_rows

        lines, decisions = list(store.read_images()), review.decisions()
        context["ti"].xcom_push(key="redo", value=redo_rows(lines, decisions))
        counts = self._push(context, store, review, len(lines))
        if review.timed_out and self.on_timeout != "continue":
            undecided = f"{counts['undecided']} of {len(review.images)} images are undecided"
            raise IdeogramReviewTimeout(f"The review was not finished in time: {undecided}", _AGAIN)
        self._check_enough(counts["approved"] + counts["redo"], len(review.images))
        entries = [asdict(entry) for entry in islice(decisions.values(), _MAX_IN_EVENT)]
        event = {**counts, "review_uri": store.uri, "decisions": entries}
        self._add_asset_events(context, event, store.uri)
        return approved_images(lines, decisions)

    def _check_enough(self, approved: int, total: int) -> None:
        needed = self.min_approved * total if 0 < self.min_approved < 1 else self.min_approved
        if approved < needed:
            raise IdeogramNotApproved(
                f"{approved} of {total} images are approved or made again, and min_approved is {self.min_approved}",
                _AGAIN,
            )

    def _push(self, context: Context, store: ReviewStore, review: Review, rows: int) -> dict[str, int]:
        """Push the counts and the address of the review, and return the counts."""
        counts = review.counts()
        context["ti"].xcom_push(key="review", value={"uri": store.uri, "total": rows, **counts})
        return counts


def _there(review: Review | None, store: ReviewStore) -> Review:
    if review is None:
        raise IdeogramStorageError(
            f"The review {store.uri} is missing",
            "Nothing was charged. It was removed, with its decisions: a retry opens a new one.",
        )
    return review
