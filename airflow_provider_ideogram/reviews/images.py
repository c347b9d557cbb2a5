"""
The images of a review, by what other tasks return, and what follows from the decisions on them.

Invariant: an image is one that a request stored: bucket, key and request are named. Rows without an image are left out.
An image that is made again has a seed that follows from the refused image alone: however often the task that makes it
runs, the inputs are the same, so that its dataset pays once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.reviews.review import MAX_IMAGES, Decision, Entry
from airflow_provider_ideogram.storage.image_record import RECORD_FIELDS
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from airflow_provider_ideogram.storage.objects import ObjectStore

_NAMED = ("bucket", "key", "request_id")
#: The inputs of a request that an image is made again with.
_INPUTS = ("prompt", "magic_prompt_option", "resolution", "style_type", "model")
_MAX_SEED = 2**31 - 1


def check_images(images: Any) -> None:
    """Raise ValueError if the argument is neither an image, nor a dataset's result, nor a list of them."""
    if isinstance(images, Mapping):
        if not any(name in images for name in ("request_id", "manifest_uri")):
            raise ValueError(
                "must be what a task of this provider returns: a mapping has neither request_id nor manifest_uri"
            )
    elif isinstance(images, str | bytes) or not isinstance(images, Iterable):
        raise ValueError(f"must be what tasks of this provider return, not {type(images).__name__}")


def read_images(images: Any, objects: ObjectStore) -> list[dict[str, Any]]:
    """
    Return the lines of a review's images.

    :param images: An image as an operator returns it, a dataset's result, or a list of them, also of lists.
    :raises IdeogramInvalidInput: If it is something else, or there are more than :data:`MAX_IMAGES`.
    :raises IdeogramStorageError: If a manifest can't be read.
    """
    lines: list[dict[str, Any]] = []
    for found in _found(images, objects):
        if len(lines) == MAX_IMAGES:
            raise IdeogramInvalidInput.of([f"images: there are more than {MAX_IMAGES:,}, which a review can have"])
        lines.append(_line(len(lines), found))
    return lines


def _found(images: Any, objects: ObjectStore) -> Iterator[Mapping[str, Any]]:
    try:
        check_images(images)
    except ValueError as problem:
        raise IdeogramInvalidInput.of([f"images: {problem}"]) from problem
    if not isinstance(images, Mapping):
        for one in images:
            if one is not None:  # of a mapped task that was skipped
                yield from _found(one, objects)
    elif "manifest_uri" in images:
        yield from _manifest(Target.parse(images["manifest_uri"]), objects)
    elif _is_stored(images):
        yield images


def _manifest(target: Target, objects: ObjectStore) -> Iterator[Mapping[str, Any]]:
    with closing(objects.open(target.bucket, target.key)) as body:
        for text in body:
            line = json.loads(text)
            if line["status"] in (ImageStatus.GENERATED, ImageStatus.REUSED) and _is_stored(line):
                yield line


def _is_stored(image: Mapping[str, Any]) -> bool:
    return all(isinstance(image.get(name), str) and image[name] for name in _NAMED)


def _line(row: int, image: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of the form of a manifest's."""
    status = ImageStatus.REUSED if image.get("reused") else ImageStatus.GENERATED
    name = image.get("id") or str(PurePosixPath(image["key"]).with_suffix("")).replace("/", "-")
    head = {"row": row, "id": str(name), "status": status.value, "error": None}
    inputs = {"fingerprint": str(image.get("fingerprint") or ""), "model_params": image.get("model_params")}
    return head | inputs | {name: image.get(name) for name in RECORD_FIELDS}


def approved_images(lines: Iterable[Mapping[str, Any]], decisions: Mapping[str, Entry]) -> list[dict[str, Any]]:
    """Return the descriptions of the approved images, as the operators return them."""
    return [{name: line[name] for name in RECORD_FIELDS} for line in _with(lines, decisions, Decision.APPROVE)]


def redo_rows(lines: Iterable[Mapping[str, Any]], decisions: Mapping[str, Entry]) -> list[dict[str, Any]]:
    """Return the rows of a dataset that makes the images again, each with another seed and the person's note."""
    rows = []
    for line in _with(lines, decisions, Decision.REDO):
        digest = hashlib.sha256(line["request_id"].encode()).hexdigest()
        inputs = {name: line[name] for name in _INPUTS if line.get(name) is not None}
        more = {"model_params": line["model_params"]} if line.get("model_params") else {}
        own = {"id": f"{line['id']}-redo-{digest[:6]}", "seed": int(digest[:12], 16) % _MAX_SEED}
        rows.append({**inputs, **more, **own, "note": decisions[line["request_id"]].note or ""})
    return rows


def _with(
    lines: Iterable[Mapping[str, Any]], decisions: Mapping[str, Entry], decision: Decision
) -> Sequence[Mapping[str, Any]]:
    return [line for line in lines if (found := decisions.get(line["request_id"])) and found.decision == decision]
