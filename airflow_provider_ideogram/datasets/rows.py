"""
The rows of a prompt dataset, and the items that they become.

Invariant: each row is checked completely before anything is submitted. A problem names the row's place, in one short
line.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from airflow_provider_ideogram.api.parameters import CHECKS, DRAWN_SEEDS, GenerationRequest
from airflow_provider_ideogram.api.values import shown, whole_number
from airflow_provider_ideogram.datasets.columns import ID, PROMPT, Columns
from airflow_provider_ideogram.datasets.expansion import MAX_IMAGES, Expansion
from airflow_provider_ideogram.datasets.prompt_template import PromptTemplate
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.storage.target import Target, check_key

#: The manifest's name below the prefix, which no image may have.
MANIFEST = "manifest.jsonl"
#: The name of each file that the operator may write beside it; these no image may have either.
OUTPUT_FILES = {"parquet": "manifest.parquet", "imagefolder": "metadata.jsonl"}
#: Bad rows that an error lists.
MAX_LISTED = 20
#: Characters of a row's problem, which quotes the row's values.
_MAX_PROBLEM = 500


@dataclass(frozen=True, slots=True)
class Item:
    """
    An image of a valid row.

    :param row: Its position among the images of the input, from 0.
    :param id: The row's id, or one made from its inputs, with what distinguishes the images of the row.
    :param request: Its request.
    :param key: The key of its image.
    :param copy_of: The key of another row's image that is copied, empty for an image that is generated. It equals
        ``key`` if both rows have the same id, made from their inputs.
    :param absent: Whether no object was at its key when the run was planned, or the run's own.
    :param own: Whether the run's own image was there, which is replaced if its inputs were changed.
    :param asked: The fingerprint of the row's own request, empty if that is the present one: another attempt has
        another seed.
    :param rejected: The rejected attempts of this execution, as the manifest has them.
    :param earlier: Those of earlier executions of the run, whose images are checked again.
    """

    row: int
    id: str
    request: GenerationRequest
    key: str
    copy_of: str = ""
    absent: bool = False
    own: bool = False
    asked: str = ""
    rejected: tuple[Mapping[str, Any], ...] = ()
    earlier: tuple[Mapping[str, Any], ...] = ()

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the row's own request, which its image has, whichever attempt made it."""
        return self.asked or self.request.fingerprint

    @property
    def attempts(self) -> Sequence[Mapping[str, Any]]:
        """The rejected attempts of all executions of the run, also those whose image a gate accepts now."""
        return list({attempt["request_id"]: attempt for attempt in (*self.earlier, *self.rejected)}.values())

    def redone(self, attempt: Mapping[str, Any]) -> Item:
        """
        Return the item after a rejected attempt, with the seed of the next one, which follows from row and attempt.

        :param attempt: The rejected attempt, as the manifest has it.
        """
        rejected = (*self.rejected, attempt)
        first, last = DRAWN_SEEDS
        digest = hashlib.sha256(f"{self.fingerprint}/{self.id}/{len(rejected) + 1}".encode()).hexdigest()
        request = replace(self.request, seed=first + int(digest, 16) % (last - first + 1))
        return replace(self, request=request, asked=self.fingerprint, rejected=rejected)

    def to_json(self) -> dict[str, Any]:
        """Return the item as plain JSON."""
        return {**{item.name: getattr(self, item.name) for item in fields(self)}, "request": self.request.inputs()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Item:
        """Restore the item from :meth:`to_json`."""
        attempts = {name: tuple(value.get(name, ())) for name in ("rejected", "earlier")}
        return cls(**{**value, **attempts, "request": GenerationRequest.from_inputs(value["request"])})


class RowChecker:
    """
    Turn rows into items, and collect the problems of bad rows.

    :param defaults: The request parameters of rows that have none of their own.
    :param prefix: The prefix of the images.
    :param key_template: The images' keys below it, with ``{id}`` and the number of the row, ``{row}``.
    :param dedupe: Whether rows with identical inputs share an image.
    :param expansion: The images of a row; one without it.
    :param prompt_template: Makes the prompts of the rows' columns.
    """

    def __init__(
        self,
        defaults: Mapping[str, Any],
        prefix: Target,
        key_template: str,
        *,
        dedupe: bool = False,
        expansion: Expansion | None = None,
        prompt_template: PromptTemplate | None = None,
    ) -> None:
        self._defaults = dict(defaults)
        self._prefix = prefix
        self._key_template = key_template
        self._expansion = expansion or Expansion()
        self._prompt_template = prompt_template
        self._columns = Columns(prompt_template.columns if prompt_template else ())
        # The id of each key's row, None for the manifest's files; with digests a million rows take about 140 MB.
        files = (MANIFEST, *OUTPUT_FILES.values())
        self._ids: dict[bytes, str | None] = {_folded_digest(prefix.key + name): None for name in files}
        self._key_by_fingerprint: dict[str, str] | None = {} if dedupe else None
        self.images = 0
        self.bad_rows = 0
        self.problems: list[str] = []

    @property
    def needed_columns(self) -> Sequence[str]:
        """The columns that each row must have, as :func:`column_name` returns them."""
        return self._prompt_template.columns if self._prompt_template else (PROMPT,)

    @property
    def unknown_columns(self) -> Collection[str]:
        """Columns that are neither parameters nor in the template; at most 50."""
        return self._columns.unknown

    def items(self, rows: Iterable[tuple[str, Any]]) -> Iterator[Item]:
        """
        Yield the items of the valid rows.

        :param rows: Each row with its place, such as ``line 7``.
        :raises IdeogramInvalidInput: If there are more than a million.
        """
        for item in self._items(rows):
            if item.row >= MAX_IMAGES:
                raise IdeogramInvalidInput.of([f"the rows make more than {MAX_IMAGES:,} images, a task's limit"])
            yield item

    def _items(self, rows: Iterable[tuple[str, Any]]) -> Iterator[Item]:
        for row, (place, value) in enumerate(rows):
            try:
                yield from self._items_of_row(row, value)
            except ValueError as problem:
                self.bad_rows += 1
                if len(self.problems) < MAX_LISTED:
                    self.problems.append(f"{place}: {_one_line(problem)}")

    def raise_for_bad_rows(self, total: int) -> None:
        """Raise IdeogramInvalidInput if any row was bad; it lists the first 20 problems."""
        if self.bad_rows:
            more = self.bad_rows - len(self.problems)
            rest = [f"… and {more} more bad rows"] if more else []
            raise IdeogramInvalidInput.of([f"{self.bad_rows} of {total} rows can't be used", *self.problems, *rest])

    def _items_of_row(self, row: int, value: Any) -> Iterator[Item]:
        if isinstance(value, ValueError):
            raise value
        columns = {PROMPT: value} if isinstance(value, str) else value
        if not isinstance(columns, Mapping):
            raise ValueError(f"must be a prompt or a mapping, not {type(value).__name__}")
        values = self._columns.read(columns)
        own = _parameters(values)
        of_row = GenerationRequest(**self._defaults | own | {PROMPT: self._prompt(values)})
        row_id = None if values.get(ID) is None else _id(values[ID])
        for item_id, request in self._expansion.images(of_row, own, row_id):
            key = self._key(row, item_id)
            copy_of = None if self._key_by_fingerprint is None else self._key_by_fingerprint.get(request.fingerprint)
            if copy_of != key or row_id is not None:
                self._check_unique(key, item_id)
            if self._key_by_fingerprint is not None:
                self._key_by_fingerprint.setdefault(request.fingerprint, key)
            self.images += 1
            yield Item(self.images - 1, item_id, request, key, copy_of=copy_of or "")

    def _prompt(self, values: Mapping[str, Any]) -> Any:
        prompt, template = values.get(PROMPT), self._prompt_template
        if template is None:
            if prompt is None:
                raise ValueError("has no prompt")
            return prompt
        if prompt is not None and PROMPT not in template.columns:
            raise ValueError("has a prompt, and prompt_template does not contain {prompt}")
        return template.render(values)

    def _key(self, row: int, item_id: str) -> str:
        key = self._prefix.key + self._key_template.format(id=item_id, row=row)
        if problems := check_key(key, with_bucket=True, name="key"):
            raise ValueError("; ".join(problems))
        if key.endswith("/"):
            raise ValueError(f"its key {key!r} must not end in '/'")
        return key

    def _check_unique(self, key: str, item_id: str) -> None:
        digest = _folded_digest(key)
        if digest not in self._ids:
            self._ids[digest] = item_id
            return
        first = self._ids[digest]
        if first is None:
            raise ValueError(f"its key {key!r} must not be the manifest's, or that of a file beside it")
        raise ValueError(
            f"id {item_id!r} and id {first!r} have the same key, or keys that differ only in case or in the form of "
            "accents, which are the same file on macOS and Windows. Give them other ids, or use {row} in key_template. "
            "Identical rows without ids need ids of their own, or dedupe=True"
        )


def _folded_digest(key: str) -> bytes:
    """
    Return a digest that is the same for keys which are the same file on macOS or Windows.

    S3 has an object for each of them, but a copy on such a disk would have only the last one.
    """
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", key).casefold())
    return hashlib.blake2b(folded.encode(), digest_size=12).digest()


def _parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {name: value for name, value in values.items() if name in CHECKS and value is not None}
    if isinstance(parameters.get("model_params"), str):  # as in CSV
        try:
            parameters["model_params"] = json.loads(parameters["model_params"])
        except ValueError as problem:
            raise ValueError(f"model_params: {problem}") from None
    return parameters


def _id(value: Any) -> str:
    """Return a row's id as text; a whole number may be any that pandas or a database has."""
    try:
        text = value if isinstance(value, str) else str(whole_number(value))
    except ValueError:
        raise ValueError(f"id {shown(value)} must be text or an integer") from None
    if not text.strip() or not text.isprintable() or "/" in text:
        raise ValueError(f"id {text!r} must be printable, not blank, and without '/'")
    return text


def _one_line(problem: ValueError) -> str:
    text = " ".join((problem.reason if isinstance(problem, IdeogramInvalidInput) else str(problem)).split())
    return f"{text[:_MAX_PROBLEM]}…" if len(text) > _MAX_PROBLEM else text
