"""
The accepted submits of a simulation, and the reasons for which an image may be paid twice.

Invariant: these are the rules of ``docs/money-and-failure.md``, checked against what truly happened: what the code
under test could know is noted as it learns it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.api.history import HISTORY_LAG_MAX, SUBMIT_WINDOW
from airflow_provider_ideogram.api.polling import FILE_LIFETIME, RESULT_LIFETIME
from airflow_provider_ideogram.jobs.reconciliation import HISTORY_LAG

if TYPE_CHECKING:
    from airflow_provider_ideogram.emulator.jobs import Job
    from tests.simulation.lifecycle import TaskInstance

#: Seconds by which times that are compared may differ: calls take some.
_TOLERANCE = 30.0


@dataclass(eq=False, slots=True, kw_only=True)
class Submit:
    """
    An accepted submit.

    :param job: The request.
    :param task: The task instance that sent it.
    :param target: The address of the image.
    :param fingerprint: What was asked for.
    :param max_tries: The task instance's when it sent it.
    :param intent_at: When the intent says that it was sent.
    :param visible_at: When the history shows it.
    :param history_read_at: When the sender last read the history; None if it did not.
    :param deaths: The killed processes of the task until then.
    :param is_answered_5xx: Whether the sender was answered 500, 502 or 503.
    :param is_recorded: Whether the ledger has had its id.
    :param stored_at: When its image was stored.
    :param excuse: Why its image need not be stored.
    :param consent: Why it was sent though an earlier one may have been accepted.
    """

    job: Job
    task: TaskInstance
    target: str
    fingerprint: str
    max_tries: int
    intent_at: float
    visible_at: float
    history_read_at: float | None
    deaths: int
    is_answered_5xx: bool = False
    is_recorded: bool = False
    stored_at: float | None = None
    excuse: str = ""
    consent: str = ""

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
    """

    resubmit: bool = False
    resubmit_on_5xx: bool = True
    if_exists: str = "reuse"
    durable: bool = True
    is_function: bool = False


def may_follow(earlier: Submit, later: Submit, policy: Policy, others: list[Submit]) -> str | None:
    """
    Return why a submit may follow another one of the same image that is charged; None if it must not.

    :param others: All submits of the image.
    """
    now = later.job.submitted_at
    if not policy.durable:
        return "durable=False, and a process died" if later.task.deaths > earlier.deaths else None
    if earlier.excuse:
        return earlier.excuse
    if _is_expired(earlier, now):
        return "it is expired"
    if earlier.is_recorded:
        return _is_late_intent(earlier, later)
    return _may_follow_unknown(earlier, later, policy, others) or _is_late_intent(earlier, later)


def _is_expired(earlier: Submit, now: float) -> bool:
    """Return whether the image of an earlier request can no longer be had, as far as the vendor shows."""
    age = now - earlier.job.submitted_at
    shown = earlier.visible_at < now - _TOLERANCE
    if age > FILE_LIFETIME - _TOLERANCE:
        return True
    return age > RESULT_LIFETIME and age > HISTORY_LAG_MAX - _TOLERANCE and not shown


def _is_late_intent(earlier: Submit, later: Submit) -> str | None:
    """Return the reason if the later one was intended first: the earlier one was sent with a person's consent."""
    return "it was under way when a person consented" if earlier.consent and later.intent_at < earlier.intent_at else None


def _may_follow_unknown(earlier: Submit, later: Submit, policy: Policy, others: list[Submit]) -> str | None:
    """Return why a submit may follow one whose id was never recorded."""
    read_at = later.history_read_at
    if read_at is None:
        return None
    shown = [
        other
        for other in others
        if other.visible_at <= read_at and other.inputs == earlier.inputs and other is not later and not other.excuse
    ]
    is_in_window = earlier.job.submitted_at <= earlier.intent_at + SUBMIT_WINDOW
    if earlier in shown and len(shown) == 1 and is_in_window:
        return None
    if (
        earlier.is_answered_5xx
        and policy.resubmit_on_5xx
        and read_at > earlier.job.submitted_at + HISTORY_LAG - _TOLERANCE
    ):
        return "its submit was answered 5xx"
    if policy.resubmit:
        return "on_unknown_submit is 'resubmit'"
    if earlier.task is not later.task:
        return "another task sent it hours ago" if now_minus(later, earlier) > HISTORY_LAG_MAX - _TOLERANCE else None
    return "a person cleared the task" if later.max_tries != earlier.max_tries else None


def now_minus(later: Submit, earlier: Submit) -> float:
    """Return the seconds between two submits."""
    return later.job.submitted_at - earlier.job.submitted_at
