"""
Quality gates: checks that an image must pass before its item counts as done.

Invariant: a gate gets a decoded image of bounded size, and a mistake in a gate never costs the image. A gate is named
by its import path and imported on the worker that uses it. Imports nothing heavy: DAG files load it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import IO, TYPE_CHECKING, Any, cast

from airflow_provider_ideogram.api.parameters import check_choice
from airflow_provider_ideogram.api.sanitize import sanitize_text
from airflow_provider_ideogram.api.values import shown

if TYPE_CHECKING:
    from PIL.Image import Image

#: The gate that is built in.
BLANK = "blank"
ON_REJECT = ("fail", "redo")
#: Images of an item at most.
MOST_ATTEMPTS = 20
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
#: A blank image is reduced to about this many pixels a side, which averages noise and the artefacts of compression …
_BLANK_SIDE = 64
#: … and is blank if in no channel two of these differ by more than this many of 255 levels.
_BLANK_LEVELS = 12
#: Gates are called one at a time: what they call, such as a model, need not be safe in threads.
_one_at_a_time = Lock()


@dataclass(frozen=True, slots=True)
class Rejection:
    """
    An image that is not accepted.

    :param gate: The name of the gate.
    :param reason: Why, in words.
    :param is_redone: Whether another image is to be made.
    :param is_error: Whether the gate could not decide.
    """

    gate: str
    reason: str
    is_redone: bool = False
    is_error: bool = False


def check_gates(gates: Any, max_attempts: Any) -> list[str]:
    """Return the problems of ``gates`` and ``max_attempts`` that can be found without importing a gate."""
    problems = []
    if not isinstance(max_attempts, int) or isinstance(max_attempts, bool) or not 1 <= max_attempts <= MOST_ATTEMPTS:
        problems.append(f"max_attempts: {shown(max_attempts)} is not a whole number from 1 to {MOST_ATTEMPTS}")
    if not isinstance(gates, Mapping):
        return [*problems, f"gates: must be a mapping of gates to 'fail' or 'redo', not {type(gates).__name__}"]
    for name, on_reject in gates.items():
        if not isinstance(name, str) or (name != BLANK and not _IMPORT_PATH.fullmatch(name)):
            problems.append(
                f"gates: {shown(name)} is neither 'blank' nor the import path of a function, as 'my_checks.is_sharp'"
            )
            continue
        try:
            check_choice(on_reject, ON_REJECT)
        except ValueError as problem:
            problems.append(f"gates: {name}: {problem}")
    return problems


def unusable_gates(gates: Mapping[str, str]) -> list[str]:
    """Return the problems of gates that this worker can't import."""
    problems = []
    for name in (each for each in gates if each != BLANK):
        try:
            _load(name)
        except Exception as problem:  # of any class: importing runs the user's module
            problems.append(f"gates: {name!r} can't be imported on this worker: {_text_of(problem)}")
    return problems


def reject(gates: Mapping[str, str], file: IO[bytes], item: Mapping[str, Any]) -> Rejection | None:
    """
    Return why the first gate does not accept an image, None if all accept it.

    :param gates: What follows a rejection by each gate.
    :param file: The image, a complete one of bounded size; afterwards it is at its start.
    :param item: What the gates are told of its item.
    """
    from PIL import Image

    from airflow_provider_ideogram.hooks.image import large_image_turn, readable_formats

    file.seek(0)
    try:
        with Image.open(file, formats=readable_formats()) as image:
            with large_image_turn(*image.size):
                image.load()
            return _first_rejection(gates, image, item)
    finally:
        file.seek(0)


def _first_rejection(gates: Mapping[str, str], image: Image, item: Mapping[str, Any]) -> Rejection | None:
    for name, on_reject in gates.items():
        try:
            reason = _reason(name, image, item)
        except Exception as problem:  # of any class, by the user's function
            return Rejection(name, f"{name!r} raised {_text_of(problem)}", is_error=True)
        if reason is not None:
            return Rejection(name, reason, is_redone=on_reject == "redo")
    return None


def _reason(name: str, image: Image, item: Mapping[str, Any]) -> str | None:
    """Return why a gate rejects an image, None if it accepts it."""
    if name == BLANK:
        return "it is near-uniform" if is_blank(image) else None
    gate = _load(name)
    with _one_at_a_time:
        verdict = gate(image.copy(), dict(item))
    verdict = verdict.item() if hasattr(verdict, "item") else verdict  # as numpy returns it
    if verdict is True:
        return None
    if verdict is False:
        return "it returned False"
    if isinstance(verdict, str) and verdict.strip():
        return sanitize_text(verdict)
    raise TypeError(f"a gate returns True, False or the reason of a rejection, not {shown(verdict)}")


def is_blank(image: Image) -> bool:
    """Return whether an image is near-uniform: one colour, perhaps with noise."""
    # Premultiplied: what is transparent has no colour.
    channels = image.convert("RGBA").convert("RGBa") if image.has_transparency_data else image.convert("RGB")
    width, height = (max(1, side // _BLANK_SIDE) for side in image.size)
    return all(_range(channel) <= _BLANK_LEVELS for channel in channels.reduce((width, height)).split())


def _range(channel: Image) -> float:
    low, high = cast("tuple[float, float]", channel.getextrema())
    return high - low


def _load(name: str) -> Callable[..., Any]:
    """Return a gate by its import path."""
    from airflow.providers.common.compat.module_loading import import_string

    gate = import_string(name)
    if not callable(gate):
        raise TypeError("it is not a function")
    return gate  # type: ignore[no-any-return]


def _text_of(problem: Exception) -> str:
    return sanitize_text(f"{type(problem).__name__}: {problem}".rstrip(": "))
