"""
Faults: failures that a test orders, by a mark in the prompt or by queuing them for later calls.

A fault names an operation (``on``) and a ``kind``:

- ``error``, ``reset`` and ``slow`` apply to any call, ``before`` or ``after`` it takes effect. A client cannot
  distinguish a submit that is reset before it is accepted from one that is reset afterwards; the stats can.
- ``credits_402``, ``credits_406``, ``spend_limit``, ``parameter_refused``, ``invalid_content_type``,
  ``model_forbidden`` and ``model_retired`` are errors with the vendor's status and a typical text.
- ``truncated``, ``not_image``, ``oversize``, ``endless``, ``redirect`` and ``content_type`` change a response.
- ``failed``, ``blocked``, ``invalid``, ``blank`` (its image shows nothing), ``retried``, ``result_form`` and
  ``job_seconds`` apply to ``job``. They are taken when a job is accepted, and determine how it ends.

A prompt can contain any number of marks: for the job ``[[fault:failed]]``, ``[[fault:blocked]]``,
``[[fault:invalid]]`` and ``[[fault:blank]]``; for the submit ``[[fault:reset-before]]``, ``[[fault:reset-after]]``,
``[[fault:503]]`` (any HTTP status) and the vendor's errors, such as ``[[fault:spend-limit]]``; for the image
``[[fault:truncated]]``, ``[[fault:not-image]]`` and ``[[fault:endless]]``; ``[[result:base64]]`` (a form of
:data:`RESULT_FORMS`), and ``[[slow:30]]`` (seconds that the job is PROCESSING).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import TYPE_CHECKING

from airflow_provider_ideogram.api.parameters import check_choice
from airflow_provider_ideogram.emulator.errors import INVALID_CONTENT_TYPE
from airflow_provider_ideogram.emulator.jobs import Outcome
from airflow_provider_ideogram.emulator.results import RESULT_FORMS
from airflow_provider_ideogram.emulator.settings import is_valid_as

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB = "job"
#: ``submit`` stands for both paid endpoints.
OPERATIONS = ("submit", "status", "result", "image", "credits", "history")

_INVALID_TEXT = "style_type: the value is not supported by this model"
#: Status and text of the vendor's errors. The four meanings of 406 differ in the text only.
_VENDOR_ERRORS = {
    "credits_402": (402, "Insufficient credits"),
    "credits_406": (406, "Insufficient credits: the balance is 0.01 USD, the request needs 0.05 USD"),
    "spend_limit": (406, "Team spend limit reached: the monthly cap of 100 USD is used up"),
    "parameter_refused": (406, _INVALID_TEXT),
    "invalid_content_type": (406, INVALID_CONTENT_TYPE),
    "model_forbidden": (403, "Your team is not allowed to use this model"),
    "model_retired": (410, "This model has been retired"),
}
_INTERRUPTIONS = ("error", "reset", "slow", *_VENDOR_ERRORS)
_ALTERATIONS = ("truncated", "not_image", "oversize", "endless", "redirect", "content_type")
_OUTCOMES = ("failed", "blocked", "invalid", "blank", "retried", "result_form", "job_seconds")

#: The observed forms of error bodies.
ERROR_BODIES = ("error", "message", "detail", "text", "html", "empty", "binary")

_FAILED_TEXT = "Inference failed: the worker ran out of memory"
_BLOCKED_TEXT = "Request blocked by the RAI safety filter: the prompt violates the content policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    A failure that a test orders.

    :param on: One of :data:`OPERATIONS`, or ``job``.
    :param kind: What happens; see the module.
    :param times: The number of calls that it applies to, None for all.
    :param probability: The share of matching calls that it applies to.
    :param random_seed: The seed for the choice of these calls.
    :param prompt: It applies only to requests whose prompt contains this text.
    :param when: ``before`` or ``after`` the call takes effect; for errors, ``reset`` and ``slow``.
    :param status: The HTTP status of an ``error``.
    :param body: The form of the body of an ``error``, one of :data:`ERROR_BODIES`.
    :param text: The text of the error, None for the default text.
    :param retry_after: The ``Retry-After`` header of an ``error``, None for no header.
    :param headers: Further headers of an ``error``, such as ``x-rate-limit-reset-at-utc``.
    :param seconds: The delay of the response in real time (``slow``), or how long the job is PROCESSING on the
        emulator's clock (``job_seconds``).
    :param size: The size of an ``oversize`` body in bytes.
    :param location: The target of a ``redirect``.
    :param content_type: The Content-Type of a ``content_type`` response.
    :param form: The form of a ``result_form``, one of :data:`RESULT_FORMS`.
    :raises ValueError: If there is no such fault, or a value is not valid.
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
    headers: Mapping[str, str] | None = None
    seconds: float = 1.0
    size: int = 1 << 30
    location: str = "/"
    content_type: str = "text/html"
    form: str = "url"

    def __post_init__(self) -> None:
        """Check all values."""
        kinds = _OUTCOMES if self.on == JOB else _INTERRUPTIONS + _ALTERATIONS
        for name, valid in (
            ("on", (JOB, *OPERATIONS)),
            ("kind", kinds),
            ("when", ("before", "after")),
            ("body", ERROR_BODIES),
            ("form", RESULT_FORMS),
        ):
            try:
                check_choice(getattr(self, name), valid)
            except ValueError as problem:
                raise ValueError(f"{name}: {problem}") from None
        for field in fields(self):
            value = getattr(self, field.name)
            optional = field.default is None or (field.name == "times" and value is None)
            if field.default is not MISSING and not optional and not is_valid_as(value, field.default):
                raise ValueError(f"{field.name}: {value!r} is not valid")
        if not 200 <= self.status <= 599:
            raise ValueError(f"status: {self.status} is not within 200..599")
        if not _is_text_mapping(self.headers or {}):
            raise ValueError(f"headers: {self.headers!r} is not a mapping of text to text")

    @property
    def error(self) -> tuple[int, str]:
        """The HTTP status and the text of an error."""
        status, text = _VENDOR_ERRORS.get(self.kind, (self.status, f"emulated error {self.status}"))
        return status, self.text or text

    def applied_to(self, outcome: Outcome) -> Outcome:
        """Return the outcome of a job that this fault applies to."""
        if self.kind == "result_form":
            return replace(outcome, form=self.form)
        if self.kind == "job_seconds":
            return replace(outcome, seconds=self.seconds)
        if self.kind == "blank":
            return replace(outcome, is_blank=True)
        if self.kind == "retried":
            return replace(outcome, retries=outcome.retries + 1)
        if self.kind == "invalid":
            return Outcome.invalid(self.text or _INVALID_TEXT)
        return replace(outcome, error=self.text or (_FAILED_TEXT if self.kind == "failed" else _BLOCKED_TEXT))


def _is_text_mapping(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(part, str) for item in value.items() for part in item)


_MARK = re.compile(r"\[\[(fault|result|slow):([^\]]*)\]\]")
_MARKED_FAULTS = {
    "failed": Fault(on=JOB, kind="failed"),
    "blocked": Fault(on=JOB, kind="blocked"),
    "invalid": Fault(on=JOB, kind="invalid"),
    "blank": Fault(on=JOB, kind="blank"),
    "reset-before": Fault(on="submit", kind="reset"),
    "reset-after": Fault(on="submit", kind="reset", when="after"),
    "truncated": Fault(on="image", kind="truncated"),
    "not-image": Fault(on="image", kind="not_image"),
    "endless": Fault(on="image", kind="endless"),
    **{kind.replace("_", "-"): Fault(on="submit", kind=kind) for kind in _VENDOR_ERRORS},
}


def marked_faults(prompt: str) -> list[Fault]:
    """
    Return the faults that a prompt's marks order.

    :raises ValueError: If there is no such mark. A misspelt mark must not be ignored: the test would test nothing.
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
        raise ValueError(f"fault: {value!r} is not one of {', '.join(_MARKED_FAULTS)}, nor an HTTP status")
    return _MARKED_FAULTS[value]


