"""
One card of the gallery: an image, or the reason why there is none, by an XCom or a line of a manifest.

Invariant: an :class:`Item` has known fields only, and an image only if bucket, key and request are all named. A line
that is not a row of a manifest is not shown. Text is never markup.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.storage.image_record import RECORD_FIELDS
from airflow_provider_ideogram.storage.target import Target
from airflow_provider_ideogram.ui.places import Place

_INPUTS = ("prompt", "magic_prompt_option", "resolution", "style_type", "seed", "model")
_STATUSES = tuple(status.value for status in ImageStatus)
#: Of the values that are shown; a search asks this for all fields of thousands of lines.
_KINDS = (str, int, float)
#: The state of a task instance that was never scheduled.
NO_STATE = "no status"
#: The status of an image whose request was submitted by a task that does not wait for it.
SUBMITTED = "submitted"
_FAILED_STATES = frozenset({"failed", "up_for_retry"})
_AWAITED = frozenset({"scheduled", "queued", "running", "deferred", "up_for_retry", "up_for_reschedule", SUBMITTED})
_ELSEWHERE = "The result is in a custom XCom backend, which only workers can read."
_SEE_LOG = "The task's log has the error."


@dataclass(frozen=True, slots=True)
class Failure:
    """
    The XCom ``failure``.

    :param reason: The code of the error.
    :param error: What happened.
    :param advice: What happened to the money, and what to do.
    """

    reason: str | None
    error: str | None
    advice: str | None


@dataclass(frozen=True, slots=True)
class Instance:
    """
    A task instance with its XComs.

    :param map_index: -1 if the task is not mapped.
    :param state: Airflow's state.
    :param xcoms: By key: ``return_value``, ``request_id``, ``failure``, ``progress``, ``review``.
    :param rendered: The operator's rendered arguments, as long as Airflow keeps them.
    :param tries: The number of attempts.
    :param region_id: See :class:`~airflow_provider_ideogram.ui.places.Place`, as for the next two.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: str
    xcoms: Mapping[str, Any]
    rendered: Mapping[str, Any]
    tries: int = 1
    region_id: UUID | None = None
    region_index: int | None = None
    iteration: int | None = None

    @property
    def place(self) -> Place:
        """Its place within the run, beside its task."""
        return Place(self.map_index, self.region_id, self.region_index, self.iteration)

    @property
    def failure(self) -> Failure | None:
        """Why it failed, None if it says nothing of that."""
        failure = self.xcoms.get("failure")
        if not isinstance(failure, Mapping):
            return None
        return Failure(*(_text(failure.get(name)) for name in ("reason", "error", "advice")))

    @property
    def label(self) -> str:
        """The name as Airflow's UI writes it, such as ``generate[3]``."""
        mapped = self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"
        return mapped if self.iteration is None else f"{mapped}, iteration {self.iteration}"


@dataclass(frozen=True, slots=True)
class Item:
    """
    An image, or what is known if there is none.

    :param row: The row's name, see :mod:`airflow_provider_ideogram.ui.datasets`; None for the image of a task instance.
    :param name: The task instance's label or the row's id.
    :param status: An :class:`ImageStatus`, or the task instance's state.
    :param facts: The known fields of :class:`~airflow_provider_ideogram.storage.image_record.ImageRecord`.
    :param reason: The code of the error, if there is no image.
    :param error: What happened, if there is no image.
    :param advice: What happened to the money, and what to do.
    :param decision: What a review decided on the image, None if nothing.
    :param note: What the person wrote.
    :param decided_by: The user who decided.
    """

    instance: Instance
    row: str | None
    name: str
    status: str
    facts: Mapping[str, Any]
    reason: str | None = None
    error: str | None = None
    advice: str | None = None
    decision: str | None = None
    note: str | None = None
    decided_by: str | None = None

    @property
    def has_image(self) -> bool:
        """Whether a request stored an object."""
        named = [self.facts.get(name) for name in ("bucket", "key", "request_id")]
        return all(isinstance(one, str) and one for one in named)

    @property
    def is_accepted(self) -> bool:
        """Whether there is an image, and no gate rejected it."""
        return self.has_image and self.error is None

    @property
    def cause(self) -> str | None:
        """What happened, without the request's id, which is shown last."""
        request_id = self.facts.get("request_id")
        return self.error and self.error.replace(f" of request {request_id}", "").replace(f" {request_id}", "")

    @property
    def is_awaited(self) -> bool:
        """Whether there may be an image soon."""
        return not self.has_image and self.status in _AWAITED

    @property
    def prompt(self) -> str:
        """The prompt, empty where it is not known."""
        prompt = self.facts.get("prompt")
        return prompt if isinstance(prompt, str) else ""


