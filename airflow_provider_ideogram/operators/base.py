"""
What the provider's tasks share: connections, S3 targets, deferral, and the parameters of a request.

Invariant: arguments that are not templates are checked in ``__init__``, while the DAG is parsed; that imports neither
HTTP nor S3. All rendered arguments are checked before the first call.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import cached_property
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.providers.common.compat.sdk import Asset, AssetAlias, BaseOperator, BaseOperatorLink, get_current_context

from airflow_provider_ideogram.api.parameters import CHECKS, DEFAULT_MODEL, check_choice
from airflow_provider_ideogram.api.values import seconds, shown
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.links import IdeogramImageLink
from airflow_provider_ideogram.operators.templates import has_template, is_literal
from airflow_provider_ideogram.storage.target import (
    DEFAULT_LEDGER_PREFIX,
    IF_EXISTS,
    PROVENANCE,
    Target,
    check_extra_args,
    check_ledger_prefix,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from jinja2 import Environment

    from airflow_provider_ideogram.account.account import Account
    from airflow_provider_ideogram.account.trigger import IdeogramTurnTrigger
    from airflow_provider_ideogram.hooks.connection import ConnectionSettings
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger
    from airflow_provider_ideogram.jobs.preview import PlannedImages, Preview, WantedImage
    from airflow_provider_ideogram.reviews.trigger import IdeogramReviewTrigger
    from airflow_provider_ideogram.storage.image_store import ImageStore
    from airflow_provider_ideogram.storage.objects import ObjectStore
    from airflow_provider_ideogram.triggers.request import IdeogramTrigger

#: Seconds after the trigger's deadline at which Airflow's own timeout ends the deferral, if the trigger did not fire.
BACKSTOP_SECONDS = 300.0
#: The method that Airflow names when the deferral's time is over or its trigger failed.
_TRIGGER_FAILED = "__fail__"
#: Characters of a key that are percent-encoded in an asset's URI: Airflow drops the fragment and sorts the query.
_ENCODED_IN_ASSETS = str.maketrans({character: f"%{ord(character):02X}" for character in "#?%"})
#: The gallery finds the tasks of this provider by these links.
_LINKS: tuple[BaseOperatorLink, ...] = (IdeogramImageLink(),)


class IdeogramTask(BaseOperator):
    """A task that uses the API and S3; subclasses set the attributes from their arguments."""

    ui_color = "#e9e1fb"
    own_links: ClassVar[Sequence[BaseOperatorLink]] = _LINKS
    operator_extra_links: Collection[BaseOperatorLink] = _LINKS

    aws_conn_id: str | None
    ideogram_conn_id: str
    s3_extra_args: Mapping[str, Any] | None
    deferrable: bool
    durable: bool
    ledger_prefix: str
    thumbnails: bool
    provenance: str | None = None
    poll_interval: float | None
    timeout: float

    #: Arguments with a fixed set of values.
    choices: ClassVar[Mapping[str, Sequence[str]]] = {}
    #: Arguments that are True or False.
    flags: ClassVar[Sequence[str]] = ("deferrable", "thumbnails")
    #: Attributes that are durations, and the arguments' names.
    durations: ClassVar[Mapping[str, str]] = {"timeout": "timeout", "poll_interval": "poll_interval"}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Add the links to those of a subclass: the gallery finds its tasks by them."""
        super().__init_subclass__(**kwargs)
        others = [link for link in cls.operator_extra_links if type(link) not in map(type, cls.own_links)]
        cls.operator_extra_links = (*cls.own_links, *others)

    def _check_arguments(self) -> None:
        """
        Raise IdeogramInvalidInput for invalid arguments that are not templates; each ``__init__`` ends with it.

        A mapped task is made on a worker, where Airflow would retry the error: ``execute`` checks its arguments.
        """
        if not getattr(self, "_BaseOperator__from_mapped", False):
            self._raise_for(self._problems(is_literal))

    def _check_rendered(self) -> None:
        """Raise IdeogramInvalidInput if an argument is not valid, before the first call."""
        self._raise_for(self._problems(lambda _: True))

    def _raise_for(self, problems: Sequence[str]) -> None:
        if problems:
            raise IdeogramInvalidInput.of(problems, f"Task {self.task_id!r}")

    def _problems(self, is_final: Callable[[Any], bool]) -> list[str]:
        """
        Return the problems of the arguments.

        :param is_final: Returns whether rendering does not change a value; templates are not checked.
        """
        problems = check_extra_args(self.s3_extra_args) if is_final(self.s3_extra_args) else []
        if is_final(self.ideogram_conn_id):
            problems += problem_of("ideogram_conn_id", _check_conn_id, self.ideogram_conn_id)
        if self.aws_conn_id is not None and is_final(self.aws_conn_id):
            problems += problem_of("aws_conn_id", _check_conn_id, self.aws_conn_id)
        if self.provenance is not None:
            problems += problem_of("provenance", check_choice, self.provenance, PROVENANCE)
        for name, valid in self.choices.items():
            problems += problem_of(name, check_choice, getattr(self, name), valid)
        for name in self.flags:
            problems += problem_of(name, _check_flag, getattr(self, name))
        for attribute, name in self.durations.items():
            if (value := getattr(self, attribute)) is not None or attribute == "timeout":
                problems += problem_of(name, seconds, value)
        return problems

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Leave text without a template unchanged, which native rendering would evaluate: ``1984`` to a number."""
        environment = jinja_env or self.get_template_env()
        if isinstance(content, str) and not has_template(content, environment):
            return content
        return super().render_template(content, context, environment, seen_oids)

    def _defer_to(
        self, trigger: IdeogramTrigger | IdeogramTurnTrigger | IdeogramReviewTrigger, method_name: str
    ) -> NoReturn:
        left = max(trigger.deadline - time.time(), 0.0)
        self.defer(
            trigger=trigger,
            method_name=method_name,
            kwargs={"attempt": get_current_context()["ti"].try_number},
            timeout=timedelta(seconds=left + BACKSTOP_SECONDS),
        )

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume the attempt that deferred; start a later attempt from the beginning."""
        # Airflow 3.0 and 3.1.0 resume a later attempt with the arguments of the earlier one (apache/airflow#56704).
        kwargs = dict(next_kwargs or {})
        this_attempt = context["ti"].try_number
        if kwargs.pop("attempt", this_attempt) != this_attempt:
            return self.execute(context)
        try:
            return super().resume_execution(next_method, kwargs, context)
        except Exception as error:
            if next_method != _TRIGGER_FAILED:
                raise
            self._on_deferral_ended(context, str(error))

    def _on_deferral_ended(self, context: Context, why: str) -> NoReturn:
        """Raise the error of a deferral that Airflow has ended, with what is known of the money."""
        raise NotImplementedError

    def _add_asset_events(self, context: Context, result: Mapping[str, Any], uri: str) -> None:
        """
        Add the result to the events of the task's assets, in the last slice: a deferral loses what was set before it.

        :param uri: The address of the image or manifest; percent-encoded, it is the asset of an alias.
        """
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra = dict(result)
            elif isinstance(outlet, AssetAlias):
                context["outlet_events"][outlet].add(Asset(uri.translate(_ENCODED_IN_ASSETS)), extra=dict(result))

    def _hook(self) -> IdeogramHook:
        from airflow_provider_ideogram.hooks.ideogram import IdeogramHook

        return IdeogramHook(self.ideogram_conn_id)

    def _ledger(self, target: Target) -> Ledger | NoLedger:
        from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger

        return Ledger(self._store.objects, target.bucket, self.ledger_prefix) if self.durable else NoLedger()

    @cached_property
    def _store(self) -> ImageStore:
        from airflow_provider_ideogram.storage.image_store import ImageStore

        return ImageStore(
            self.aws_conn_id, self.s3_extra_args, self.ledger_prefix if self.thumbnails else None, self.provenance
        )


