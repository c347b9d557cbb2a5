"""
What goes wrong on demand: by a mark in the prompt, or by a fault that was queued for coming calls.

A fault says on which operation it strikes and what happens (its kind):

- ``error``, ``reset``, ``slow`` strike on any call, ``before`` it has taken effect or ``after``: a submit that
  is reset after it was charged and one before are told apart by the stats alone.
- ``truncated``, ``not_image``, ``oversize``, ``endless``, ``redirect``, ``content_type`` spoil an answer.
- ``failed``, ``blocked``, ``result_form``, ``job_seconds`` strike on ``job``: they settle, when a job is
  accepted, what becomes of it.

Marks in a prompt, any number of them: ``[[fault:failed]]``, ``[[fault:blocked]]``, ``[[fault:reset-before]]``,
``[[fault:reset-after]]``, ``[[fault:503]]`` (any HTTP status, for the submit), ``[[fault:truncated]]``,
``[[fault:not-image]]``, ``[[fault:endless]]`` (for the image), ``[[result:base64]]`` (a form of
:data:`RESULT_FORMS`), ``[[slow:30]]`` (seconds that the job takes).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import MISSING, dataclass, fields, replace
from typing import TYPE_CHECKING

from airflow_provider_ideogram.emulator.jobs import Outcome
from airflow_provider_ideogram.emulator.results import RESULT_FORMS
from airflow_provider_ideogram.emulator.settings import is_like

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB = "job"
#: Both paid calls are ``submit``.
OPERATIONS = ("submit", "status", "result", "image", "credits", "history")

_INTERRUPTIONS = ("error", "reset", "slow")
_ALTERATIONS = ("truncated", "not_image", "oversize", "endless", "redirect", "content_type")
_OUTCOMES = ("failed", "blocked", "result_form", "job_seconds")

#: The forms in which errors were seen.
ERROR_BODIES = ("error", "message", "detail", "text", "html", "empty", "binary")

_FAILED_TEXT = "Inference failed: the worker ran out of memory"
_BLOCKED_TEXT = "Request blocked by the RAI safety filter: the prompt violates the content policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    Something that goes wrong.

    :param on: One of :data:`OPERATIONS`, or ``job``.
    :param kind: What happens, see the module.
    :param times: How often it strikes, None for always.
    :param probability: The share of matching calls that it strikes.
    :param random_seed: Seeds the choice of those calls.
    :param prompt: Strikes only where the request's prompt holds this text.
    :param when: ``before`` or ``after`` the call has taken effect; for ``error``, ``reset`` and ``slow``.
    :param status: The HTTP status of an ``error``.
    :param body: The form of an ``error``, one of :data:`ERROR_BODIES`.
    :param text: The error's text, None for a fitting one.
    :param retry_after: The ``Retry-After`` of an ``error``, None for no such header.
    :param seconds: How long the answer takes (``slow``), or the job (``job_seconds``).
    :param size: Bytes of an ``oversize`` body.
    :param location: Where a ``redirect`` points to.
    :param content_type: The type that a ``content_type`` answer claims.
    :param form: The ``result_form``, one of :data:`RESULT_FORMS`.
    :raises ValueError: If the fault does not exist.
    """

    on: str
    kind: str
    times: int | None = 1
    probability: float = 1.0
    random_seed: int = 0
    prompt: str = ""
    when: str = "before"
    status: int = 503
    body: str = "error"
    text: str | None = None
    retry_after: str | float | None = None
    seconds: float = 1.0
    size: int = 1 << 30
    location: str = "/"
    content_type: str = "text/html"
    form: str = "url"

    def __post_init__(self) -> None:
        """Refuse what could never strike."""
        kinds = _OUTCOMES if self.on == JOB else _INTERRUPTIONS + _ALTERATIONS
        for name, valid in (
            ("on", (JOB, *OPERATIONS)),
            ("kind", kinds),
            ("when", ("before", "after")),
            ("body", ERROR_BODIES),
            ("form", RESULT_FORMS),
        ):
            if getattr(self, name) not in valid:
                raise ValueError(f"{name}: {getattr(self, name)!r} is none of {', '.join(valid)}")
        for field in fields(self):
            value = getattr(self, field.name)
            optional = field.default is None or (field.name == "times" and value is None)
            if field.default is not MISSING and not optional and not is_like(value, field.default):
                raise ValueError(f"{field.name}: {value!r} is not valid")
        if not 200 <= self.status <= 599:
            raise ValueError(f"status: {self.status} is not within 200..599")

    def applied_to(self, outcome: Outcome) -> Outcome:
        """Return what becomes of a job that this fault strikes."""
        if self.kind == "result_form":
            return replace(outcome, form=self.form)
        if self.kind == "job_seconds":
            return replace(outcome, seconds=self.seconds)
        return replace(outcome, error=self.text or (_FAILED_TEXT if self.kind == "failed" else _BLOCKED_TEXT))


