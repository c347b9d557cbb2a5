"""
The operator that generates a dataset of images.

Invariant: it uses a worker for slices of work only. Between slices nothing of the run is only in memory.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow_provider_ideogram.api.values import number, path_text, whole_number
from airflow_provider_ideogram.datasets.expansion import check_expansion
from airflow_provider_ideogram.datasets.gates import check_gates, unusable_gates
from airflow_provider_ideogram.datasets.key_template import check_key_template
from airflow_provider_ideogram.datasets.outputs import check_outputs, missing_packages
from airflow_provider_ideogram.datasets.passed_rows import check_passed_rows
from airflow_provider_ideogram.datasets.prompt_template import check_prompt_template
from airflow_provider_ideogram.datasets.row_files import check_rows_path
from airflow_provider_ideogram.exceptions import IdeogramDatasetFailed
from airflow_provider_ideogram.jobs.identity import owner_id
from airflow_provider_ideogram.operators.base import IdeogramBaseOperator, check_number, problem_of, read_if_valid
from airflow_provider_ideogram.operators.failures import airflow_failures, deferral_ended
from airflow_provider_ideogram.operators.task_states import is_at_work
from airflow_provider_ideogram.storage.target import Target, check_key

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_ideogram.datasets.options import DatasetOptions
    from airflow_provider_ideogram.datasets.runner import DatasetRunner
    from airflow_provider_ideogram.datasets.waiting import Wait
    from airflow_provider_ideogram.datasets.workspace import Workspace
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.jobs.preview import PlannedImages, Preview
    from airflow_provider_ideogram.triggers.request import IdeogramTrigger


#: The numbers among the arguments: their type, the least one, and what they are.
_NUMBERS: dict[str, tuple[type | UnionType, int, str]] = {
    "max_in_flight": (int, 1, "a whole number from 1 up"),
    "requests_per_minute": (int | float, 0, "a number from 0 up"),
    "max_failures": (int | float, 0, "a number from 0 up"),
    "max_cost_usd": (int | float, 0, "an amount from 0 up"),
    "price_usd": (int | float, 0, "an amount from 0 up"),
}
_OPTIONAL_NUMBERS = ("requests_per_minute", "max_cost_usd", "price_usd")


class IdeogramGenerateDatasetOperator(IdeogramBaseOperator):
    """
    Generate an image for each row of a prompt dataset and store them in S3. An image costs about 0.05 USD.

    Every row is checked before the first submit. Stored images of the same inputs are reused, whichever run generated
    them. Writes ``<s3_prefix>/manifest.jsonl`` with a line a row. Returns ``manifest_uri``, ``total``, the counts by
    status, ``cost_usd`` (what the vendor charged for this run, all attempts included), ``original_cost_usd`` (what it
    charged for all images when they were generated), ``cost_is_estimate`` and ``seconds``. The XCom ``progress`` has
    the counts and costs while the task runs.

    The other parameters are those of
    :class:`~airflow_provider_ideogram.operators.image.IdeogramGenerateImageOperator`; those of the request are the
    rows' defaults.

    :param prompts: The rows: prompts, or mappings with ``prompt``, an optional ``id`` and any parameter of a
        request. A list, another task's output, or a table of pandas, polars, pyarrow or numpy.
    :param prompts_path: A file with the rows instead: ``s3://…`` or a path on the worker, ending in ``.jsonl``,
        ``.csv`` (both also with ``.gz``) or ``.parquet``.
    :param s3_prefix: Where the images go, ``s3://bucket/prefix``.
    :param key_template: An image's key below that, with ``{id}`` and ``{row}``.
    :param prompt_template: Makes the prompts from the rows' columns: ``"A {product}, {price:.2f} EUR"``. It has
        names of columns with Python's format specifications, and is not a Jinja template.
    :param variants: Images of each row, with distinct seeds and the ids ``<id>-1``, ``<id>-2`` and so on. A variant has
        the same seed in each run. None is one image with the row's own id and seed.
    :param matrix: Values of request parameters, such as ``{"style_type": ["DESIGN", "REALISTIC"]}``: each row is made
        with each combination, and the id says which. A parameter that the row gives itself has the row's value only.
    :param max_in_flight: Requests at the vendor at once.
    :param requests_per_minute: A rate limit of this run; None takes the connection's, 0 means unknown. Where the
        connection's tasks share one, it bounds the run further.
    :param max_failures: Items that may fail or be blocked without failing the task: a number, or a share below 1.
    :param max_cost_usd: What the task may spend in USD, all attempts included; it stops before it spends more.
        Completed images count with their true cost, running ones with the estimate, failed ones not at all.
    :param price_usd: The estimated cost of an image in USD, until a completed image of the model shows its true cost;
        None takes the vendor's list price. Without either, one image is generated first.
    :param allow_empty: Whether a dataset without rows is a success.
    :param gates: Checks of each image, ``blank`` or the import path of a function of the decoded image and its item,
        and what follows when it is rejected: ``{"blank": "redo", "my_checks.is_sharp": "fail"}``.
    :param max_attempts: Images of an item at most, where a rejected one is redone.
    :param outputs: Files beside the manifest: ``parquet`` (``manifest.parquet``, by the extra ``parquet``) and
        ``imagefolder`` (``metadata.jsonl``, with which Hugging Face's ``datasets`` opens a copy of the prefix).
    :param dedupe: Generate rows with identical inputs once, and copy the image for the others.
    """

    _result: Mapping[str, Any] | None = None

    flags: ClassVar[Sequence[str]] = (*IdeogramBaseOperator.flags, "dedupe", "allow_empty")
    template_fields: Sequence[str] = (
        "prompts",
        "prompts_path",
        "s3_prefix",
        "matrix",
        *IdeogramBaseOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **IdeogramBaseOperator.template_fields_renderers,
        "matrix": "json",
    }

    def __init__(
        self,
        *,
        prompts: Any = None,
        prompts_path: str | os.PathLike[str] | ObjectStoragePath | None = None,
        s3_prefix: str | os.PathLike[str] | ObjectStoragePath,
        key_template: str = "{id}",
        prompt_template: str | None = None,
        variants: int | None = None,
        matrix: Mapping[str, Sequence[Any]] | None = None,
        max_in_flight: int = 50,
        requests_per_minute: float | None = None,
        max_failures: float = 0,
        max_cost_usd: float | None = None,
        price_usd: float | None = None,
        dedupe: bool = False,
        allow_empty: bool = False,
        gates: Mapping[str, str] | None = None,
        max_attempts: int = 3,
        outputs: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prompts = prompts
        self.prompts_path = self._path(prompts_path)
        self.s3_prefix = self._path(s3_prefix)
        self.key_template = key_template
        self.prompt_template = prompt_template
        self.variants = None if variants is None else read_if_valid(whole_number, variants)
        self.matrix = matrix
        self.max_in_flight = read_if_valid(whole_number, max_in_flight)
        self.requests_per_minute = read_if_valid(number, requests_per_minute)
        self.max_failures = read_if_valid(number, max_failures)
        self.max_cost_usd = read_if_valid(number, max_cost_usd)
        self.price_usd = read_if_valid(number, price_usd)
        self.dedupe = dedupe
        self.allow_empty = allow_empty
        self.gates = gates
        self.max_attempts = read_if_valid(whole_number, max_attempts)
        self.outputs = outputs
        self._check_arguments()

    def _problems(self, is_final: Callable[[Any], bool]) -> list[str]:
        problems = super()._problems(is_final)
        if (self.prompts is None) == (self.prompts_path is None):
            count = "neither is" if self.prompts is None else "both are"
            problems.append(f"prompts, prompts_path: give one of them; {count} given")
        is_template = isinstance(self.prompts, str) and not is_final(self.prompts)
        is_reference = hasattr(self.prompts, "iter_references")  # such as another task's output
        if self.prompts is not None and not is_template and not is_reference:
            problems += problem_of("prompts", check_passed_rows, self.prompts)
        if self.prompts_path is not None and is_final(self.prompts_path):
            problems += check_rows_path(self.prompts_path)
        if is_final(self.s3_prefix):
            problems += check_key(self.s3_prefix, with_bucket=False, name="s3_prefix")
        for name, valid in _NUMBERS.items():
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL_NUMBERS:
                problems += problem_of(name, check_number, value, *valid)
        if self.prompt_template is not None:
            problems += check_prompt_template(self.prompt_template)
        problems += check_expansion(self.variants, self.matrix if is_final(self.matrix) else None)
        problems += check_gates({} if self.gates is None else self.gates, self.max_attempts)
        problems += check_outputs(self.outputs, self.key_template)
        return problems + check_key_template(self.key_template, needs_id=self.variants is not None or bool(self.matrix))

    def _check_rendered(self) -> None:
        super()._check_rendered()
        self._raise_for([*missing_packages(self.outputs), *unusable_gates(self.gates or {})])

    def _path(self, path: Any) -> Any:
        """Return a path as text, without the connection of an ObjectStoragePath if it is that of the operator."""
        text = path_text(path)
        own = f"s3://{self.aws_conn_id}@"
        return f"s3://{text.removeprefix(own)}" if isinstance(text, str) and text.startswith(own) else text

    def execute(self, context: Context) -> dict[str, Any]:
        """Plan the run, or continue that of an earlier attempt, and work on it."""
        from airflow_provider_ideogram.datasets.workspace import Workspace
        from airflow_provider_ideogram.jobs.refusal import OF_CONNECTIONS, retried_while_open

        is_first_slice = context["ti"].try_number <= 1
        with airflow_failures(context["ti"], durable=self.durable), self._hook() as hook:
            self._check_rendered()
            prefix = self._prefix
            workspace = Workspace.of(self._store.objects, prefix, self.ledger_prefix, owner_id(context["ti"]))
            runner = self._runner(context, hook, workspace, prefix)
            find_open = partial(runner.open_requests, is_first_slice=is_first_slice)
            with retried_while_open(find_open, OF_CONNECTIONS), runner.told_of_run():
                runner.begin()
                return self._run(context, runner, {})

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Resume after the trigger fired: run the next slice."""
        from airflow_provider_ideogram.datasets.workspace import Workspace
        from airflow_provider_ideogram.jobs.refusal import OF_CONNECTIONS, retried_while_open

        with airflow_failures(context["ti"], durable=self.durable), self._hook() as hook:
            payload = event["payload"]
            prefix = Target(payload["bucket"], payload["prefix"])
            workspace = Workspace(self._store.objects, payload["bucket"], payload["workspace"])
            runner = self._runner(context, hook, workspace, prefix)
            find_open = partial(runner.open_requests, is_first_slice=False)
            with retried_while_open(find_open, OF_CONNECTIONS), runner.told_of_run():
                runner.resume()
                return self._run(context, runner, _reports(event), payload.get("turn"))

    def planned_images(self, preview: Preview, owner: str) -> Iterable[PlannedImages]:
        """Return the images of the rows, summed up."""
        from airflow_provider_ideogram.datasets.preview import preview_run

        self._check_rendered()
        return preview_run(self._options(), preview, self._prefix, owner, durable=self.durable)

    @property
    def ledger_url(self) -> str:
        """The address below which the ledger's records are."""
        return f"s3://{self._prefix.bucket}/{self.ledger_prefix}"

    @property
    def _prefix(self) -> Target:
        return Target.parse(self.s3_prefix if self.s3_prefix.endswith("/") else f"{self.s3_prefix}/")

    def on_kill(self) -> None:
        """Log that the requests continue: the API has no cancel call."""
        from airflow_provider_ideogram.datasets.workspace import IN_LEDGER

        self.log.warning("The task is ended. %s", IN_LEDGER)

    def _on_deferral_ended(self, context: Context, why: str) -> NoReturn:
        from airflow_provider_ideogram.datasets.workspace import IN_LEDGER
        from airflow_provider_ideogram.jobs.refusal import OpenRequest

        with airflow_failures(context["ti"], durable=self.durable):
            raise deferral_ended(why, OpenRequest(IN_LEDGER), IdeogramDatasetFailed)

    def _run(
        self,
        context: Context,
        runner: DatasetRunner,
        reports: Mapping[str, Mapping[str, Any]],
        turn: Sequence[Any] | None = None,
    ) -> dict[str, Any]:
        """Run slices until all items are decided; between them defer, or wait here with ``deferrable=False``."""
        from airflow_provider_ideogram.account.turns import Turn

        if runner.is_finished:
            return self._succeed(context, runner.result())
        while (wait := runner.slice(reports, Turn.from_json(turn))) is not None:
            trigger = self._trigger(wait, runner)
            if self.deferrable:
                self._defer_to(trigger, "execute_complete")
            event = asyncio.run(_first_event(trigger))
            reports, turn = _reports(event), event["payload"].get("turn")
        return self._succeed(context, runner.finish())

    def _succeed(self, context: Context, result: dict[str, Any]) -> dict[str, Any]:
        self._result = result
        self._add_asset_events(context, result, result["manifest_uri"])
        return result

    def _runner(self, context: Context, hook: IdeogramHook, workspace: Workspace, prefix: Target) -> DatasetRunner:
        from airflow_provider_ideogram.datasets.runner import DatasetRunner

        ti = context["ti"]
        return DatasetRunner(
            options=self._options(),
            hook=hook,
            store=self._store,
            ledger=self._ledger(prefix),
            account=lambda: self._account(context, hook, prefix.bucket),
            workspace=workspace,
            output_prefix=prefix,
            owner=owner_id(ti),
            max_tries=ti.max_tries,
            push_progress=lambda progress: ti.xcom_push(key="progress", value=progress),
            is_at_work=lambda owner: is_at_work(ti, owner),
        )

    def _options(self) -> DatasetOptions:
        from airflow_provider_ideogram.datasets.options import DEFAULTS, DatasetOptions

        return DatasetOptions(
            prompts=self.prompts,
            prompts_path=self.prompts_path,
            key_template=self.key_template,
            prompt_template=self.prompt_template,
            variants=self.variants,
            matrix=self.matrix,
            defaults={name: getattr(self, name) for name in DEFAULTS},
            max_in_flight=self.max_in_flight,
            requests_per_minute=self.requests_per_minute,
            max_failures=self.max_failures,
            outputs=self.outputs,
            gates=self.gates or {},
            max_attempts=self.max_attempts,
            max_cost_usd=self.max_cost_usd,
            price_usd=self.price_usd,
            dedupe=self.dedupe,
            allow_empty=self.allow_empty,
            if_exists=self.if_exists,
            resubmit=self.on_unknown_submit == "resubmit",
            resubmit_on_5xx=self.resubmit_on_5xx,
            waits_for_budget=self.on_budget == "wait",
            timeout=self.timeout,
            ledger_prefix=self.ledger_prefix,
            s3_extra_args=self.s3_extra_args or {},
        )

    def _trigger(self, wait: Wait, runner: DatasetRunner) -> IdeogramTrigger:
        from airflow_provider_ideogram.account.trigger import IdeogramRequestsOrTurnTrigger
        from airflow_provider_ideogram.triggers.request import IdeogramTrigger

        prefix = runner.output_prefix
        payload = {"workspace": runner.workspace.prefix, "bucket": prefix.bucket, "prefix": prefix.key}
        arguments: dict[str, Any] = {
            "requests": wait.requests,
            "not_before": wait.not_before,
            "deadline": wait.deadline,
            "ideogram_conn_id": self.ideogram_conn_id,
            "poll_interval": self.poll_interval,
            "model": self.model,
            "min_settled": wait.min_settled,
        }
        if wait.turn is None:
            return IdeogramTrigger(**arguments, payload=payload)
        turn = wait.turn.to_json()
        return IdeogramRequestsOrTurnTrigger(
            **arguments, turn=turn, aws_conn_id=self.aws_conn_id, payload={**payload, "turn": turn}
        )

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """Return the prompts as input, images and manifest as outputs; called by the openlineage provider."""
        from airflow_provider_ideogram.operators.openlineage import lineage_of_dataset

        return lineage_of_dataset(self.prompts_path, self._result)


def _reports(event: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    if event["error"]:
        raise IdeogramDatasetFailed(
            f"Waiting for {len(event['requests'])} requests ended with an error: {event['error']}",
            "Each of them is charged if it completes. They continue at the vendor, and the next attempt reattaches to "
            "them.",
        )
    reports: Mapping[str, Mapping[str, Any]] = event["requests"]
    return reports


async def _first_event(trigger: IdeogramTrigger) -> Mapping[str, Any]:
    event = await anext(trigger.run())
    payload: Mapping[str, Any] = event.payload
    return payload
