"""
Values as text, and templates as HTML.

Invariant: all values are escaped; a value of the wrong type is shown as unknown.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from airflow_provider_ideogram.ui import URL_PREFIX

UNKNOWN = "unknown"
#: The decisions of a review, as they are shown.
VERDICTS = {"approve": "approved", "reject": "rejected", "redo": "redo"}
_RESOLUTION = re.compile(r"RESOLUTION_([1-9]\d{0,4})_([1-9]\d{0,4})")
#: The vendor's narrowest image is 512 by 1536 pixels; what an XCom may say beyond that is not shown so.
_MIN_RATIO = 1 / 3


def render(template: str, *, root: str, **values: Any) -> str:
    """
    Render a template.

    :param root: The path below which the application is mounted.
    """
    return _environment.get_template(template).render(root=root, **values)


def address(root: str, *parts: Any, **query: Any) -> str:
    """Return an address of the application: each part is escaped, what is None is left out."""
    path = "/".join([root, *(_quoted(str(part)) for part in parts if part is not None)])
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


@lru_cache(1024)  # the addresses of a page have most of their parts in common
def _quoted(part: str) -> str:
    return quote(part, safe="", errors="replace")


def money(value: Any) -> str:
    """Return an amount of US dollars."""
    return f"{value:.2f} USD" if is_number(value) else UNKNOWN


def cost(facts: Any) -> str:
    """Return what the task paid, what a reused image cost originally, and whether that is an estimate."""
    paid, original = facts.get("cost_usd"), facts.get("original_cost_usd")
    if facts.get("reused") and is_number(original):
        about = "about " if facts.get("cost_is_estimate") else ""
        return f"{money(paid)} (originally {about}{money(original)})"
    if facts.get("cost_is_estimate") and is_number(paid):
        return f"about {money(paid)} (list price)"
    return money(paid)


def seconds(value: Any) -> str:
    """Return a duration, such as ``12.4 s`` or ``1 h 05 min``."""
    if not is_number(value):
        return UNKNOWN
    if value < 100:
        return f"{value:.1f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def count(value: Any) -> str:
    """Return a number with separators of thousands."""
    return f"{value:,.0f}" if is_number(value) else UNKNOWN


def size(value: Any) -> str:
    """Return a number of bytes."""
    return f"{value / 1024:,.0f} KiB" if is_number(value) else UNKNOWN


def moment(value: Any) -> str:
    """Return a time to the second in UTC, from a datetime or from ISO 8601."""
    try:
        parsed = (value if isinstance(value, datetime) else datetime.fromisoformat(value)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return UNKNOWN
    return f"{parsed:%Y-%m-%d %H:%M:%S} UTC"


def clock(value: Any) -> str:
    """Return a time in seconds since the epoch to the minute in UTC."""
    return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M} UTC"


def resolution(facts: Any) -> str:
    """Return the size in pixels, as it is or as it was asked for."""
    if is_number(facts.get("width")) and is_number(facts.get("height")):
        return f"{facts['width']:.0f} × {facts['height']:.0f}"  # noqa: RUF001
    asked = str(facts.get("resolution") or UNKNOWN)
    return asked.removeprefix("RESOLUTION_").replace("_", " × ")  # noqa: RUF001


def ratio(facts: Any) -> float:
    """Return the width divided by the height of an image, as it is or as it was asked for; 1 if unknown."""
    width, height = facts.get("width"), facts.get("height")
    if not all(is_number(side) and side > 0 for side in (width, height)):
        found = _RESOLUTION.fullmatch(str(facts.get("resolution")))
        width, height = (int(found[1]), int(found[2])) if found else (1, 1)
    return min(max(float(width / height), _MIN_RATIO), 1 / _MIN_RATIO)


def is_number(value: Any) -> bool:
    """Return whether a value of an XCom is a finite number that can be shown."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


_environment = Environment(
    loader=PackageLoader("airflow_provider_ideogram.ui"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals |= {"address": address, "verdicts": VERDICTS}
_environment.filters |= {
    "money": money,
    "cost": cost,
    "seconds": seconds,
    "count": count,
    "size": size,
    "moment": moment,
    "clock": clock,
    "resolution": resolution,
    "ratio": ratio,
    "airflow_root": lambda root: root.removesuffix(URL_PREFIX),
}