_MARK = re.compile(r"\[\[(fault|result|slow):([^\]]*)\]\]")
_MARKED_FAULTS = {
    "failed": Fault(on=JOB, kind="failed"),
    "blocked": Fault(on=JOB, kind="blocked"),
    "reset-before": Fault(on="submit", kind="reset"),
    "reset-after": Fault(on="submit", kind="reset", when="after"),
    "truncated": Fault(on="image", kind="truncated"),
    "not-image": Fault(on="image", kind="not_image"),
    "endless": Fault(on="image", kind="endless"),
}


def marked_faults(prompt: str) -> list[Fault]:
    """
    Return the faults that are marked in a prompt.

    :raises ValueError: If a mark does not exist: a misspelt one would make a test that tests nothing.
    """
    return [_marked_fault(name, value) for name, value in _MARK.findall(prompt)]


def _marked_fault(name: str, value: str) -> Fault:
    if name == "result":
        return Fault(on=JOB, kind="result_form", form=value)
    if name == "slow":
        return Fault(on=JOB, kind="job_seconds", seconds=float(value))
    if value.isdecimal():
        return Fault(on="submit", kind="error", status=int(value))
    if value not in _MARKED_FAULTS:
        raise ValueError(f"fault: {value!r} is none of {', '.join(_MARKED_FAULTS)} and no HTTP status")
    return _MARKED_FAULTS[value]


class _QueuedFault:
    """A fault that waits for its calls."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.left = fault.times
        self._rng = random.Random(fault.random_seed)

    def strikes(self, prompt: str) -> bool:
        """Return whether it strikes a call, and count that."""
        if self.left == 0 or self.fault.prompt not in prompt or self._rng.random() >= self.fault.probability:
            return False
        if self.left is not None:
            self.left -= 1
        return True


class Faults:
    """The faults that are queued, and how often which kind has triggered."""

    def __init__(self) -> None:
        self._queues: dict[str, list[_QueuedFault]] = {}
        self.triggered: Counter[str] = Counter()

    def add(self, fault: Fault) -> None:
        """Queue a fault behind those of the same operation."""
        self._queues.setdefault(fault.on, []).append(_QueuedFault(fault))

    def clear(self) -> None:
        """Take back all queued faults."""
        self._queues.clear()

    def take(self, on: str, prompt: str) -> Fault | None:
        """
        Return the fault that strikes a call, a marked one before a queued one.

        :param on: The operation.
        :param prompt: The request's prompt; "" for a call that has none.
        """
        return next(self._striking(on, prompt), None)

    def outcome(self, prompt: str) -> Outcome:
        """Return what becomes of a job: every mark counts, and one queued fault."""
        outcome = Outcome()
        for fault in self._striking(JOB, prompt):
            outcome = fault.applied_to(outcome)
        return outcome

    def _striking(self, on: str, prompt: str) -> Iterator[Fault]:
        """Give the marked faults, then the first queued one that strikes, and count each that is given."""
        for fault in marked_faults(prompt) if "[[" in prompt else ():
            if fault.on == on:
                self.triggered[f"{on}:{fault.kind}"] += 1
                yield fault
        for queued in self._queues.get(on, ()):
            if queued.strikes(prompt):
                self.triggered[f"{on}:{queued.fault.kind}"] += 1
                yield queued.fault
                return
