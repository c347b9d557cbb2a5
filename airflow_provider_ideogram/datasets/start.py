"""
The start of a dataset's run: its input, its plan and its first state.

Invariant: what can fail without a submit is checked before the first one: every row, and the estimated cost.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram import metrics
from airflow_provider_ideogram.account.reservations import Settlement, settle
from airflow_provider_ideogram.api.rate_limiter import RateLimiter
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.budget import TOLERANCE, estimated_cost
from airflow_provider_ideogram.datasets.earlier_images import EarlierImages
from airflow_provider_ideogram.datasets.expansion import Expansion
from airflow_provider_ideogram.datasets.passed_rows import read_passed_rows
from airflow_provider_ideogram.datasets.plan import Plan, make_plan
from airflow_provider_ideogram.datasets.prompt_template import PromptTemplate
from airflow_provider_ideogram.datasets.row_files import read_rows, version_of
from airflow_provider_ideogram.datasets.rows import RowChecker
from airflow_provider_ideogram.datasets.state import DatasetState, UnsettledRequest
from airflow_provider_ideogram.datasets.workspace import Workspace
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramLedgerError
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from airflow_provider_ideogram.datasets.options import DatasetOptions
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger
    from airflow_provider_ideogram.storage.image_store import ImageStore
    from airflow_provider_ideogram.storage.objects import ObjectStore

log = logging.getLogger(__name__)

#: Records of stored images that are looked at. There are more only where S3 permits no deletions.
_MAX_LEFTOVERS = 1000


def input_digest(options: DatasetOptions, output_prefix: Target, objects: ObjectStore) -> str:
    """Return a digest of the rows and of all arguments that change their images."""
    path = options.prompts_path
    rows = _digest_of_rows(options.prompts) if path is None else version_of(path, objects)
    values: list[Any] = [rows, output_prefix.uri, options.key_template, options.if_exists, options.dedupe]
    values += [options.prompt_template, options.variants, options.matrix, list(options.gates)]
    text = json.dumps([*values, *options.defaults.values()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest_of_rows(prompts: Any) -> str:
    digest = hashlib.sha256()
    for number, row in enumerate(read_passed_rows(prompts)):
        try:
            text = _text(row)
        except (TypeError, ValueError, RecursionError) as problem:  # such as an integer of thousands of digits
            raise IdeogramInvalidInput.of([f"prompts: item {number} can't be written as text: {problem}"]) from problem
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _text(row: Any) -> str:
    columns = {str(name): value for name, value in row.items()} if isinstance(row, Mapping) else row
    try:
        return json.dumps(columns, sort_keys=True, default=str)
    except (TypeError, ValueError):  # such as names that can't be sorted
        return repr(columns)


def plan_run(
    options: DatasetOptions,
    hook: IdeogramHook,
    store: ImageStore,
    workspace: Workspace,
    output_prefix: Target,
    digest: str,
    before: DatasetState,
    ledger: Ledger | NoLedger,
    *,
    owns_manifest: bool,
) -> DatasetState:
    """
    Read and check the input, write the plan to the workspace, and return the first state.

    :param digest: The input's digest.
    :param before: The state of the present slice.
    :param ledger: The ledger, from which the records of stored images are removed.
    :param owns_manifest: Whether an attempt of the task since its last clear has written the manifest.
    :raises IdeogramInvalidInput: If a row is not valid, or the run would cost more than ``max_cost_usd``.
    """
    checker = row_checker(options, output_prefix)
    workspaces = Workspace.all_of(output_prefix, options.ledger_prefix)
    own = workspace.parts_of(before.plan)
    # Later than those of all runs before: their objects may still be there.
    number = max(int(time.time()), before.plan + 1)
    undecided = [each.item for each in before.in_flight] + [each.item for each in before.delayed]
    with closing(
        EarlierImages(store.objects, output_prefix, workspaces, own, owns_manifest=owns_manifest, undecided=undecided)
    ) as earlier:
        rows = read_input(options, store.objects, checker.needed_columns)
        open_requests = _open_requests(options, before)
        records = frozenset(islice(ledger.targets_below(output_prefix), _MAX_LEFTOVERS))
        plan = make_plan(
            rows, checker, earlier, workspace, number, options.if_exists, open_requests, records, options.gates
        )
    if not plan.rows and not options.allow_empty:
        raise IdeogramInvalidInput.of([f"{options.prompts_path or 'prompts'}: there are no rows; see allow_empty"])
    _check_cost(options, plan)
    metrics.reused(plan.counts[ImageStatus.REUSED])
    for key, line in plan.recorded.items():
        _delete_leftover(ledger, store.objects, Target(output_prefix.bucket, key), before.owner, line)
    now, limit = time.time(), options.requests_per_minute
    abandoned = [request for key, request in open_requests.items() if key not in plan.continued | plan.ended]
    state = DatasetState(
        input_digest=digest,
        owner=before.owner,
        replaced_manifest=before.replaced_manifest,
        plan=number,
        slices=before.slices,
        total=plan.total,
        todo_chunks=plan.todo_chunks,
        copy_chunks=plan.copy_chunks,
        parts=plan.parts,
        cost_usd=_cost_so_far(before, plan, open_requests),
        abandoned_usd=before.abandoned_usd + sum(request.estimate_usd or 0.0 for request in abandoned),
        unsettled_requests=plan.continued,
        counted_usd=_counted(before, abandoned),
        observed_costs=before.observed_costs,
        images_without_cost=before.images_without_cost,
        attempt_groups=before.attempt_groups,
        original_cost_usd=plan.original_cost_usd,
        cost_is_estimate=plan.cost_is_estimate,
        started_at=before.started_at,
        idle_seconds=before.idle_seconds,
        rate_limiter=RateLimiter.of_limit(hook.settings.requests_per_minute if limit is None else limit, now),
    )
    state.counts |= plan.counts
    return state


def _delete_leftover(
    ledger: Ledger | NoLedger, objects: ObjectStore, target: Target, owner: str, line: Mapping[str, Any]
) -> None:
    """Settle and delete a record that a stored image ends: its slice died, or could not delete it."""
    try:
        record = ledger.read(ledger.key_of(target, owner))
    except IdeogramLedgerError as error:
        log.warning("%s. Its image is stored", error.reason)
        return
    if record is None:
        return
    is_of_image = record.is_of_image(line["request_id"], line["submitted_at"])
    if not is_of_image and not record.is_ended_by_image(owner, line["fingerprint"], time.time()):
        return
    cost = line["original_cost_usd"] if is_of_image and not line.get("cost_is_estimate") else None
    if settle(objects, [Settlement(record.intent.reservation, cost)]):
        ledger.delete(record.key, record.etag)


def _cost_so_far(before: DatasetState, plan: Plan, open_requests: Mapping[str, UnsettledRequest]) -> float:
    """Return what the run was charged, with the images of a slice that died before it counted them."""
    if not before.input_digest:  # lines are lost: the images that are found count anew
        return plan.own_cost_usd + sum(before.counted_usd.values())
    uncounted = sum(_cost_of_image(line) - open_requests[key].counted_usd for key, line in plan.ended.items())
    return max(before.cost_usd + uncounted, plan.own_cost_usd)


def _cost_of_image(line: Mapping[str, Any]) -> float:
    """Return what the run paid for the image of a line, without the rejected attempts, which were counted before."""
    return (line["original_cost_usd"] or 0.0) if line["status"] == ImageStatus.GENERATED else 0.0


def _counted(before: DatasetState, abandoned: Iterable[UnsettledRequest]) -> dict[str, float]:
    """Return the counted costs of requests that no item waits for."""
    counted = {request.request_id: request.counted_usd for request in abandoned if request.request_id is not None}
    return before.counted_usd | counted


def _open_requests(options: DatasetOptions, before: DatasetState) -> dict[str, UnsettledRequest]:
    """Return the requests that may be charged, by the item's key."""
    open_requests = {
        # Where lines are lost, costs are counted anew.
        key: request if before.input_digest else _uncounted(request)
        for key, request in before.unsettled_requests.items()
    }
    for entry in before.in_flight:
        known = open_requests.get(entry.item.key)
        is_known = known is not None and known.request_id == entry.job.request_id
        if not is_known and not entry.job.paid_by_other_task:
            open_requests[entry.item.key] = UnsettledRequest(
                entry.job.request_id,
                counted_usd=0.0,
                estimate_usd=estimated_cost(options, before, entry.item.request.model),
                fingerprint=entry.item.fingerprint,
            )
    return open_requests


