"""
The accepted submits of a simulation, and the reasons for which an image may be paid twice.

Invariant: these are the rules of ``docs/money-and-failure.md``. They judge by what truly happened, and by when the
sender last read the history, never by what the code under test believes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.api.history import HISTORY_LAG_MAX, SUBMIT_WINDOW
from airflow_provider_ideogram.api.polling import FILE_LIFETIME, RESULT_LIFETIME
from airflow_provider_ideogram.jobs.reconciliation import HISTORY_LAG

if TYPE_CHECKING:
    from airflow_provider_ideogram.emulator.jobs import Job
    from tests.simulation.lifecycle import TaskInstance

#: Seconds by which times that are compared may differ: calls take some.
_TOLERANCE = 30.0


class Reason(StrEnum):
    """Why an image may be paid again."""

    EXPIRED = "the image can no longer be had"
    OVERWRITE = "if_exists is 'overwrite'"
    REPLACED = "its image was replaced by one of other inputs"
    ANOTHER_STORED = "another request's image was stored over it"
    PREFIX = "a person wants another image below the prefix"
    OTHER_INPUTS = "it was given up for other inputs"
    ANSWERED_5XX = "its submit was answered 500, 502 or 503"
    RESUBMIT = "on_unknown_submit is 'resubmit'"
    OTHER_TASK = "another task sent it hours ago"
    CLEARED = "a person cleared the task"
    UNDER_WAY = "it was under way when the later one was consented"
    NOT_DURABLE = "durable is False, and a process died or a person cleared the task"


#: The reasons after which both requests may be accepted; the history then shows both, and the older one is taken.
AFTER_UNKNOWN = {Reason.ANSWERED_5XX, Reason.RESUBMIT, Reason.OTHER_TASK, Reason.CLEARED, Reason.UNDER_WAY}


@dataclass(eq=False, slots=True, kw_only=True)
class Submit:
    """
    An accepted submit.

    :param job: The request.
    :param task: The task instance that sent it.
    :param image: What names the image; below a prefix, each group of attempts has an image of its own.
    :param key: The key of the image; a prefix ends in ``/``.
    :param fingerprint: What was asked for.
    :param max_tries: The task instance's when it sent it.
    :param intent_at: When the intent says that it was sent.
    :param visible_at: When the history shows it.
    :param history_read_at: When the sender last read the history; None if it did not.
    :param deaths: The processes of the task that Airflow had lost until then.
    :param is_orphan: Whether Airflow had failed the process that sent it.
    :param is_answered_5xx: Whether the sender was answered 500, 502 or 503.
    :param is_recorded: Whether the ledger has had its id.
    :param is_adopted: Whether another task found it in the history, after its own submit in place of this one.
    :param stored_at: When its image was stored at its key.
    :param is_elsewhere: Whether its image was stored at another key.
    :param excuse: Why its image need not be stored.
    :param consent: Why it was sent though an earlier one may have been accepted.
    """

    job: Job
    task: TaskInstance
    image: str
    key: str
    fingerprint: str
    max_tries: int
    intent_at: float
    visible_at: float
    history_read_at: float | None
    deaths: int
    is_orphan: bool
    is_answered_5xx: bool = False
    is_recorded: bool = False
    is_adopted: bool = False
    stored_at: float | None = None
    is_elsewhere: bool = False
    excuse: str | None = None
    consent: Reason | None = None

    @property
    def request_id(self) -> str:
        """The vendor's id."""
        return self.job.request_id

    @property
    def is_live(self) -> bool:
        """Whether it is, or will be, charged."""
        return self.job.outcome.error is None

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs as sent."""
        return self.job.inputs


@dataclass(frozen=True, slots=True)
class Policy:
    """
    What the DAG of a task says about money.

    :param resubmit: ``on_unknown_submit="resubmit"``.
    :param resubmit_on_5xx: The argument of this name.
    :param if_exists: The argument of this name.
    :param durable: The argument of this name.
    :param is_function: Whether a function returns the prompt, which is called once for each clear.
    :param is_sensor: Whether it stores the images of requests that others submit.
    :param max_cost_usd: The argument of this name.
    """

    resubmit: bool = False
    resubmit_on_5xx: bool = True
    if_exists: str = "reuse"
    durable: bool = True
    is_function: bool = False
    is_sensor: bool = False
    max_cost_usd: float | None = None


def may_follow(earlier: Submit, later: Submit, policy: Policy, others: Iterable[Submit]) -> Reason | None:
    """
    Return why a submit may follow another one of the same image that is charged and not stored; None if it must not.

    :param others: All submits.
    """
    is_other_attempt = later.task.deaths > earlier.deaths or later.max_tries != earlier.max_tries or later.is_orphan
    if not policy.durable and is_other_attempt:
        return Reason.NOT_DURABLE
    if earlier.excuse == Reason.OTHER_INPUTS:
        return Reason.OTHER_INPUTS
    if _is_expired(earlier, later.job.submitted_at):
        return Reason.EXPIRED
    if earlier.consent and later.intent_at < earlier.intent_at:
        return Reason.UNDER_WAY
    return None if earlier.is_recorded else _may_follow_unknown(earlier, later, policy, others)


def _is_expired(earlier: Submit, now: float) -> bool:
    """Return whether the image of a request can no longer be had, as far as the vendor shows."""
    age = now - earlier.job.submitted_at
    is_shown = earlier.visible_at < now - _TOLERANCE
    return age > FILE_LIFETIME - _TOLERANCE or (age > max(RESULT_LIFETIME, HISTORY_LAG_MAX) and not is_shown)


def _may_follow_unknown(earlier: Submit, later: Submit, policy: Policy, others: Iterable[Submit]) -> Reason | None:
    """Return why a submit may follow one whose id was not recorded: a readable history must not show just that one."""
    read_at = later.history_read_at
    if read_at is None:
        return None
    shown = [
        other
        for other in others
        if other.visible_at <= read_at and other.inputs == earlier.inputs and other is not later
    ]
    if shown == [earlier] and earlier.job.submitted_at <= earlier.intent_at + SUBMIT_WINDOW:
        return None
    waited = read_at - earlier.intent_at > HISTORY_LAG - _TOLERANCE
    if earlier.is_answered_5xx and policy.resubmit_on_5xx and waited:
        return Reason.ANSWERED_5XX
    if policy.resubmit:
        return Reason.RESUBMIT
    if earlier.task is not later.task:
        age = later.job.submitted_at - earlier.intent_at
        return Reason.OTHER_TASK if age > HISTORY_LAG_MAX - _TOLERANCE else None
    return Reason.CLEARED if later.max_tries != earlier.max_tries else None
