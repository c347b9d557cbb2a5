"""
What the tasks have in common: connections, where images and ledger go, how they defer, and a request's parameters.

Invariant: whatever is no template is checked when the operator is made, while the DAG is parsed; constructing it
imports neither HTTP nor S3.
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

#: Seconds after the trigger's deadline in which it should have fired; Airflow's own timeout is only a backstop.
BACKSTOP_SECONDS = 300.0
#: What a key may hold and Airflow reads as the parts of a URI: it drops the fragment of an asset and sorts its query.
_NOT_IN_ASSETS = str.maketrans({character: f"%{ord(character):02X}" for character in "#?%"})


class IdeogramTask(BaseOperator):
    """A task that reaches the API and the images; what it is told is set by the class that is made of it."""

    ui_color = "#e9e1fb"
    operator_extra_links = (IdeogramImageLink(), SegmindRequestLink())

    aws_conn_id: str | None
    ideogram_conn_id: str
    s3_extra_args: Mapping[str, Any] | None
    durable: bool
    ledger_prefix: str
    poll_interval: float | None
    timeout: float

    #: The arguments that have a fixed set of values.
    choices: ClassVar[Mapping[str, Sequence[str]]] = {}

    def _check_arguments(self) -> None:
        """Raise IdeogramInvalidInput if anything is wrong that shows already; the last act of each ``__init__``."""
        if problems := self._problems():
            raise IdeogramInvalidInput.of(problems)

    def _problems(self) -> list[str]:
        """Return what is wrong with the arguments, as far as they are not templates."""
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
        """Check what only rendering has shown, as far as nothing else does."""
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
        """Resume the attempt that deferred; another one begins anew, where Airflow 3.0 and 3.1.0 resume it."""
        # apache/airflow#56704: they forget neither method nor arguments when an attempt fails after its deferral.
        kwargs = dict(next_kwargs or {})
        this_attempt = context["ti"].try_number
        if kwargs.pop("attempt", this_attempt) != this_attempt:
            return self.execute(context)
        return super().resume_execution(next_method, kwargs, context)

    def _tell_assets(self, context: Context, result: Mapping[str, Any], uri: str) -> None:
        """
        Let the events of the task's assets carry its result; what is set before a deferral would be lost.

        :param uri: The address of what was made: behind an alias, percent-encoded, it is the asset.
        """
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra = dict(result)
            elif isinstance(outlet, AssetAlias):
                context["outlet_events"][outlet].add(Asset(uri.translate(_NOT_IN_ASSETS)), extra=dict(result))

    def _hook(self) -> IdeogramHook:
        from airflow_provider_ideogram.hooks.ideogram import IdeogramHook

        return IdeogramHook(self.ideogram_conn_id)

    def _ledger(self, target: Target) -> Ledger | NoLedger:
        from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger

        return Ledger(self._store.client, target.bucket, self.ledger_prefix) if self.durable else NoLedger()

    @cached_property
    def _store(self) -> ImageStore:
        from airflow_provider_ideogram.storage.image_store import ImageStore

        return ImageStore(self.aws_conn_id, self.s3_extra_args)


class IdeogramBaseOperator(IdeogramTask):
    """
    The parameters that every generation has; see the operators for what they mean.

    :raises IdeogramInvalidInput: If an argument that is no template is not valid; the message names all of them.
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

    def _problems(self) -> list[str]:
        problems = [problem for name in CHECKS if (problem := self._problem_of(name))]
        return problems + super()._problems() + check_ledger_prefix(self.ledger_prefix)

    def _problem_of(self, name: str) -> str | None:
        """Return what is wrong with a parameter of the request, None for one that is elsewhere or a template."""
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
