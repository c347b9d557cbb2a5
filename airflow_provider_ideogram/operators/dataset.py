"""
The operator that makes a whole dataset of images.

Invariant: it holds a worker for slices of work only; between them nothing of the run is in memory, and each slice
can be the last of its process.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.api.parameters import CHECKS
from airflow_provider_ideogram.datasets.key_template import check_key_template
from airflow_provider_ideogram.exceptions import (
    IdeogramDatasetFailed,
    IdeogramDatasetStopped,
    IdeogramInvalidInput,
    IdeogramLedgerError,
)
from airflow_provider_ideogram.jobs.identity import owner_id
from airflow_provider_ideogram.operators.base import IdeogramBaseOperator
from airflow_provider_ideogram.operators.failures import airflow_failures
from airflow_provider_ideogram.operators.templates import is_literal
from airflow_provider_ideogram.storage.target import Target, check_key

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_ideogram.datasets.runner import DatasetRun, Wait
    from airflow_provider_ideogram.datasets.state import DatasetState
    from airflow_provider_ideogram.datasets.workspace import Workspace
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.triggers.request import IdeogramTrigger

_DEFAULTS = tuple(name for name in CHECKS if name != "prompt")
#: Failed items that an error lists.
_LISTED_FAILURES = 20


class IdeogramGenerateDatasetOperator(IdeogramBaseOperator):
    """
    Make an image of each row of a prompt dataset and store them in S3. Each image costs 0.05 USD.

    Every row is checked before anything is paid. Finished images of the same inputs are reused, whatever run made
    them. Writes ``<s3_prefix>/manifest.jsonl`` with a line a row and returns ``manifest_uri``, ``total``,
    the counts by status, ``cost_usd`` and ``seconds``; the XCom ``progress`` has the
    same counts while the task runs.

    The parameters that are not listed are those of
    :class:`~airflow_provider_ideogram.operators.image.IdeogramGenerateImageOperator`; those of the request are the
    rows' defaults.

    :param prompts: The rows: prompts, or mappings with ``prompt``, an optional ``id`` and any parameter of a
        request. Also another task's output.
    :param prompts_path: A file with the rows instead: ``s3://…`` or a path on the worker, ending in ``.jsonl``,
        ``.csv`` (both also with ``.gz``) or ``.parquet``.
    :param s3_prefix: Where the images go, ``s3://bucket/prefix``.
    :param key_template: An image's key below that, with ``{id}`` and ``{row}``.
    :param max_in_flight: Jobs at the vendor at once.
    :param requests_per_minute: The account's rate limit; None takes the connection's, 0 means unknown.
    :param max_failures: Items that may fail or be blocked without failing the task: a number, or a share below 1.
    :param max_cost_usd: What the task may spend by the vendor's list price; it fails before it spends more.
    :param dedupe: Make rows with identical inputs once, and copy the image for the others.
    """

    _result: Mapping[str, Any] | None = None

    template_fields: Sequence[str] = ("prompts", "prompts_path", "s3_prefix", *IdeogramBaseOperator.template_fields)

    def __init__(
        self,
        *,
        prompts: Any = None,
        prompts_path: str | None = None,
        s3_prefix: str,
        key_template: str = "{id}",
        max_in_flight: int = 50,
        requests_per_minute: float | None = None,
        max_failures: float = 0,
        max_cost_usd: float | None = None,
        dedupe: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prompts = prompts
        self.prompts_path = prompts_path
        self.s3_prefix = s3_prefix
        self.key_template = key_template
        self.max_in_flight = max_in_flight
        self.requests_per_minute = requests_per_minute
        self.max_failures = max_failures
        self.max_cost_usd = max_cost_usd
        self.dedupe = dedupe
        self._check_arguments()

    def _problems(self) -> list[str]:
        problems = super()._problems()
        if (self.prompts is None) == (self.prompts_path is None):
            problems.append("prompts, prompts_path: give one of them")
        if isinstance(self.prompts, str) and is_literal(self.prompts):
            problems.append("prompts: must be a list of rows, not one text; a file is given as prompts_path")
        if is_literal(self.s3_prefix):
            problems += check_key(self.s3_prefix, with_bucket=False)
        problems += [f"{name}: {getattr(self, name)!r} is not {valid}" for name, valid in self._bad_numbers()]
        return problems + check_key_template(self.key_template)

    def _bad_numbers(self) -> Iterator[tuple[str, str]]:
        valid = {
            "max_in_flight": (1, "a whole number from 1 up"),
            "requests_per_minute": (0, "a number from 0 up"),
            "max_failures": (0, "a number from 0 up"),
            "max_cost_usd": (0, "an amount from 0 up"),
        }
        for name, (least, words) in valid.items():
            value = getattr(self, name)
            if value is None and name in ("requests_per_minute", "max_cost_usd"):
                continue
            kinds = int if name == "max_in_flight" else int | float
            number = isinstance(value, kinds) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < least:
                yield name, words

    def execute(self, context: Context) -> dict[str, Any]:
        """Read and check the dataset, or take up where an earlier attempt stopped, and work through it."""
        from airflow_provider_ideogram.datasets.workspace import Workspace

        with airflow_failures(context["ti"], durable=self.durable), self._hook() as hook:
            self._check_rendered()
            output_prefix = _prefix(self.s3_prefix)
            workspace = Workspace.of(self._store.client, output_prefix, self.ledger_prefix, owner_id(context["ti"]))
            state = self._state(context, hook, workspace, output_prefix)
            return self._work(context, hook, workspace, output_prefix, state, {})

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Resume after the trigger fired: the next slice."""
        from airflow_provider_ideogram.datasets.workspace import Workspace

        with airflow_failures(context["ti"], durable=self.durable), self._hook() as hook:
            output_prefix = Target(event["payload"]["bucket"], event["payload"]["prefix"])
            workspace = Workspace(self._store.client, output_prefix.bucket, event["payload"]["workspace"])
            state = _saved_state(workspace)
            if state is None:
                raise _state_lost(workspace)
            return self._work(context, hook, workspace, output_prefix, state, _reports(event))

    def _state(self, context: Context, hook: IdeogramHook, workspace: Workspace, output_prefix: Target) -> DatasetState:
        """Return where an earlier attempt at the same input stopped, or else the beginning."""
        source, max_tries = self._source(), context["ti"].max_tries
        state = _saved_state(workspace)
        cleared = state is not None and max_tries != state.max_tries
        if state is None or state.source != source or (state.finished_at and cleared):
            state = self._plan(hook, workspace, output_prefix, source)
        else:
            self.log.info("Taking up where an earlier attempt stopped: %d of %d items", state.done, state.total)
            self._plan_again(workspace, state, blocked=cleared)
        state.max_tries = max_tries
        return state

    def _plan_again(self, workspace: Workspace, state: DatasetState, *, blocked: bool) -> None:
        """Attempt what failed once more, and what was blocked if a person asks for it."""
        from airflow_provider_ideogram.api.status import ImageStatus
        from airflow_provider_ideogram.datasets.plan import plan_again

        if not state.finished_at and state.failures:
            plan_again(
                workspace, state, [ImageStatus.FAILED, ImageStatus.CONTENT_BLOCKED] if blocked else [ImageStatus.FAILED]
            )

    def _plan(self, hook: IdeogramHook, workspace: Workspace, output_prefix: Target, source: str) -> DatasetState:
        from contextlib import closing

        from airflow_provider_ideogram import metrics
        from airflow_provider_ideogram.api.prices import list_price
        from airflow_provider_ideogram.api.rate_limiter import RateLimiter
        from airflow_provider_ideogram.api.status import ImageStatus
        from airflow_provider_ideogram.datasets.manifest import EarlierImages
        from airflow_provider_ideogram.datasets.plan import make_plan
        from airflow_provider_ideogram.datasets.rows import RowChecker
        from airflow_provider_ideogram.datasets.state import DatasetState

        self._store.find(output_prefix)  # that is, whether the bucket is there and the upload's arguments are valid
        checker = RowChecker(
            {name: getattr(self, name) for name in _DEFAULTS}, output_prefix, self.key_template, dedupe=self.dedupe
        )
        workspaces = workspace.all_of(output_prefix, self.ledger_prefix)
        with closing(EarlierImages(self._store.client, output_prefix, workspaces)) as earlier:
            plan = make_plan(self._rows(), checker, earlier, workspace, self.if_exists)
        price = list_price(self.model)
        self._check_cost(plan.to_do, price)
        cost = "at an unknown price" if price is None else f"for up to {plan.to_do * price:.2f} USD"
        self.log.info("%d items: %d are there already, %d to be made %s", plan.total, plan.reused, plan.to_do, cost)
        limit = self.requests_per_minute
        now = time.time()
        state = DatasetState(
            source=source,
            total=plan.total,
            chunks=plan.chunks,
            copies=plan.copies,
            parts=plan.parts,
            started_at=now,
            rate_limiter=RateLimiter.of_limit(hook.settings.requests_per_minute if limit is None else limit, now),
        )
        state.counts[ImageStatus.REUSED] = plan.reused
        metrics.reused(plan.reused)
        return state

    def _check_cost(self, count: int, price: float | None) -> None:
        if self.max_cost_usd is None:
            return
        if price is None:
            raise IdeogramInvalidInput.of([f"max_cost_usd: nobody knows what an image of {self.model!r} costs"])
        cost = count * price
        if cost > self.max_cost_usd + 1e-9:
            may = f"and {self.max_cost_usd:.2f} may be spent"
            raise IdeogramInvalidInput.of([f"max_cost_usd: {count} images would cost {cost:.2f} USD, {may}"])

    def _rows(self) -> Iterator[tuple[str, Any]]:
        from airflow_provider_ideogram.datasets.rows import read_rows

        if self.prompts_path is not None:
            return read_rows(self.prompts_path, self._store.client)
        if isinstance(self.prompts, str | Mapping):
            raise IdeogramInvalidInput.of([f"prompts: must be a list of rows, not {type(self.prompts).__name__}"])
        return ((f"item {number}", row) for number, row in enumerate(self.prompts))

    def _source(self) -> str:
        """Return a fingerprint of the input and of everything that decides what is made of it."""
        from airflow_provider_ideogram.datasets.rows import version_of

        rows = version_of(self.prompts_path, self._store.client) if self.prompts_path else list(self.prompts or ())
        decides = [rows, self.s3_prefix, self.key_template, self.if_exists, self.dedupe]
        decides += [getattr(self, name) for name in _DEFAULTS]
        return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()

    def _work(
        self,
        context: Context,
        hook: IdeogramHook,
        workspace: Workspace,
        output_prefix: Target,
        state: DatasetState,
        reports: Mapping[str, Mapping[str, Any]],
    ) -> dict[str, Any]:
        """Do slices until all items are decided; between them defer, or wait here if that was asked for."""
        if state.finished_at:
            return self._succeed(context, output_prefix, state)
        while (wait := self._run(context, hook, workspace, output_prefix, state).slice(reports)) is not None:
            self._show_progress(context, workspace, state)
            trigger = self._trigger(wait, workspace, output_prefix)
            if self.deferrable:
                self._defer_to(trigger, "execute_complete")
            reports = _reports(asyncio.run(_first_event(trigger)))
        return self._finish(context, workspace, output_prefix, state)

    def _run(
        self, context: Context, hook: IdeogramHook, workspace: Workspace, output_prefix: Target, state: DatasetState
    ) -> DatasetRun:
        from airflow_provider_ideogram.api.prices import list_price
        from airflow_provider_ideogram.datasets.runner import DatasetRun

        hook.get_conn()  # here, since connections are looked up on the task's main thread only
        return DatasetRun(
            hook=hook,
            store=self._store,
            ledger=self._ledger(output_prefix),
            workspace=workspace,
            state=state,
            output_prefix=output_prefix,
            owner=owner_id(context["ti"]),
            max_tries=context["ti"].max_tries,
            if_exists=self.if_exists,
            resubmit=self.on_unknown_submit == "resubmit",
            timeout=self.timeout,
            max_in_flight=self.max_in_flight,
            max_cost_usd=self.max_cost_usd,
            price_usd=list_price(self.model),
        )

    def _trigger(self, wait: Wait, workspace: Workspace, output_prefix: Target) -> IdeogramTrigger:
        from airflow_provider_ideogram.triggers.request import IdeogramTrigger

        return IdeogramTrigger(
            requests=wait.requests,
            not_before=wait.not_before,
            deadline=wait.deadline,
            ideogram_conn_id=self.ideogram_conn_id,
            poll_interval=self.poll_interval,
            model=self.model,
            min_settled=wait.min_settled,
            payload={"workspace": workspace.prefix, "bucket": output_prefix.bucket, "prefix": output_prefix.key},
        )

    def _show_progress(
        self, context: Context, workspace: Workspace, state: DatasetState, manifest_uri: str | None = None
    ) -> None:
        """
        Say where the run stands: a line in the log, and the same numbers as the XCom ``progress``.

        :param manifest_uri: The manifest, once it is written.
        """
        minutes = max(time.time() - state.started_at, 1.0) / 60
        made = state.done - state.counts["reused"]
        pace = made / minutes
        left = (state.total - state.done) / pace * 60 if pace else None
        progress = {
            "total": state.total,
            "done": state.done,
            **state.counts,
            "in_flight": len(state.in_flight),
            "cost_usd": round(state.cost_usd, 4),
            "images_per_minute": round(pace, 1),
            "seconds_left": None if left is None else round(left),
            "slices": state.slices,
            "parts": f"{workspace.uri}part-",
            **({"manifest_uri": manifest_uri} if manifest_uri else {}),
        }
        self.log.info(
            "%d of %d items, %d in flight, %.1f images a minute, %.2f USD spent, %s left",
            state.done,
            state.total,
            len(state.in_flight),
            pace,
            state.cost_usd,
            "unknown time" if left is None else f"{left:.0f} s",
        )
        context["ti"].xcom_push(key="progress", value=progress)

    def _finish(
        self, context: Context, workspace: Workspace, output_prefix: Target, state: DatasetState
    ) -> dict[str, Any]:
        """Write the manifest, and return or raise what came of it all."""
        from airflow_provider_ideogram.datasets.manifest import write_manifest
        from airflow_provider_ideogram.datasets.workspace import STATE

        try:
            write_manifest(
                workspace, output_prefix, state.total, state.parts, self._store.client, self.s3_extra_args or {}
            )
        except IdeogramLedgerError:
            workspace.clear()
            raise
        self._show_progress(context, workspace, state, _manifest_uri(output_prefix))
        allowed = self.max_failures * state.total if 0 < self.max_failures < 1 else self.max_failures
        if state.failures > allowed:
            raise self._failure(output_prefix, state)
        if self.if_exists == "reuse":
            workspace.clear()  # a later attempt finds all images
        else:
            state.finished_at = time.time()
            workspace.write(STATE, state.to_json())
            workspace.clear(keep_state=True)
        return self._succeed(context, output_prefix, state)

    def _succeed(self, context: Context, output_prefix: Target, state: DatasetState) -> dict[str, Any]:
        result: dict[str, Any] = {
            "manifest_uri": _manifest_uri(output_prefix),
            "total": state.total,
            **state.counts,
            "cost_usd": round(state.cost_usd, 4),
            "seconds": round((state.finished_at or time.time()) - state.started_at, 1),
        }
        self._result = result
        self._add_asset_events(context, result, result["manifest_uri"])
        return result

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """Return the prompts as input, the images and the manifest as outputs; the openlineage provider calls it."""
        from airflow_provider_ideogram.operators.openlineage import lineage_of_dataset

        return lineage_of_dataset(self.prompts_path, self._result)

    def _failure(self, output_prefix: Target, state: DatasetState) -> IdeogramDatasetFailed:
        """Return the error of a run with too many failures; its workspace stays for the next attempt."""
        only_blocked = state.failures == state.counts["content_blocked"]
        kind = IdeogramDatasetStopped if only_blocked else IdeogramDatasetFailed
        what_next = "A retry would be refused alike" if only_blocked else "A retry attempts only those that failed"
        return kind(
            f"{state.failures} of {state.total} items have no image, and max_failures is {self.max_failures}. "
            f"{state.cost_usd:.2f} USD were charged. {what_next}. "
            f"{_manifest_uri(output_prefix)} tells all; the first:\n"
            f"{_failures(state)}"
        )


