"""
Images side by side: which are selected, and in what they differ.

Invariant: a selected image is named as in its own address, by task, map index and row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_ideogram.ui.places import Place
from airflow_provider_ideogram.ui.records import Item
from airflow_provider_ideogram.ui.rendering import UNKNOWN, cost, moment, resolution, seconds

MOST = 4
_MISSING = "none"
#: What followed from the parameters; that it differs is no difference of theirs.
_RESULTS = ("Cost", "Time at the vendor", "Completed")


@dataclass(frozen=True, slots=True)
class Fact:
    """
    A line of the comparison.

    :param values: The value of each image.
    """

    name: str
    values: Sequence[str]

    @property
    def differs(self) -> bool:
        """Whether the images differ in it, and it is a parameter."""
        return self.name not in _RESULTS and len(set(self.values)) > 1

    @property
    def is_common(self) -> bool:
        """Whether all images have the same value."""
        return len(set(self.values)) == 1


def place_of(name: str) -> tuple[str, Place, str] | None:
    """Return the task, place and row that a name in an address has, None if it is not valid."""
    parts = name.split("/")
    place = Place.parse(parts[1]) if len(parts) == 3 and all(parts) else None
    return None if place is None else (parts[0], place, parts[2])


def differences(items: Sequence[Item]) -> list[Fact]:
    """Return the facts of images, the parameters in which they differ first; what no image knows is left out."""
    columns = [_facts(item) for item in items]
    facts = [Fact(name, [column[name] for column in columns]) for name in columns[0]] if columns else []
    known = [fact for fact in facts if not {UNKNOWN, _MISSING}.issuperset(fact.values)]
    return sorted(known, key=lambda fact: not fact.differs)


def _facts(item: Item) -> dict[str, str]:
    facts = item.facts

    def text(name: str) -> str:
        value = facts.get(name)
        return _MISSING if value is None or value == "" else str(value)

    return {
        "Prompt": item.prompt or _MISSING,
        "Seed": text("seed"),
        "Resolution": resolution(facts),
        "Style": text("style_type"),
        "Magic prompt": text("magic_prompt_option"),
        "Model": text("model"),
        "Cost": cost(facts),
        "Time at the vendor": seconds(facts.get("inference_seconds")),
        "Completed": moment(facts.get("completed_at")),
    }
