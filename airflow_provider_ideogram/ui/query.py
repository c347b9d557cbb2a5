"""
What a user looks for in a run: a search, filters and an order, as they are in a page's address.

Invariant: a page's address has the whole query, so that the page can be reloaded and shared.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import Query as QueryParam

from airflow_provider_ideogram.api.parameters import STYLE_TYPES
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.reviews.review import Decision
from airflow_provider_ideogram.ui.records import Item
from airflow_provider_ideogram.ui.rendering import is_number, resolution

#: The status of an image that may be there soon, whatever its task's state is.
AWAITED = "awaited"
STATUSES = (*ImageStatus, AWAITED)
STYLES = STYLE_TYPES
#: The decision on an image that a review has, or has not, decided.
UNDECIDED = "undecided"
DECISIONS = (UNDECIDED, *Decision)
#: The orders that a user can choose, with their names; without one the images are in the order of tasks and rows.
ORDERS = {
    "newest": "Newest first",
    "oldest": "Oldest first",
    "dearest": "Highest cost first",
    "cheapest": "Lowest cost first",
    "prompt": "By prompt",
}

_Text = Annotated[str, QueryParam(max_length=500)]


@dataclass(frozen=True, slots=True)
class Query:
    """
    A query; an empty field does not restrict.

    :param q: Words that the prompt or the name has, in any case.
    :param status: One of :data:`STATUSES`.
    :param size: A resolution in pixels, such as ``1024x768``.
    :param seed: The seed's digits.
    :param sort: One of :data:`ORDERS`.
    :param decision: One of :data:`DECISIONS`.
    """

    q: str = ""
    status: str = ""
    style: str = ""
    size: str = ""
    task: str = ""
    seed: str = ""
    sort: str = ""
    decision: str = ""

    @property
    def parameters(self) -> dict[str, str]:
        """The query in an address."""
        return {name: value for name, value in asdict(self).items() if value}

    @property
    def filters(self) -> int:
        """The number of its filters, the search aside."""
        return len(self.parameters.keys() - {"q", "sort"})

    def matches(self, item: Item) -> bool:
        """Return whether an item is looked for."""
        facts = item.facts
        text = f"{item.prompt}\n{item.name}".casefold()
        return (
            all(word in text for word in self.q.casefold().split())
            and (not self.status or self._has_status(item))
            and self.style in ("", facts.get("style_type"))
            and (not self.size or _digits(self.size) == _digits(resolution(facts)))
            and self.task in ("", item.instance.task_id)
            and (not self.decision or self._has_decision(item))
            and self.seed.strip() in ("", str(facts.get("seed")))
        )

    def _has_status(self, item: Item) -> bool:
        return item.is_awaited if self.status == AWAITED else item.status == self.status

    def _has_decision(self, item: Item) -> bool:
        return item.is_accepted and (item.decision or UNDECIDED) == self.decision

    def page(self, items: Iterable[Item], offset: int, limit: int) -> tuple[list[Item], int]:
        """
        Return a page of the items that match, in the order that is asked for, and the number of all that match.

        Items that do not know what they are sorted by are last. No more items are in memory than those up to the page.
        """
        found = 0

        def matching() -> Iterator[Item]:
            nonlocal found
            for item in items:
                if self.matches(item):
                    found += 1
                    yield item

        rest = matching()
        if self.sort in ORDERS:
            key, is_descending = _KEYS[self.sort]
            first = heapq.nlargest if is_descending else heapq.nsmallest
            ordered = first(offset + limit, rest, key=lambda item: ((key(item) is None) != is_descending, key(item)))
            return ordered[offset:], found
        page = list(islice(rest, offset, offset + limit))
        deque(rest, maxlen=0)  # counts them
        return page, found


def query_of(
    q: _Text = "",
    status: _Text = "",
    style: _Text = "",
    size: _Text = "",
    task: _Text = "",
    seed: _Text = "",
    sort: Literal["", "newest", "oldest", "dearest", "cheapest", "prompt"] = "",
    decision: _Text = "",
) -> Query:
    """Read the query from an address."""
    return Query(q, status, style, size, task, seed, sort, decision)


def _time(item: Item) -> Any:
    times = (item.facts.get(name) for name in ("completed_at", "submitted_at"))
    return next((time for time in times if isinstance(time, str)), None)


def _cost(item: Item) -> Any:
    cost = item.facts.get("cost_usd")
    return cost if is_number(cost) else None


def _prompt(item: Item) -> Any:
    return item.prompt.casefold() or None


_KEYS: Mapping[str, tuple[Callable[[Item], Any], bool]] = {
    "newest": (_time, True),
    "oldest": (_time, False),
    "dearest": (_cost, True),
    "cheapest": (_cost, False),
    "prompt": (_prompt, False),
}


def _digits(text: str) -> list[str]:
    return "".join(one if one.isdecimal() else " " for one in text).split()
