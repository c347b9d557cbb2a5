"""
The run of a dataset: planning, slices, and the manifest.

Invariant: between two slices nothing of the run is only in memory. New requests are in the ledger before they are in
the state, the lines of stored images are written before their records are deleted, and the state is written last. So
the next attempt after any crash finds every request, and repeating a step changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram import metrics
from airflow_provider_ideogram.api.parameters import CHECKS
from airflow_provider_ideogram.api.prices import list_price
from airflow_provider_ideogram.api.rate_limiter import RateLimiter
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.manifest import EarlierImages, write_manifest
from airflow_provider_ideogram.datasets.plan import make_plan, plan_again
from airflow_provider_ideogram.datasets.rows import MANIFEST, RowChecker, read_rows, version_of
from airflow_provider_ideogram.datasets.settling import Settler
from airflow_provider_ideogram.datasets.slice import CONCURRENCY, SliceContext, SliceProgress
from airflow_provider_ideogram.datasets.state import DatasetState
from airflow_provider_ideogram.datasets.submitting import SubmitBurst
from airflow_provider_ideogram.datasets.waiting import Wait, next_wait
from airflow_provider_ideogram.datasets.workspace import STATE, Workspace
from airflow_provider_ideogram.exceptions import (
    IdeogramDatasetFailed,
    IdeogramDatasetStopped,
    IdeogramError,
    IdeogramInvalidInput,
    IdeogramLedgerError,
)

if TYPE_CHECKING:
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger
    from airflow_provider_ideogram.storage.image_store import ImageStore
    from airflow_provider_ideogram.storage.target import Target

log = logging.getLogger(__name__)

#: The request's parameters that are the rows' defaults.
DEFAULTS = tuple(name for name in CHECKS if name != "prompt")
#: Consecutive items with the same failure, and none with an image, that stop the run.
SYSTEMATIC_FAILURES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOptions:
    """The operator's rendered arguments; see :class:`IdeogramGenerateDatasetOperator` for their meaning."""

    prompts: Any
    prompts_path: str | None
    key_template: str
    defaults: Mapping[str, Any]
    max_in_flight: int
    requests_per_minute: float | None
    max_failures: float
    max_cost_usd: float | None
    price_usd: float | None
    dedupe: bool
    if_exists: str
    resubmit: bool
    resubmit_on_5xx: bool
    timeout: float
    ledger_prefix: str
    s3_extra_args: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class DatasetRunner:
    """
    Run the slices of one dataset task.

    :param options: The operator's arguments.
    :param hook: The API.
    :param store: The images in S3.
    :param ledger: The ledger of the images' bucket.
    :param workspace: The run's own objects.
    :param output_prefix: The prefix of the images.
    :param owner: The task instance's id in the ledger.
    :param max_tries: The task instance's, which changes on a clear.
    :param push_progress: Pushes the XCom ``progress``.
    """

    options: DatasetOptions
    hook: IdeogramHook
    store: ImageStore
    ledger: Ledger | NoLedger
    workspace: Workspace
    output_prefix: Target
    owner: str
    max_tries: int
    push_progress: Callable[[dict[str, Any]], None]
    _state: DatasetState | None = field(default=None, init=False)

    @property
    def state(self) -> DatasetState:
        """The run's state, after :meth:`begin` or :meth:`resume`."""
        if self._state is None:
            raise RuntimeError("begin() or resume() comes first")
        return self._state

    @property
    def manifest_uri(self) -> str:
        """The address of the manifest."""
        return f"{self.output_prefix.uri}{MANIFEST}"

    def begin(self) -> None:
        """Continue an earlier attempt at the same input, or plan the run."""
        source = self._source()
        state = read_state(self.workspace)
        is_cleared = state is not None and self.max_tries != state.max_tries
        if state is None or state.source != source or (state.finished_at and is_cleared):
            state = self._plan(source)
        else:
            log.info("Continuing an earlier attempt: %d of %d items are done", state.done, state.total)
            if not state.finished_at and state.failures:
                # What was blocked is attempted again only after a person cleared the task.
                blocked = [ImageStatus.CONTENT_BLOCKED] if is_cleared else []
                plan_again(self.workspace, state, [ImageStatus.FAILED, ImageStatus.EXPIRED, *blocked])
        state.max_tries = self.max_tries
        self._state = state

    def resume(self) -> None:
        """Continue after a deferral."""
        self._state = read_state(self.workspace)
        if self._state is None:
            raise IdeogramLedgerError(
                f"The state of the run below {self.workspace.uri} was removed while the task waited",
                "Requests may be running; the ledger has them, and a retry reattaches to them.",
                charged=None,
            )

    @property
    def is_finished(self) -> bool:
        """Whether an earlier attempt finished the run."""
        return self.state.finished_at is not None

    def slice(self, reports: Mapping[str, Mapping[str, Any]]) -> Wait | None:
        """
        Store what is completed, submit what fits, and return what to wait for; None when every item is decided.

        :param reports: The trigger's reports by request id.
        :raises IdeogramError: If an error concerns all items; what was done until then is written.
        """
        state, context, progress = self.state, self._context(), SliceProgress()
        settler = Settler(context, progress)
        state.slices += 1
        with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="ideogram") as pool:
            errors = settler.settle(pool, reports)
            if not errors and state.consecutive_same_failures < SYSTEMATIC_FAILURES:
                errors = SubmitBurst(context, progress).submit(pool)
            if not errors:
                errors = settler.copy(pool)
        self.workspace.write(STATE, state.to_json())
        if errors:
            raise errors[0]
        self._raise_if_systematic(context)
        wait = next_wait(context, progress)
        if wait is not None:
            self._show_progress()
        return wait

    def finish(self) -> dict[str, Any]:
        """Write the manifest; return the result, or raise the error of a run with too many failures."""
        state = self.state
        try:
            write_manifest(
                self.workspace,
                self.output_prefix,
                state.total,
                state.parts,
                self.store.objects,
                self.options.s3_extra_args,
            )
        except IdeogramLedgerError:
            self.workspace.clear()
            raise
        self._show_progress(self.manifest_uri)
        share = self.options.max_failures
        allowed = share * state.total if 0 < share < 1 else share
        if state.failures > allowed:
            raise self._failure()
        if self.options.if_exists == "reuse":
            self.workspace.clear()  # a later attempt finds all images
        else:
            state.finished_at = time.time()
            self.workspace.write(STATE, state.to_json())
            self.workspace.clear(keep_state=True)
        return self.result()

    def result(self) -> dict[str, Any]:
        """Return the task's XCom."""
        state = self.state
        return {
            "manifest_uri": self.manifest_uri,
            "total": state.total,
            **state.counts,
            "cost_usd": round(state.cost_usd, 4),
            "seconds": round((state.finished_at or time.time()) - state.started_at, 1),
        }

    def _source(self) -> str:
        """Return a fingerprint of the input and of all arguments that decide the images."""
        options = self.options
        objects = self.store.objects
        rows = version_of(options.prompts_path, objects) if options.prompts_path else list(self._prompts())
        decisive = [rows, self.output_prefix.uri, options.key_template, options.if_exists, options.dedupe]
        decisive += [options.defaults[name] for name in DEFAULTS]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()

    def _plan(self, source: str) -> DatasetState:
        options, objects = self.options, self.store.objects
        self.store.find(self.output_prefix)  # checks the bucket and the upload's arguments
        checker = RowChecker(options.defaults, self.output_prefix, options.key_template, dedupe=options.dedupe)
        workspaces = self.workspace.all_of(self.output_prefix, options.ledger_prefix)
        with closing(EarlierImages(objects, self.output_prefix, workspaces)) as earlier:
            plan = make_plan(self._rows(), checker, earlier, self.workspace, options.if_exists)
        price = self._price
        try:
            self._check_cost(plan.to_do, price)
        except IdeogramInvalidInput:
            self.workspace.clear()
            raise
        cost = "at an unknown price" if price is None else f"for about {plan.to_do * price:.2f} USD at most"
        log.info("%d items: %d are stored already, %d to be generated %s", plan.total, plan.reused, plan.to_do, cost)
        limit, now = options.requests_per_minute, time.time()
        state = DatasetState(
            source=source,
            total=plan.total,
            chunks=plan.chunks,
            copies=plan.copies,
            parts=plan.parts,
            started_at=now,
            rate_limiter=RateLimiter.of_limit(self.hook.settings.requests_per_minute if limit is None else limit, now),
        )
        state.counts[ImageStatus.REUSED] = plan.reused
        metrics.reused(plan.reused)
        return state

    @property
    def _price(self) -> float | None:
        given = self.options.price_usd
        return list_price(self.options.defaults["model"]) if given is None else given

    def _check_cost(self, count: int, price: float | None) -> None:
        """Raise IdeogramInvalidInput if the images cost more than the limit, as far as their price is known."""
        limit = self.options.max_cost_usd
        if limit is not None and price is not None and count * price > limit + 1e-9:
            cost = f"{count} images would cost about {count * price:.2f} USD, and {limit:.2f} may be spent"
            raise IdeogramInvalidInput.of([f"max_cost_usd: {cost}"])

    def _rows(self) -> Iterator[tuple[str, Any]]:
        if self.options.prompts_path is not None:
            return read_rows(self.options.prompts_path, self.store.objects)
        return ((f"item {number}", row) for number, row in enumerate(self._prompts()))

    def _prompts(self) -> Sequence[Any]:
        """Return the rows of the argument ``prompts``; a template may have rendered to another type than a list."""
        prompts = self.options.prompts
        if isinstance(prompts, str | Mapping) or not isinstance(prompts, Sequence):
            raise IdeogramInvalidInput.of([f"prompts: must be a list of rows, not {type(prompts).__name__}"])
        return prompts

    def _context(self) -> SliceContext:
        options = self.options
        self.hook.get_conn()  # on the task's main thread: Airflow looks connections up there only
        return SliceContext(
            hook=self.hook,
            store=self.store,
            ledger=self.ledger,
            workspace=self.workspace,
            state=self.state,
            output_prefix=self.output_prefix,
            owner=self.owner,
            max_tries=self.max_tries,
            if_exists=options.if_exists,
            resubmit=options.resubmit,
            resubmit_on_5xx=options.resubmit_on_5xx,
            timeout=options.timeout,
            max_in_flight=options.max_in_flight,
            max_cost_usd=options.max_cost_usd,
            price_usd=self._price,
        )

    def _raise_if_systematic(self, context: SliceContext) -> None:
        state = self.state
        if state.consecutive_same_failures >= SYSTEMATIC_FAILURES and context.has_items_to_submit:
            raise IdeogramDatasetStopped(
                f"The last {state.consecutive_same_failures} items failed for the same reason: {state.failure}",
                f"{state.charged_text}. Clear the task when the cause is gone: it reattaches to running requests and "
                "attempts what failed.",
            )

    def _show_progress(self, manifest_uri: str | None = None) -> None:
        """Log the progress, and push the same numbers as the XCom ``progress``."""
        state = self.state
        minutes = max(time.time() - state.started_at, 1.0) / 60
        pace = (state.done - state.counts[ImageStatus.REUSED]) / minutes
        seconds_left = (state.total - state.done) / pace * 60 if pace else None
        log.info(
            "%d of %d items, %d in flight, %.1f images a minute, %.2f USD spent, %s left",
            state.done,
            state.total,
            len(state.in_flight),
            pace,
            state.cost_usd,
            "unknown time" if seconds_left is None else f"{seconds_left:.0f} s",
        )
        self.push_progress(
            {
                "total": state.total,
                "done": state.done,
                **state.counts,
                "in_flight": len(state.in_flight),
                "cost_usd": round(state.cost_usd, 4),
                "images_per_minute": round(pace, 1),
                "seconds_left": None if seconds_left is None else round(seconds_left),
                "slices": state.slices,
                "parts": f"{self.workspace.uri}part-",
                **({"manifest_uri": manifest_uri} if manifest_uri else {}),
            }
        )

    def _failure(self) -> IdeogramError:
        """Return the error of a run with too many failures; its workspace stays for the next attempt."""
        state = self.state
        all_blocked = state.failures == state.counts[ImageStatus.CONTENT_BLOCKED]
        kind = IdeogramDatasetStopped if all_blocked else IdeogramDatasetFailed
        next_step = "A retry would be blocked again" if all_blocked else "A retry attempts only those that failed"
        examples = "\n".join(f"  - {example}" for example in state.examples)
        return kind(
            f"{state.failures} of {state.total} items have no image, and max_failures is {self.options.max_failures}",
            f"{state.charged_text}. {next_step}. {self.manifest_uri} has all of them; the first:\n{examples}",
        )


def read_state(workspace: Workspace) -> DatasetState | None:
    """Return the run's state, None if there is none; raise IdeogramLedgerError if it can't be understood."""
    try:
        saved = workspace.read(STATE)
        return None if saved is None else DatasetState.from_json(saved)
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise IdeogramLedgerError(
            f"{workspace.uri}{STATE} can't be understood ({problem!r})",
            "Requests may be running. Remove the object: the ledger has them, and a retry reattaches to them.",
            charged=None,
        ) from problem