def item_of_instance(instance: Instance) -> Item:
    """Describe the image of a task instance."""
    result, failure = instance.xcoms.get("return_value"), instance.failure
    facts = _known(result) if isinstance(result, Mapping) else {}
    item = Item(
        instance, None, instance.label, ImageStatus.REUSED if facts.get("reused") else ImageStatus.GENERATED, facts
    )
    if item.has_image:
        return item
    facts = _requested(instance) | facts
    if failure is not None:
        status = ImageStatus.of_error(failure.reason)
        return replace(
            item, facts=facts, status=status, reason=failure.reason, error=failure.error, advice=failure.advice
        )
    if facts.get("submitted_at"):
        return replace(item, facts=facts, status=SUBMITTED)
    if result is not None and not isinstance(result, Mapping):
        return _item_by_arguments(replace(item, facts=facts, status=instance.state))
    error = _SEE_LOG if instance.state in _FAILED_STATES else None
    return replace(item, facts=facts, status=instance.state, error=error)


def _item_by_arguments(item: Item) -> Item:
    """
    Describe an image whose result is in a custom XCom backend.

    The image is at the address that the task was given; its metadata names the request, as for every image.
    """
    rendered = item.instance.rendered
    try:
        target = Target.parse(rendered["s3_key"], rendered.get("s3_bucket"))
    except (KeyError, TypeError, IdeogramInvalidInput):
        return replace(item, error=f"{_ELSEWHERE} Airflow keeps a task's s3_key for the last runs only.")
    if target.is_prefix:
        return replace(item, error=f"{_ELSEWHERE} The image's name is not known, since s3_key ends in '/'.")
    found = replace(item, facts={**item.facts, "bucket": target.bucket, "key": target.key, "uri": target.uri})
    if not found.has_image:
        return replace(item, error=f"{_ELSEWHERE} The XCom request_id, which would identify the image, is missing.")
    return replace(found, status=ImageStatus.GENERATED)


def item_of_line(instance: Instance, row: str, line: bytes) -> Item:
    """Describe a row of a dataset by its line in the manifest."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, Mapping) or not _is_row(value):
        return Item(instance, row, row, ImageStatus.FAILED, {}, None, "This line of the manifest can't be read.")
    name = _text(value.get("id")) or row
    facts = _known(value) | _kept_image(value)
    return Item(instance, row, name, value["status"], facts, error=_text(value.get("error")))


def _kept_image(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return where the image is that a gate did not accept; nothing if the row has another image or none."""
    attempts = line.get("rejected_attempts")
    for attempt in attempts if isinstance(attempts, list) and line.get("bucket") is None else ():
        if isinstance(attempt, Mapping) and attempt.get("request_id") == line.get("request_id"):
            with suppress(IdeogramInvalidInput):
                target = Target.parse(str(attempt.get("uri")))
                place = {"bucket": target.bucket, "key": target.key, "uri": target.uri}
                return place | _known({name: attempt.get(name) for name in ("seed", "sha256")})
    return {}


def _is_row(value: Mapping[str, Any]) -> bool:
    """Return whether a line has the fields of every row."""
    return (
        value.get("status") in _STATUSES
        and isinstance(value.get("row"), int)
        and isinstance(value.get("fingerprint"), str)
    )


def _requested(instance: Instance) -> dict[str, Any]:
    """Return the known facts of an image that is not stored yet."""
    rendered = {name: instance.rendered[name] for name in _INPUTS if name in instance.rendered}
    return _known({**rendered, "request_id": instance.xcoms.get("request_id")})


def _known(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: one if not isinstance(one, str) or one.isascii() else _text(one)
        for name in RECORD_FIELDS
        if isinstance(one := value.get(name), _KINDS)
    }


def _text(value: Any) -> str | None:
    """Return a value as text that can be sent: JSON may contain halves of surrogate pairs."""
    return None if value is None else str(value).encode("utf-8", "replace").decode()
