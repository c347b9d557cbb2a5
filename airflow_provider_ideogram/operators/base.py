"""
What the provider's tasks share: connections, S3 targets, deferral, and the parameters of a request.

Invariant: arguments that are not templates are checked in ``__init__``, while the DAG is parsed; that imports neither
HTTP nor S3.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.providers.common.compat.sdk import Asset, AssetAlias, BaseOperator, get_current_context

from airflow_provider_ideogram.api.parameters import CHECKS, DEFAULT_MODEL
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.links import IdeogramImageLink, SegmindRequestLink
from airflow_provider_ideogram.operators.templates import is_literal
from airflow_provider_ideogram.storage.target import (
    DEFAULT_LEDGER_PREFIX,
    IF_EXISTS,
    Target,
    check_extra_args,
    check_ledger_prefix,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger
    from airflow_provider_ideogram.storage.image_store import ImageStore
    from airflow_provider_ideogram.triggers.request import IdeogramTrigger

#: Seconds after the trigger's deadline at which Airflow's own timeout ends the deferral, if the trigger did not fire.
BACKSTOP_SECONDS = 300.0
#: Characters of a key that are percent-encoded in an asset's URI: Airflow drops the fragment and sorts the query.
_ENCODED_IN_ASSETS = str.maketrans({character: f"%{ord(character):02X}" for character in "#?%"})


class IdeogramTask(BaseOperator):
    """A task that uses the API and S3; subclasses set the attributes from their arguments."""

    ui_color = "#e9e1fb"
    operator_extra_links = (IdeogramImageLink(), SegmindRequestLink())

    aws_conn_id: str | None
    ideogram_conn_id: str
    s3_extra_args: Mapping[str, Any] | None
    durable: bool
    ledger_prefix: str
    poll_interval: float | None
    timeout: float

    #: Arguments with a fixed set of values.
    choices: ClassVar[Mapping[str, Sequence[str]]] = {}

    def _check_arguments(self) -> None:
        """Raise IdeogramInvalidInput for invalid arguments that are not templates; each ``__init__`` ends with it."""
        if problems := self._problems():
            raise IdeogramInvalidInput.of(problems)

    def _problems(self) -> list[str]:
        """Return the problems of the arguments that are not templates."""
        problems = []
        if is_literal(self.s3_extra_args):
            problems += check_extra_args(self.s3_extra_args)
        for name, valid in self.choices.items():
            if getattr(self, name) not in valid:
                problems.append(f"{name}: {getattr(self, name)!r} is not one of {', '.join(valid)}")
        problems += _check_seconds("timeout", self.timeout)
        if self.poll_interval is not None:
            problems += _check_seconds("poll_interval", self.poll_interval)
        return problems

    def _check_rendered(self) -> None:
        """Check rendered arguments that nothing else checks."""
        if problems := check_extra_args(self.s3_extra_args):
            raise IdeogramInvalidInput.of(problems)

    def _defer_to(self, trigger: IdeogramTrigger, method_name: str) -> NoReturn:
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
        return super().resume_execution(next_method, kwargs, context)

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

        return ImageStore(self.aws_conn_id, self.s3_extra_args)


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
    }

    def __init__(
        self,
        *,
        magic_prompt_option: str | None = "AUTO",
        resolution: str | None = "RESOLUTION_1024_1024",
        style_type: str | None = "GENERAL",
        seed: int | str | None = None,
        model: str = DEFAULT_MODEL,
        model_params: Mapping[str, Any] | None = None,
        s3_extra_args: Mapping[str, Any] | None = None,
        if_exists: str = "reuse",
        ideogram_conn_id: str = "ideogram_default",
        aws_conn_id: str | None = "aws_default",
        deferrable: bool = True,
        poll_interval: float | None = None,
        timeout: float = 600,
        durable: bool = True,
        ledger_prefix: str = DEFAULT_LEDGER_PREFIX,
        on_unknown_submit: str = "fail",
        resubmit_on_5xx: bool = True,
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
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.durable = durable
        self.ledger_prefix = ledger_prefix
        self.on_unknown_submit = on_unknown_submit
        self.resubmit_on_5xx = resubmit_on_5xx

    def _problems(self) -> list[str]:
        problems = [problem for name in CHECKS if (problem := self._problem_of(name))]
        return problems + super()._problems() + check_ledger_prefix(self.ledger_prefix)

    def _problem_of(self, name: str) -> str | None:
        """Return the problem of a request parameter; None if it is valid, a template, or not an attribute."""
        value = getattr(self, name, None)
        if not hasattr(self, name) or not is_literal(value):
            return None
        try:
            CHECKS[name](value)
        except ValueError as problem:
            return f"{name}: {problem}"
        return None


def _check_seconds(name: str, value: Any) -> list[str]:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
        return []
    return [f"{name}: {value!r} is not a number of seconds above 0"]