class IdeogramBaseOperator(IdeogramTask):
    """
    The parameters of every generation; the operators document them.

    :raises IdeogramInvalidInput: If an argument that is not a template is invalid; the message names all of them.
    """

    template_fields: Sequence[str] = (
        "magic_prompt_option",
        "resolution",
        "style_type",
        "seed",
        "model",
        "model_params",
        "s3_extra_args",
        "ideogram_conn_id",
        "aws_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"model_params": "json", "s3_extra_args": "json"}
    choices: ClassVar[Mapping[str, Sequence[str]]] = {
        "if_exists": IF_EXISTS,
        "on_unknown_submit": ("fail", "resubmit"),
        "on_budget": ("fail", "wait"),
    }
    flags: ClassVar[Sequence[str]] = ("deferrable", "durable", "thumbnails", "resubmit_on_5xx")
    #: The parameters of a request that are arguments of the operator.
    parameters: ClassVar[Sequence[str]] = tuple(name for name in CHECKS if name != "prompt")

    def __init__(
        self,
        *,
        magic_prompt_option: str | None = "AUTO",
        resolution: str | None = "RESOLUTION_1024_1024",
        style_type: str | None = "GENERAL",
        seed: float | Decimal | str | None = None,
        model: str = DEFAULT_MODEL,
        model_params: Mapping[str, Any] | None = None,
        s3_extra_args: Mapping[str, Any] | None = None,
        if_exists: str = "reuse",
        ideogram_conn_id: str = "ideogram_default",
        aws_conn_id: str | None = "aws_default",
        deferrable: bool = True,
        poll_interval: float | timedelta | None = None,
        timeout: float | timedelta = 600,
        durable: bool = True,
        ledger_prefix: str = DEFAULT_LEDGER_PREFIX,
        thumbnails: bool = True,
        provenance: str | None = None,
        on_unknown_submit: str = "fail",
        resubmit_on_5xx: bool = True,
        on_budget: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.magic_prompt_option = magic_prompt_option
        self.resolution = resolution
        self.style_type = style_type
        self.seed = seed
        self.model = model
        self.model_params = model_params
        self.s3_extra_args = s3_extra_args
        self.if_exists = if_exists
        self.ideogram_conn_id = ideogram_conn_id
        self.aws_conn_id = aws_conn_id
        self.deferrable = deferrable
        self.poll_interval = read_if_valid(seconds, poll_interval)
        self.timeout = read_if_valid(seconds, timeout)
        self.durable = durable
        self.ledger_prefix = ledger_prefix
        self.thumbnails = thumbnails
        self.provenance = provenance
        self.on_unknown_submit = on_unknown_submit
        self.resubmit_on_5xx = resubmit_on_5xx
        self.on_budget = on_budget

    def _problems(self, is_final: Callable[[Any], bool]) -> list[str]:
        problems = []
        for name in self.parameters:
            if is_final(value := getattr(self, name)):
                problems += problem_of(name, CHECKS[name], value)
        return problems + super()._problems(is_final) + check_ledger_prefix(self.ledger_prefix)

    def dry_run(self) -> None:
        """Log what the task would do, what that costs at most, and how long it takes; nothing is submitted."""
        from airflow_provider_ideogram.operators.planning import log_plan

        log_plan(self)

    def planned_images(self, preview: Preview, owner: str) -> Iterable[WantedImage | PlannedImages]:
        """
        Return the images that the task makes, with its arguments as rendered; nothing is submitted or written.

        :param preview: The S3 layer.
        :param owner: The task instance, ``dag_id/run_id/task_id/map_index``.
        :raises IdeogramInvalidInput: If an argument is not valid.
        """
        raise NotImplementedError

    @property
    def objects(self) -> ObjectStore:
        """The S3 layer of the AWS connection."""
        return self._store.objects

    @property
    def connection_settings(self) -> ConnectionSettings:
        """The settings of the connection of the API, which are read."""
        return self._hook().settings

    @property
    def ledger_url(self) -> str:
        """The address below which the ledger's records are."""
        raise NotImplementedError

    def _account(self, context: Context, hook: IdeogramHook, bucket: str) -> Account | None:
        """
        Return the rate limit and the budgets of the connection, None if it sets none that the store can keep.

        :param bucket: The bucket of the ledger.
        """
        from airflow_provider_ideogram.account.account import SubmittingTask, open_account

        ti = context["ti"]
        task = SubmittingTask(ti.dag_id, ti.run_id, ti.task_id)
        ledger_url = f"s3://{bucket}/{self.ledger_prefix}"
        return open_account(self._store.objects, ledger_url, self.ideogram_conn_id, hook.settings, task)


def problem_of(name: str, check: Callable[..., Any], value: Any, *details: Any) -> list[str]:
    """Return the problem of an argument, if its check raises ValueError."""
    try:
        check(value, *details)
    except ValueError as problem:
        return [f"{name}: {problem}"]
    return []


def read_if_valid(read: Callable[[Any], Any], value: Any) -> Any:
    """Return what ``read`` makes of an argument; if it raises ValueError, the argument, which is checked later."""
    try:
        return read(value)
    except ValueError:
        return value


def check_number(value: Any, kind: type | UnionType, least: int, words: str) -> None:
    """Raise ValueError unless a value is a finite number of this type, and not less than the least one."""
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if not is_number or not least <= value < math.inf:
        raise ValueError(f"{shown(value)} is not {words}")


def _check_flag(value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is neither True nor False")


def _check_conn_id(value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{shown(value)} is not the id of a connection")
