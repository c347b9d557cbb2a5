"""
A dataset's run on a worker: its start, its slices, and its end.

Invariant: between two slices nothing of the run is in memory. In a slice, lines are written before ledger records are
deleted, requests are in the ledger before they are in the state, and the state is written last. So a slice that dies at
any moment leaves every request to the next attempt, and what that repeats has the same result.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.copying import copy_images
from airflow_provider_ideogram.datasets.manifest import manifest_lines
from airflow_provider_ideogram.datasets.outputs import write_outputs
from airflow_provider_ideogram.datasets.plan import plan_failed_items
from airflow_provider_ideogram.datasets.prefix_use import PrefixUse
from airflow_provider_ideogram.datasets.report import failure_of, log_progress, result_of, tell_charges
from airflow_provider_ideogram.datasets.rows import MANIFEST
from airflow_provider_ideogram.datasets.settling import Reports, settle
from airflow_provider_ideogram.datasets.slice import SliceContext, SliceProgress
from airflow_provider_ideogram.datasets.start import input_digest, plan_run
from airflow_provider_ideogram.datasets.state import FINAL_STATUSES, DatasetState
from airflow_provider_ideogram.datasets.submitting import submit
from airflow_provider_ideogram.datasets.waiting import Wait, next_wait, raise_if_stopped
from airflow_provider_ideogram.datasets.workspace import IN_LEDGER, STATE, PlanLost, Workspace, invalid_state
from airflow_provider_ideogram.exceptions import (
    IdeogramError,
    IdeogramJobUnreachable,
    IdeogramLedgerError,
    IdeogramStorageError,
)
from airflow_provider_ideogram.jobs.identity import attempt_group
from airflow_provider_ideogram.jobs.refusal import NOT_RECORDED, OpenRequest

if TYPE_CHECKING:
    from airflow_provider_ideogram.account.account import Account
    from airflow_provider_ideogram.account.turns import Turn
    from airflow_provider_ideogram.datasets.options import DatasetOptions
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger
    from airflow_provider_ideogram.storage.image_store import ImageStore
    from airflow_provider_ideogram.storage.target import Target

log = logging.getLogger(__name__)

#: Requests, downloads and uploads at once: enough to keep a core busy, with at most eight images in memory.
CONCURRENCY = 8


@dataclass(slots=True, kw_only=True)
class DatasetRunner:
    """
    Run the slices of one dataset task.

    :param options: The operator's arguments.
    :param hook: The API.
    :param store: The images in S3.
    :param ledger: The ledger of the images' bucket.
    :param account: Opens the rate limit and the budgets of the connection, None if it sets none.
    :param workspace: The run's own objects.
    :param output_prefix: The prefix of the images.
    :param owner: The task instance: ``dag_id/run_id/task_id/map_index``.
    :param max_tries: The task instance's, which changes on a clear.
    :param push_progress: Pushes the XCom ``progress``.
    :param is_at_work: Whether Airflow runs a task instance, which is named like ``owner``.
    """

    options: DatasetOptions
    hook: IdeogramHook
    store: ImageStore
    ledger: Ledger | NoLedger
    account: Callable[[], Account | None]
    workspace: Workspace
    output_prefix: Target
    owner: str
    max_tries: int
    push_progress: Callable[[dict[str, Any]], None]
    is_at_work: Callable[[str], bool]
    _state: DatasetState | None = field(default=None, init=False)
    _version: str | None = field(default=None, init=False)
    _is_slice_over: bool = field(default=False, init=False)

    @property
    def state(self) -> DatasetState:
        """The run's state, after :meth:`begin` or :meth:`resume`."""
        if self._state is None:
            raise RuntimeError("begin() or resume() comes first")
        return self._state

    @property
    def is_finished(self) -> bool:
        """Whether an earlier attempt finished the run."""
        return self.state.finished_at is not None

    @property
    def manifest_uri(self) -> str:
        """The address of the manifest."""
        return f"{self.output_prefix.uri}{MANIFEST}"

    @contextmanager
    def told_of_run(self) -> Iterator[None]:
        """Let each error of the task say what its run was charged, and not only what a single call was."""
        try:
            yield
        except IdeogramError as error:
            if state := self._state or self._left_state(error):
                tell_charges(error, state, is_durable=self.ledger.is_durable)
            raise

    def _left_state(self, error: IdeogramError) -> DatasetState | None:
        """Return the state of the run that an earlier attempt left, None without one or if S3 can't be read."""
        try:
            state = None if isinstance(error, IdeogramStorageError) else read_state(self.workspace)[0]
        except IdeogramStorageError:
            return None
        return state if state and not state.finished_at else None

    def begin(self) -> None:
        """
        Continue where an earlier attempt with the same input stopped, or plan the run.

        :raises IdeogramInvalidInput: If a row is not valid, the estimated cost is above ``max_cost_usd``, or another
            task of the DAG run has the prefix.
        :raises IdeogramTargetBusy: If a task of another DAG run is at work there.
        """
        self.store.find(self.output_prefix)  # checks the bucket and the upload's arguments
        self.ledger.check_store()
        digest = input_digest(self.options, self.output_prefix, self.store.objects)
        found, version = read_state(self.workspace)
        is_cleared = found is not None and self.max_tries != found.max_tries
        if found is not None and found.finished_at and not is_cleared and found.input_digest == digest:
            self._state = found
            return
        now = time.time()
        state = found or DatasetState.unplanned(now)
        if state.finished_at:  # a person has cleared the task, or the input changed: a new run
            state = replace(DatasetState.unplanned(now), slices=state.slices)
        state.begin_attempt(now)
        state.owner = self.owner
        state.add_attempt_group(attempt_group(self.owner, self.max_tries))
        self._claim(state, version)
        self._check_prefix()
        if state.input_digest != digest or not self._continue(is_cleared):
            self._check_open_requests(found, is_cleared)
            self._plan(digest)
        self.state.max_tries = self.max_tries

    def _check_prefix(self) -> None:
        """Look for other tasks at the prefix, after the own state shows them this one."""
        workspaces = Workspace.all_of(self.output_prefix, self.options.ledger_prefix)
        try:
            self._use.check_others(self.workspace, workspaces, self.is_at_work)
            self.state.replaced_manifest = self._use.manifest_version()
        except IdeogramError:
            self._give_up()
            raise

    def _give_up(self) -> None:
        """Remove the state of a run that has nothing to continue."""
        if not self.state.plan:
            self.workspace.clear()

    @property
    def _use(self) -> PrefixUse:
        return PrefixUse(self.store.objects, self.output_prefix, self.owner, self.max_tries)

    def _claim(self, state: DatasetState, version: str | None) -> None:
        """Begin a slice: of two that begin with the same state, one has the next number, and the other one fails."""
        state.slices += 1
        self._state, self._version = state, version
        self._write_state()

    def _write_state(self) -> None:
        self.state.written_at = time.time()
        self._version = self.workspace.write_state(self.state.to_json(), self._version)

    def _continue(self, is_cleared: bool) -> bool:
        """Continue an earlier attempt; return False if a part of its plan is missing."""
        state = self.state
        log.info("Continuing an earlier attempt: %d of %d items are done", state.done, state.total)
        # Blocked and rejected items are attempted again only after a person cleared the task.
        statuses = [ImageStatus.FAILED, ImageStatus.EXPIRED, *(FINAL_STATUSES if is_cleared else [])]
        # Without a ledger nothing reattaches to a request that may be charged: a person decides on a new one.
        left_out = state.unsettled_requests if not self.ledger.is_durable and not is_cleared else ()
        try:
            if state.failures:
                plan_failed_items(self.workspace, state, statuses, left_out)
                self._write_state()  # else lines of a slice that dies would contradict its counts
        except PlanLost as error:
            log.warning("%s. The run is planned again", error.reason)
            return False
        return True

    def _check_open_requests(self, found: DatasetState | None, is_cleared: bool) -> None:
        """
        Check that a new plan pays for no request again: without a ledger it does not find them.

        :param found: The state that the last attempt left.
        """
        if self.ledger.is_durable or is_cleared or found is None:
            return
        if found.in_flight or found.unsettled_requests:
            raise IdeogramJobUnreachable(
                "The input was changed, or a part of the run's plan is missing, while its requests may be charged",
                NOT_RECORDED.known,
                charged=found.charged,
            )

    def _plan(self, digest: str) -> None:
        try:
            self._state = plan_run(
                self.options,
                self.hook,
                self.store,
                self.workspace,
                self.output_prefix,
                digest,
                self.state,
                self.ledger,
                owns_manifest=self._use.has_own_manifest(),
            )
        except IdeogramError:
            self._give_up()
            raise
        self._write_state()
        self.workspace.delete_other_plans(self.state.plan)

    def resume(self) -> None:
        """Continue after a deferral; raise IdeogramLedgerError if the state of the last slice is missing."""
        self.ledger.check_store()  # before threads use the ledger
        state, version = read_state(self.workspace)
        if state is None:
            reason = f"The state of the run below {self.workspace.uri} was removed while the task waited"
            if not self.ledger.is_durable:  # a retry would pay again
                raise IdeogramJobUnreachable(reason, NOT_RECORDED.known)
            raise IdeogramLedgerError(reason, IN_LEDGER, charged=None)
        self._claim(state, version)

    def slice(self, reports: Reports, turn: Turn | None = None) -> Wait | None:
        """
        Store what is completed, submit what fits, and return what to wait for; None when every item is decided.

        :param reports: The trigger's reports.
        :param turn: The place of the last slice's wait.
        :raises IdeogramError: If a problem concerns all items; the state is written before.
        """
        context, progress = self._context(), SliceProgress(turn=turn)
        if self._is_slice_over:  # a waiting worker runs several slices
            self._claim(self.state, self._version)
        with self._ended_without_ledger(progress):
            errors = self._run_steps(context, progress, reports)
            for line in progress.summary():
                log.warning("%s", line)
            self._write_state()
        self._is_slice_over = True
        if errors:
            raise errors[0]
        raise_if_stopped(context)
        wait = next_wait(context, progress)
        if wait is not None:
            self._show_progress()
        return wait

    @contextmanager
    def _ended_without_ledger(self, progress: SliceProgress) -> Iterator[None]:
        """End the task without a retry if only this slice knows of its submits, and a retry would pay again."""
        try:
            yield
        except IdeogramError as error:
            if self.ledger.is_durable or not progress.items_taken:
                raise
            raise IdeogramJobUnreachable(error.reason, NOT_RECORDED.known) from error

    def _run_steps(self, context: SliceContext, progress: SliceProgress, reports: Reports) -> list[IdeogramError]:
        """Return the errors that concern all items."""
        try:
            with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="ideogram") as pool:
                errors = settle(context, progress, pool, reports)
                if not errors and not self.state.is_failing:
                    errors = submit(context, progress, pool)
                return errors or copy_images(context, pool)
        except PlanLost as lost:
            self.state.input_digest = ""  # the next attempt plans again, and finds the images
            return [lost]

    def open_requests(self, *, is_first_slice: bool) -> OpenRequest | None:
        """
        Return what is known of the requests that may be charged, None if there is certainly none.

        :param is_first_slice: Whether no earlier attempt or slice of the task can have submitted.
        """
        state = self._state
        if is_first_slice:
            return OpenRequest(IN_LEDGER) if state and (state.in_flight or state.unsettled_requests) else None
        try:
            state = state or read_state(self.workspace)[0]
        except IdeogramStorageError:
            return OpenRequest(IN_LEDGER)
        return OpenRequest(IN_LEDGER) if state and state.plan and not state.finished_at else None

    def finish(self) -> dict[str, Any]:
        """
        Write the manifest, delete the workspace, and return the result.

        :raises IdeogramDatasetFailed: If more items than allowed have no image; the workspace stays then.
        :raises IdeogramTargetBusy: If another task has written the manifest since this attempt began.
        :raises IdeogramLedgerError: If a part of the lines was removed.
        """
        state, options = self.state, self.options
        try:
            with manifest_lines(self.workspace, state.total, state.plan) as lines:
                self._write_files(lines)
        except PlanLost:
            state.input_digest = ""  # the next attempt plans again, and finds the images
            self._write_state()
            raise
        self._show_progress(manifest_uri=self.manifest_uri)
        limit = options.max_failures
        if state.failures > (limit * state.total if 0 < limit < 1 else limit):
            raise failure_of(state, limit, self.manifest_uri)
        state.finished_at = time.time()
        self._write_state()
        self.workspace.tidy_up(keep_state=options.if_exists != "reuse")  # with reuse, a later attempt finds all images
        return self.result()

    def _write_files(self, lines: IO[bytes]) -> None:
        """Write the manifest, and then the files beside it."""
        arguments = {name: value for name, value in self.options.s3_extra_args.items() if name != "Metadata"}
        content_type = {"ContentType": "application/x-ndjson"}
        self._use.write_manifest(lines, self.state.replaced_manifest, arguments | content_type)
        write_outputs(self.options.outputs, lines, self._use, self.output_prefix, arguments)

    def result(self) -> dict[str, Any]:
        """Return the task's XCom."""
        return result_of(self.state, self.manifest_uri)

    def _context(self) -> SliceContext:
        self.hook.get_conn()  # on the task's main thread: Airflow reads connections there only
        return SliceContext(
            options=self.options,
            hook=self.hook,
            store=self.store,
            ledger=self.ledger,
            account=self.account(),
            workspace=self.workspace,
            output_prefix=self.output_prefix,
            state=self.state,
            owner=self.owner,
            max_tries=self.max_tries,
            save_state=self._write_state,
        )

    def _show_progress(self, **more: Any) -> None:
        self.push_progress({**log_progress(self.state), "parts": f"{self.workspace.uri}part-", **more})


def read_state(workspace: Workspace) -> tuple[DatasetState | None, str | None]:
    """
    Return the state of the last slice and its version, None without one.

    :raises IdeogramInvalidRecord: If it has another form.
    """
    saved, version = workspace.read_state()
    try:
        return None if saved is None else DatasetState.from_json(saved), version
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise invalid_state(f"{workspace.uri}{STATE}", problem) from problem
