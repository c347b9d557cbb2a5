"""
What tasks would generate, reuse and refuse, what that costs at most, and how long it takes.

Invariant: ``dry_run()`` and ``ideogram plan`` both use :class:`Planner` and :func:`forecast`. Nothing is submitted,
reserved or written. An argument that can't be used is a refused image, not an error.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from airflow_provider_ideogram.account.account import is_shared
from airflow_provider_ideogram.account.overview import BudgetUse, read_budgets, read_rate
from airflow_provider_ideogram.exceptions import IdeogramError
from airflow_provider_ideogram.jobs.preview import PlannedImages, Preview, Verdict, refused, sum_up

if TYPE_CHECKING:
    from airflow_provider_ideogram.hooks.connection import ConnectionSettings
    from airflow_provider_ideogram.jobs.preview import WantedImage
    from airflow_provider_ideogram.storage.objects import ObjectStore


class PlannableTask(Protocol):
    """A rendered operator, see :class:`~airflow_provider_ideogram.operators.base.IdeogramBaseOperator`."""

    aws_conn_id: str | None
    ideogram_conn_id: str
    s3_extra_args: Mapping[str, Any] | None

    @property
    def log(self) -> Any:
        """The task's logger."""

    @property
    def objects(self) -> ObjectStore:
        """The S3 layer of the AWS connection."""

    @property
    def connection_settings(self) -> ConnectionSettings:
        """The settings of the connection of the API."""

    @property
    def ledger_url(self) -> str:
        """The address below which the ledger's records are."""

    def planned_images(self, preview: Preview, owner: str) -> Iterable[WantedImage | PlannedImages]:
        """Return the images that the task makes."""


#: A rendered operator with its task instance, ``dag_id/run_id/task_id/map_index``; or the plan of one that can't be
#: rendered.
PlannedTask: TypeAlias = tuple[PlannableTask, str] | PlannedImages
#: The verdicts that may end in a charge.
_CHARGEABLE = (Verdict.GENERATE, Verdict.CONTINUE, Verdict.UNKNOWN)


@dataclass(slots=True)
class Planner:
    """Plans tasks, with one S3 client for all tasks of an AWS connection."""

    _previews: dict[tuple[str | None, str], Preview] = field(default_factory=dict, init=False)

    def plan(self, tasks: Iterable[PlannedTask]) -> tuple[list[PlannedImages], PlannableTask | None]:
        """
        Plan the instances of a task.

        :return: Their images, summed up by what would be done for them; and an operator with valid arguments, which
            :func:`forecast` takes, None if there is none.
        """
        planned: list[PlannedImages] = []
        example: PlannableTask | None = None
        wanted: dict[tuple[str | None, str], list[WantedImage | PlannedImages]] = defaultdict(list)
        for task in tasks:
            if not isinstance(task, tuple):
                planned.append(task)
                continue
            operator, owner = task
            connection = operator.aws_conn_id, repr(operator.s3_extra_args)
            try:
                if connection not in self._previews:
                    self._previews[connection] = Preview(operator.objects)
                wanted[connection] += operator.planned_images(self._previews[connection], owner)
                example = example or operator
            except IdeogramError as error:
                planned.append(refused(error))
        for connection, images in wanted.items():
            planned += self._previews[connection].of(images)
        return sum_up(planned), example


@dataclass(frozen=True, slots=True)
class Forecast:
    """
    The sum of planned images.

    :param submits: The submits at most.
    :param usd: What they may cost; None if that is unknown.
    :param seconds: How long they take at the account's rate; None if no rate is known.
    :param per_minute: That rate.
    :param short: The budgets of the connection that have less than the cost left.
    """

    submits: int
    usd: float | None
    seconds: float | None
    per_minute: float | None
    short: Sequence[BudgetUse]

    def __str__(self) -> str:
        """Return the time and the budgets in words."""
        time_taken = "no rate is known"
        if self.seconds is not None:
            words = f"{self.seconds:.0f} s" if self.seconds < 90 else f"{self.seconds / 60:.0f} min"
            time_taken = f"about {words} at {self.per_minute:g} a minute"
        return "; ".join([time_taken, *(f"{use.name} has {use.left:.2f} USD left" for use in self.short)])


def forecast(operator: PlannableTask, images: Iterable[PlannedImages]) -> Forecast:
    """
    Sum up planned images of a connection.

    :param operator: An operator of the connection, whose arguments are rendered and valid.
    :raises IdeogramError: If the connection or the account's objects can't be read.
    """
    chargeable = [each for each in images if each.verdict in _CHARGEABLE]
    submits = sum(each.images for each in chargeable)
    costs = [each.usd for each in chargeable]
    usd = None if None in costs else sum(cost for cost in costs if cost is not None)
    settings = operator.connection_settings
    if not is_shared(settings):
        return Forecast(submits, usd, None, None, [])
    url, conn_id, now = settings.account_url or operator.ledger_url, operator.ideogram_conn_id, time.time()
    rate = read_rate(operator.objects, url, conn_id, settings, now)
    budgets = read_budgets(operator.objects, url, conn_id, settings, now)
    short = [use for use in budgets if use.left < (usd or 0.0)]
    return Forecast(submits, usd, rate.seconds_for(submits), rate.per_minute, short)


def log_plan(operator: PlannableTask) -> None:
    """Log the plan of a rendered operator; raise IdeogramError if a connection can't be used."""
    images, valid = Planner().plan([(operator, "")])
    for each in images:
        operator.log.info("%s", each)
    if valid is not None:
        total = forecast(valid, images)
        operator.log.info("Submits at most: %d, for %s at most; %s", total.submits, usd_text(total.usd), total)


def usd_text(usd: float | None) -> str:
    """Return an amount, or that it is unknown."""
    return "an unknown cost" if usd is None else f"{usd:.2f} USD"