def _uncounted(request: UnsettledRequest) -> UnsettledRequest:
    """Return a request whose counted cost is an estimate again."""
    return replace(request, counted_usd=0.0, estimate_usd=request.counted_usd or request.estimate_usd)


def row_checker(options: DatasetOptions, output_prefix: Target) -> RowChecker:
    """Return what turns the rows of a run into items."""
    return RowChecker(
        options.defaults,
        output_prefix,
        options.key_template,
        dedupe=options.dedupe,
        expansion=Expansion(options.variants, options.matrix),
        prompt_template=None if options.prompt_template is None else PromptTemplate(options.prompt_template),
    )


def read_input(
    options: DatasetOptions, objects: ObjectStore, needed_columns: Sequence[str]
) -> Iterator[tuple[str, Any]]:
    """Yield the rows, each with its place in the input."""
    if options.prompts_path is not None:
        return read_rows(options.prompts_path, objects, needed_columns)
    return ((f"item {number}", row) for number, row in enumerate(read_passed_rows(options.prompts)))


def _check_cost(options: DatasetOptions, plan: Plan) -> None:
    """Log the estimated cost; raise IdeogramInvalidInput if it is above ``max_cost_usd``."""
    prices = {model: estimated_cost(options, None, model) for model in plan.to_do}
    cost = sum(count * (prices[model] or 0.0) for model, count in plan.to_do.items())
    unpriced = sorted(model for model, price in prices.items() if price is None)
    limit, count = options.max_cost_usd, plan.to_do.total()
    if limit is not None and cost > limit + TOLERANCE:
        raise IdeogramInvalidInput.of(
            [f"max_cost_usd: {count} images would cost about {cost:.2f} USD, and {limit:.2f} may be spent"]
        )
    and_unpriced = f", and the unknown cost of images of {', '.join(unpriced)}" if unpriced else ""
    log.info(
        "%d items of %d rows: %d are stored already, %d are generated for an estimated %.2f USD at most%s",
        plan.total,
        plan.rows,
        plan.counts.total(),
        count,
        cost,
        and_unpriced,
    )
