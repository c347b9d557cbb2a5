"""
The images of a row: a product over request parameters, and variants with a seed each.

Invariant: an image's id and inputs depend on its row, its cell of the product and the number of its variant only. So
further values and variants do not change the images of the others. Imports nothing heavy: DAG files load it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from airflow_provider_ideogram.api.parameters import CHECKS, DRAWN_SEEDS, MAX_SEED, GenerationRequest, did_you_mean
from airflow_provider_ideogram.api.values import shown

#: Images of a task at most: its plan keeps a digest of each key in memory.
MAX_IMAGES = 1_000_000
MAX_VARIANTS = 100_000
#: The parameters that a matrix may have, in the order of their labels in an id.
_AXES = tuple(name for name in CHECKS if name != "prompt")
_LABEL = re.compile(r"[\w.,=+-]{1,60}", re.ASCII)


class Expansion:
    """
    How many images a row has, and what distinguishes them.

    :param variants: The number of images of each cell; None for one, with the seed and the id of its row.
    :param matrix: The values of each parameter that the rows do not give themselves.
    :raises ValueError: If the matrix is not valid.
    """

    def __init__(self, variants: int | None = None, matrix: Mapping[str, Any] | None = None) -> None:
        self._variants = (None,) if variants is None else range(variants)
        self._axes = _read_axes(matrix)

    def images(
        self, request: GenerationRequest, own: Collection[str], item_id: str | None
    ) -> Iterator[tuple[str, GenerationRequest]]:
        """
        Yield the id and the request of each image of a row.

        :param request: The row's request.
        :param own: The parameters that the row gives itself: they have no other value in its images.
        :param item_id: The row's id; None makes one from its inputs.
        """
        axes = {name: values for name, values in self._axes.items() if name not in own}
        digest = _digest(request, axes)
        for cell in itertools.product(*axes.values()):
            labels = [item_id or digest[:16], *(label for label, _ in cell)]
            values = dict(zip(axes, (value for _, value in cell), strict=True))
            for number in self._variants:
                if number is None:
                    yield "-".join(labels), replace(request, **values) if values else request
                else:
                    seed = _seed(request.seed, digest, number)
                    yield "-".join([*labels, str(number + 1)]), replace(request, **values, seed=seed)


def check_expansion(variants: Any, matrix: Any) -> list[str]:
    """Return the problems of ``variants`` and ``matrix``."""
    problems = []
    if variants is not None and not _is_count(variants):
        problems.append(f"variants: {shown(variants)} is not a whole number from 1 to {MAX_VARIANTS:,}")
    try:
        axes = _read_axes(matrix)
    except ValueError as problem:
        return [*problems, f"matrix: {problem}"]
    if variants is not None and "seed" in axes:
        problems.append("variants, matrix: both choose the seeds; give one of them, or leave seed out of the matrix")
    cells = 1
    for values in axes.values():
        cells *= len(values)
    if not problems and (images := cells * (variants or 1)) > MAX_IMAGES:
        problems.append(f"variants, matrix: make {images:,} images of a row, and a task has at most {MAX_IMAGES:,}")
    return problems


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_VARIANTS


def _read_axes(matrix: Any) -> dict[str, list[tuple[str, Any]]]:
    """Return the labelled values of each parameter; raise ValueError with all problems."""
    if matrix is None:
        return {}
    if not isinstance(matrix, Mapping):
        raise ValueError(f"must be a mapping of parameters to lists of values, not {type(matrix).__name__}")
    axes, problems = {}, []
    for name in (*sorted(matrix.keys() & set(_AXES), key=_AXES.index), *(matrix.keys() - set(_AXES))):
        try:
            axes[name] = _read_axis(name, matrix[name])
        except ValueError as problem:
            problems.append(str(problem))
    if problems:
        raise ValueError("; ".join(problems))
    return axes


def _read_axis(name: Any, values: Any) -> list[tuple[str, Any]]:
    if name == "prompt":
        raise ValueError("prompt is not a parameter of a matrix: each prompt is a row of its own")
    if name not in _AXES:
        meant = did_you_mean(name, _AXES) if isinstance(name, str) else f"Valid are {', '.join(_AXES)}"
        raise ValueError(f"{shown(name)} is not a parameter. {meant}")
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"{name} must have a list of values, with one at least")
    labelled: dict[str, tuple[str, Any]] = {}
    for value in values:
        try:
            checked = CHECKS[name](value)
        except ValueError as problem:
            raise ValueError(f"{name}: {problem}") from None
        label = _label(name, checked)
        if label.casefold() in labelled:
            raise ValueError(f"{name} has the value {label!r} twice")
        labelled[label.casefold()] = label, checked
    return list(labelled.values())


def _label(name: str, value: Any) -> str:
    """Return what an id says of a value; equal values have equal labels."""
    if value is None or value == {}:
        return "none"
    if name == "resolution":
        return str(value).removeprefix("RESOLUTION_").replace("_", "x")
    if name != "model_params":
        return str(value)
    text = ",".join(f"{key}={item}" for key, item in sorted(value.items()))
    if _LABEL.fullmatch(text):
        return text
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def _digest(request: GenerationRequest, axes: Collection[str]) -> str:
    """Return a digest of a row's inputs without those that its images differ in; the fingerprint if there are none."""
    if not axes:
        return request.fingerprint
    inputs = {name: value for name, value in request.inputs().items() if name not in axes}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _seed(given: int | None, digest: str, number: int) -> int:
    """Return the seed of a variant: counted from the row's seed, or else from one that its inputs give."""
    if given is not None:
        return (given + number) % (MAX_SEED + 1)
    first, last = DRAWN_SEEDS
    return first + (int(digest, 16) + number) % (last - first + 1)