class _QueuedFault:
    """A queued fault and the number of calls that it still applies to."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.left = fault.times
        self._rng = random.Random(fault.random_seed)

    def triggers(self, prompt: str) -> bool:
        """Return whether the fault applies to a call, and count the call if it does."""
        if self.left == 0 or self.fault.prompt not in prompt or self._rng.random() >= self.fault.probability:
            return False
        if self.left is not None:
            self.left -= 1
        return True


class Faults:
    """The queued faults, and the number of triggered faults by ``operation:kind``."""

    def __init__(self) -> None:
        self._queues: dict[str, list[_QueuedFault]] = {}
        self.triggered: Counter[str] = Counter()

    def add(self, fault: Fault) -> None:
        """Queue a fault after those of the same operation."""
        self._queues.setdefault(fault.on, []).append(_QueuedFault(fault))

    def clear(self) -> None:
        """Remove all queued faults."""
        self._queues.clear()

    def trigger(self, on: str, prompt: str) -> Fault | None:
        """
        Return the fault for a call, and count it. A marked fault precedes a queued one.

        :param on: The operation.
        :param prompt: The request's prompt, "" for a call without one.
        """
        return next(self._matching(on, prompt), None)

    def outcome(self, prompt: str) -> Outcome:
        """Return the outcome of a job: all marks and one queued fault apply to it."""
        outcome = Outcome()
        for fault in self._matching(JOB, prompt):
            outcome = fault.applied_to(outcome)
        return outcome

    def _matching(self, on: str, prompt: str) -> Iterator[Fault]:
        """Yield the marked faults, then the first queued fault that matches, and count each of them."""
        for fault in marked_faults(prompt) if "[[" in prompt else ():
            if fault.on == on:
                self.triggered[f"{on}:{fault.kind}"] += 1
                yield fault
        for queued in self._queues.get(on, ()):
            if queued.triggers(prompt):
                self.triggered[f"{on}:{queued.fault.kind}"] += 1
                yield queued.fault
                return