def _failures(state: DatasetState) -> str:
    return "\n".join(f"  - {example}" for example in state.examples[:_LISTED_FAILURES])


def _prefix(s3_prefix: str) -> Target:
    return Target.parse(s3_prefix if s3_prefix.endswith("/") else f"{s3_prefix}/")


def _manifest_uri(output_prefix: Target) -> str:
    from airflow_provider_ideogram.datasets.rows import MANIFEST

    return f"{output_prefix.uri}{MANIFEST}"


def _saved_state(workspace: Workspace) -> DatasetState | None:
    """Return where the run stands, None if nothing says so; raise IdeogramLedgerError if it can't be understood."""
    from airflow_provider_ideogram.datasets.state import DatasetState
    from airflow_provider_ideogram.datasets.workspace import STATE

    saved = workspace.read(STATE)
    try:
        return None if saved is None else DatasetState.from_json(saved)
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise IdeogramLedgerError(
            f"{workspace.uri}{STATE} can't be understood ({problem!r}). Remove it: the ledger knows the jobs that are "
            "running and paid, and a retry takes them up."
        ) from problem


def _state_lost(workspace: Workspace) -> IdeogramLedgerError:
    return IdeogramLedgerError(
        f"What {workspace.uri} says of the run was removed while the task waited. Jobs may be running and paid; the "
        "ledger knows them, and a retry takes them up."
    )


def _reports(event: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    if event["error"]:
        raise IdeogramDatasetFailed(
            f"Waiting for {len(event['requests'])} jobs ended with an error: {event['error']}. They are running and "
            "paid, and the next attempt takes them up."
        )
    reports: Mapping[str, Mapping[str, Any]] = event["requests"]
    return reports


async def _first_event(trigger: IdeogramTrigger) -> Mapping[str, Any]:
    event = await anext(trigger.run())
    payload: Mapping[str, Any] = event.payload
    return payload
