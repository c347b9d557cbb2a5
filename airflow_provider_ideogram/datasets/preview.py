"""
What a dataset's run would do for its rows, found out by reads alone.

Invariant: nothing is submitted or written. As in a run, one row that can't be used, or a cost above ``max_cost_usd``,
refuses all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from airflow_provider_ideogram.datasets.budget import TOLERANCE, estimated_cost
from airflow_provider_ideogram.datasets.earlier_images import EarlierImages
from airflow_provider_ideogram.datasets.start import read_input, row_checker
from airflow_provider_ideogram.datasets.workspace import Workspace
from airflow_provider_ideogram.exceptions import IdeogramError
from airflow_provider_ideogram.jobs.preview import (
    PlannedImages,
    Preview,
    Verdict,
    WantedImage,
    refused,
    sum_up,
)
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from airflow_provider_ideogram.datasets.options import DatasetOptions
    from airflow_provider_ideogram.datasets.rows import Item, RowChecker

_ALL_REFUSED = "the task submits nothing while other rows are refused"


def preview_run(
    options: DatasetOptions, preview: Preview, output_prefix: Target, owner: str, *, durable: bool
) -> list[PlannedImages]:
    """
    Return what a run would do for its images.

    :param preview: The S3 layer.
    :param owner: The task instance, ``dag_id/run_id/task_id/map_index``.
    :param durable: Whether the task has a ledger.
    """
    checker = row_checker(options, output_prefix)
    try:
        preview.objects.check_bucket(output_prefix.bucket, "Nothing was charged.")
        images = _images(options, preview, output_prefix, checker, owner, durable=durable)
        sums = sum_up(preview.of(images))
    except IdeogramError as error:
        return sum_up([refused(error)])
    more = checker.bad_rows - len(checker.problems)
    bad = [PlannedImages(Verdict.REFUSE, problem) for problem in checker.problems]
    bad += [PlannedImages(Verdict.REFUSE, "more rows that can't be used", more)] if more else []
    cost = sum(each.usd or 0.0 for each in sums if each.verdict is Verdict.GENERATE)
    limit = options.max_cost_usd
    if limit is not None and cost > limit + TOLERANCE:
        reason = f"max_cost_usd: the images would cost about {cost:.2f} USD, and {limit:.2f} may be spent"
    elif bad or any(each.verdict is Verdict.REFUSE for each in sums):
        reason = _ALL_REFUSED
    else:
        return sums
    return sum_up([*bad, *_refuse(sums, reason)])


def _refuse(sums: Iterable[PlannedImages], reason: str) -> Iterator[PlannedImages]:
    for each in sums:
        is_kept = each.verdict not in (Verdict.GENERATE, Verdict.CONTINUE)
        yield each if is_kept else PlannedImages(Verdict.REFUSE, reason, each.images)


def _images(
    options: DatasetOptions, preview: Preview, prefix: Target, checker: RowChecker, owner: str, *, durable: bool
) -> Iterator[WantedImage | PlannedImages]:
    workspaces = Workspace.all_of(prefix, options.ledger_prefix)
    own = Workspace.of(preview.objects, prefix, options.ledger_prefix, owner).parts_of(0)
    rows = read_input(options, preview.objects, checker.needed_columns)
    with closing(EarlierImages(preview.objects, prefix, workspaces, own)) as earlier:
        for item in checker.items(rows):
            if options.if_exists == "reuse" and earlier.line_of(item) is not None:
                yield PlannedImages(Verdict.REUSE)
            elif item.copy_of:
                yield PlannedImages(Verdict.REUSE, "a copy of the image of another row with the same inputs")
            else:
                yield _wanted(options, prefix, item, owner, durable=durable)


def _wanted(options: DatasetOptions, prefix: Target, item: Item, owner: str, *, durable: bool) -> WantedImage:
    model = item.request.model
    return WantedImage(
        Target(prefix.bucket, item.key),
        item.request,
        model,
        options.if_exists,
        options.ledger_prefix if durable else None,
        owner,
        estimated_cost(options, None, model),
    )
