"""
The files beside a dataset's manifest, by which other tools open its images.

Invariant: each file is made from the manifest's lines and written after it, so a file that can't be written leaves the
manifest. At most :data:`_BATCH` lines are in memory. Imports nothing heavy: DAG files load it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_ideogram.api.parameters import check_choice
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.rows import OUTPUT_FILES

if TYPE_CHECKING:
    from airflow_provider_ideogram.datasets.prefix_use import PrefixUse
    from airflow_provider_ideogram.storage.target import Target

_BATCH = 5_000
#: The ending of a key by which an image is found in a folder.
_IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
#: What an image's line in ``metadata.jsonl`` has of its line in the manifest.
_DESCRIPTION = (
    *("id", "prompt", "magic_prompt_option", "resolution", "style_type", "seed", "model"),
    *("width", "height", "content_type", "sha256", "request_id"),
)
#: The Parquet columns that are no text: the Arrow type of each, and the types of the manifest's values.
_TYPES: dict[str, tuple[str, Any]] = {
    **dict.fromkeys(("row", "size_bytes", "seed"), ("int64", int)),
    **dict.fromkeys(("width", "height"), ("int32", int)),
    **dict.fromkeys(("inference_seconds", "cost_usd", "original_cost_usd"), ("float64", (int, float))),
    **dict.fromkeys(("cost_is_estimate", "reused"), ("bool_", bool)),
    **dict.fromkeys(("submitted_at", "completed_at"), ("timestamp", str)),
}
_ATTEMPT_TYPES: dict[str, tuple[str, Any]] = {
    "attempt": ("int32", int),
    **dict.fromkeys(("gate", "reason", "request_id", "uri", "sha256"), ("string", str)),
    "seed": ("int64", int),
    "cost_usd": ("float64", (int, float)),
    "cost_is_estimate": ("bool_", bool),
}
_TEXT = ("string", str)


def check_outputs(outputs: Any, key_template: Any) -> list[str]:
    """Return the problems of ``outputs``."""
    if not isinstance(outputs, list | tuple):
        return [f"outputs: must be a list of {' and '.join(OUTPUT_FILES)}, not {type(outputs).__name__}"]
    problems = []
    for name in outputs:
        try:
            check_choice(name, tuple(OUTPUT_FILES))
        except ValueError as problem:
            problems.append(f"outputs: {problem}")
    if "imagefolder" in outputs and not str(key_template).lower().endswith(_IMAGE_ENDINGS):
        problems.append(
            f"outputs, key_template: an image folder needs keys that end in {', '.join(_IMAGE_ENDINGS)}; "
            "such as key_template='{id}.png'"
        )
    return problems


def missing_packages(outputs: Sequence[str]) -> list[str]:
    """Return the problem of an output whose package this worker does not have."""
    if "parquet" in outputs and find_spec("pyarrow") is None:
        return ["outputs: Parquet needs the provider's extra 'parquet' (pyarrow)"]
    return []


def write_outputs(
    outputs: Sequence[str], manifest: IO[bytes], use: PrefixUse, prefix: Target, arguments: Mapping[str, Any]
) -> None:
    """
    Write the files beside the manifest.

    :param outputs: Names of :data:`OUTPUT_FILES`.
    :param manifest: The manifest that was written.
    :param prefix: The prefix of the images.
    :param arguments: Further arguments of ``put_object``.
    :raises IdeogramTargetBusy: If another task has written the manifest since.
    :raises IdeogramStorageError: If S3 does not accept a file.
    """
    from airflow_provider_ideogram.datasets.manifest import SPOOL_BYTES

    writers: dict[str, tuple[Callable[[Iterator[Any], IO[bytes], Target], None], str]] = {
        "parquet": (_write_parquet, "application/vnd.apache.parquet"),
        "imagefolder": (_write_metadata, "application/x-ndjson"),
    }
    for name in dict.fromkeys(outputs):
        write, content_type = writers[name]
        manifest.seek(0)
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as file:
            write(map(json.loads, manifest), file, prefix)
            use.write_beside_manifest(OUTPUT_FILES[name], file, {**arguments, "ContentType": content_type})


def _write_metadata(lines: Iterator[dict[str, Any]], file: IO[bytes], prefix: Target) -> None:
    """Write a line of each stored image, with its path below the prefix as ``file_name``."""
    for line in lines:
        if line["status"] in (ImageStatus.GENERATED, ImageStatus.REUSED):
            described = {"file_name": line["key"].removeprefix(prefix.key)} | {
                name: line[name] for name in _DESCRIPTION
            }
            file.write(json.dumps(described, ensure_ascii=False).encode() + b"\n")


def _write_parquet(lines: Iterator[dict[str, Any]], file: IO[bytes], _: Target) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    from airflow_provider_ideogram.datasets.manifest import LINE_FIELDS

    def kind(arrow_type: str) -> Any:
        return pyarrow.timestamp("ms", "UTC") if arrow_type == "timestamp" else getattr(pyarrow, arrow_type)()

    attempt = pyarrow.struct([(name, kind(arrow_type)) for name, (arrow_type, _) in _ATTEMPT_TYPES.items()])
    nested = {"gates": pyarrow.list_(pyarrow.string()), "rejected_attempts": pyarrow.list_(attempt)}
    schema = pyarrow.schema([(name, nested.get(name) or kind(_TYPES.get(name, _TEXT)[0])) for name in LINE_FIELDS])
    with ParquetWriter(file, schema) as writer:
        while batch := list(islice(lines, _BATCH)):
            columns = {name: [_value(name, line.get(name)) for line in batch] for name in LINE_FIELDS}
            writer.write_table(pyarrow.table(columns, schema))


def _value(name: str, value: Any) -> Any:
    """Return a line's value as its column takes it; null for one of another type, as an edited line may have."""
    if name == "gates":
        return [_typed(_TEXT, gate) for gate in value] if isinstance(value, list) else None
    if name == "rejected_attempts":
        return [_attempt(attempt) for attempt in value] if isinstance(value, list) else None
    return _typed(_TYPES.get(name, _TEXT), value)


def _attempt(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    return {name: _typed(kind, value.get(name)) for name, kind in _ATTEMPT_TYPES.items()}


def _typed(kind: tuple[str, Any], value: Any) -> Any:
    arrow_type, kinds = kind
    if arrow_type == "string" and isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        return None
    if arrow_type == "timestamp":
        return _time(value)
    limit = {"int32": 1 << 31, "int64": 1 << 63}.get(arrow_type)
    return value if limit is None or -limit <= value < limit else None


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else None
