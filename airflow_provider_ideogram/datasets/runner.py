"""
A dataset's run on a worker: its start, its slices, and its end.

Invariant: between two slices nothing of the run is in memory. In a slice, lines are written before ledger records are
deleted, requests are in the ledger before they are in the state, and the state is written last. So a slice that dies at
any moment leaves every request to the next attempt, and what that repeats has the same result.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.copying import copy_images
from airflow_provider_ideogram.datasets.manifest import write_manifest
from airflow_provider_ideogram.datasets.plan import plan_failed_items
from airflow_provider_ideogram.datasets.rows import MANIFEST, MAX_LISTED
from airflow_provider_ideogram.datasets.run import DatasetRun, SliceState
from airflow_provider_ideogram.datasets.settling import Reports, settle
from airflow_provider_ideogram.datasets.start import input_digest, plan_run
from airflow_provider_ideogram.datasets.state import DatasetState
from airflow_provider_ideogram.datasets.submitting import submit
from airflow_provider_ideogram.datasets.waiting import MAX_SAME_FAILURES, Wait, plan_wait, raise_if_systematic
from airflow_provider_ideogram.datasets.workspace import IN_LEDGER, STATE, Workspace, unparsable
from airflow_provider_ideogram.exceptions import (
    IdeogramDatasetFailed,
    IdeogramDatasetStopped,
    IdeogramLedgerError,
)

if TYPE_CHECKING:
    from airflow_provider_ideogram.datasets.options import DatasetOptions
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger
    from airflow_provider_ideogram.storage.image_store import ImageStore
    from airflow_provider_ideogram.storage.target import Target

log = logging.getLogger(__name__)

#: Requests, downloads and uploads at once: enough to keep a core busy, with at most eight images in memory.
CONCURRENCY = 8


class DatasetRunner:
    """
    The run of one task instance, as one process sees it.

    :param hook: The API.
    :param store: The images in S3.
    :param ledger: The ledger of the images' bucket.
    :param output_prefix: The prefix of the images.
    :param workspace_prefix: The key prefix of the workspace, None for the task instance's own.
    """

    state: DatasetState

    def __init__(
        self,
        options: DatasetOptions,
        hook: IdeogramHook,
        store: ImageStore,
        ledger: Ledger | NoLedger,
        output_prefix: Target,
        workspace_prefix: str | None = None,
    ) -> None:
        self._options = options
        self._hook = hook
        self._store = store
        self._ledger = ledger
        self.output_prefix = output_prefix
        self.workspace = Workspace.of(store.objects, output_prefix, options.ledger_prefix, options.owner)
        if workspace_prefix is not None:
            self.workspace = Workspace(store.objects, output_prefix.bucket, workspace_prefix)

    @property
    def manifest_uri(self) -> str:
        """The address of the manifest."""
        return f"{self.output_prefix.uri}{MANIFEST}"

    @property
    def is_finished(self) -> bool:
        """Whether an earlier attempt has succeeded."""
        return self.state.finished_at is not None

    def payload(self) -> dict[str, str]:
        """Return what the trigger's event brings back for the next slice."""
        return {
            "workspace": self.workspace.prefix,
            "bucket": self.output_prefix.bucket,
            "prefix": self.output_prefix.key,
        }

    def start(self) -> None:
        """
        Continue where an earlier attempt with the same input stopped, or plan the run.

        :raises IdeogramInvalidInput: If a row is not valid, or the run would cost more than ``max_cost_usd``.
        """
        options, max_tries = self._options, self._options.max_tries
        saved, digest = self._saved_state(), input_digest(options, self.output_prefix, self._store.objects)
        is_cleared = saved is not None and max_tries != saved.max_tries
        if saved is None or saved.input_digest != digest or (saved.finished_at and is_cleared):
            self.state = plan_run(options, self._hook, self._store, self.workspace, self.output_prefix, digest)
        else:
            log.info("Continuing where an earlier attempt stopped: %d of %d items", saved.done, saved.total)
            self.state = saved
            if not saved.finished_at and saved.failures:
                blocked = [ImageStatus.CONTENT_BLOCKED] if is_cleared else []
                plan_failed_items(self.workspace, saved, [ImageStatus.FAILED, ImageStatus.EXPIRED, *blocked])
        self.state.max_tries = max_tries

    def resume(self) -> None:
        """Read the state that the last slice wrote; raise IdeogramLedgerError if it is missing."""
        state = self._saved_state()
        if state is None:
            raise IdeogramLedgerError(f"{self.workspace.uri} was deleted while the task waited", IN_LEDGER)
        self.state = state

    def run_slice(self, reports: Reports) -> Wait | None:
        """
        Store what is completed, submit what fits, and return what to wait for; None when every item is decided.

        :param reports: The trigger's reports.
        :raises IdeogramError: If a problem concerns all items; the state is written before.
        """
        self._hook.get_conn()  # connections are read on the task's main thread only
        run, slice_, state = self._run(), SliceState(), self.state
        state.slices += 1
        with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="ideogram") as pool:
            errors = settle(run, slice_, pool, reports)
            if not errors and state.consecutive_same_failures < MAX_SAME_FAILURES:
                errors = submit(run, slice_, pool)
            if not errors:
                errors = copy_images(run, pool)
        self.workspace.write(STATE, state.to_json())
        if errors:
            raise errors[0]
        raise_if_systematic(run)
        return plan_wait(run, slice_)

    def write_manifest(self) -> None:
        """Write the manifest; raise IdeogramLedgerError if a part of its lines was deleted."""
        try:
            write_manifest(
                self.workspace,
                self.output_prefix,
                self.state.total,
                self.state.parts,
                self._store.objects,
                self._options.s3_extra_args,
            )
        except IdeogramLedgerError:
            self.workspace.clear()  # the next attempt plans again, and finds the images
            raise

    def finish(self) -> None:
        """
        Delete the workspace.

        :raises IdeogramDatasetFailed: If more items than allowed have no image; the workspace stays then.
        """
        state, limit = self.state, self._options.max_failures
        if state.failures > (limit * state.total if 0 < limit < 1 else limit):
            raise self._failure()
        if self._options.if_exists == "reuse":
            self.workspace.clear()  # a later attempt finds all images
        else:
            state.finished_at = time.time()
            self.workspace.write(STATE, state.to_json())
            self.workspace.clear(keep_state=True)

    def result(self) -> dict[str, Any]:
        """Return the task's result."""
        state = self.state
        return {
            "manifest_uri": self.manifest_uri,
            "total": state.total,
            **self._totals(),
            "seconds": round((state.finished_at or time.time()) - state.started_at, 1),
        }

    def _totals(self) -> dict[str, Any]:
        state = self.state
        return {
            **state.counts,
            "cost_usd": round(state.cost_usd, 6),
            "original_cost_usd": round(state.original_cost_usd, 6),
            "cost_is_estimate": state.cost_is_estimate,
        }

    def progress(self) -> dict[str, Any]:
        """Return the XCom ``progress``, and log the same values."""
        state = self.state
        minutes = max(time.time() - state.started_at, 1.0) / 60
        per_minute = (state.done - state.counts[ImageStatus.REUSED]) / minutes
        seconds_left = (state.total - state.done) / per_minute * 60 if per_minute else None
        log.info(
            "%d of %d items, %d in flight, %.1f images a minute, %.2f USD spent, %s left",
            state.done,
            state.total,
            len(state.in_flight),
            per_minute,
            state.cost_usd,
            "unknown time" if seconds_left is None else f"{seconds_left:.0f} s",
        )
        return {
            "total": state.total,
            "done": state.done,
            **self._totals(),
            "in_flight": len(state.in_flight),
            "images_per_minute": round(per_minute, 1),
            "seconds_left": None if seconds_left is None else round(seconds_left),
            "slices": state.slices,
            "parts": f"{self.workspace.uri}part-",
        }

    def _run(self) -> DatasetRun:
        return DatasetRun(
            options=self._options,
            hook=self._hook,
            store=self._store,
            ledger=self._ledger,
            workspace=self.workspace,
            output_prefix=self.output_prefix,
            state=self.state,
        )

    def _saved_state(self) -> DatasetState | None:
        """Return the state of an earlier slice, None without one; raise IdeogramLedgerError if it has another form."""
        saved = self.workspace.read(STATE)
        try:
            return None if saved is None else DatasetState.from_json(saved)
        except (AttributeError, KeyError, TypeError, ValueError) as problem:
            raise unparsable(f"{self.workspace.uri}{STATE}", problem) from problem

    def _failure(self) -> IdeogramDatasetFailed:
        state = self.state
        only_blocked = state.failures == state.counts[ImageStatus.CONTENT_BLOCKED]
        kind = IdeogramDatasetStopped if only_blocked else IdeogramDatasetFailed
        retry = "A retry would be refused alike" if only_blocked else "A retry attempts only those that failed"
        examples = "\n".join(f"  - {example}" for example in state.examples[:MAX_LISTED])
        return kind(
            f"{state.failures} of {state.total} items have no image, and max_failures is {self._options.max_failures}",
            f"{state.cost_usd:.2f} USD were charged. {retry}. {self.manifest_uri} has all; the first:\n{examples}",
            charged=state.cost_usd > 0,
        )
