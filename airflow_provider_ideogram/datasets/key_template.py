"""
The template of an image's key.

Invariant: a key depends on the row's id and number only, not on their attributes or items. Imports nothing heavy: DAG
files load it.
"""

from __future__ import annotations

import string
from typing import Any

_FIELDS = ("id", "row")


def check_key_template(template: Any, *, needs_id: bool = False) -> list[str]:
    """
    Return the problems of a ``key_template``: it must contain ``{id}`` or ``{row}``, and no other field.

    :param needs_id: Whether a row may have several images, which differ in their id only.
    """
    try:
        named = [(name, spec) for _, name, spec, _ in string.Formatter().parse(template) if name is not None]
        for name, spec in named:
            if name not in _FIELDS or "{" in (spec or ""):
                raise ValueError(f"{name}{spec} is neither id nor row")
        if template.format(id="1", row=1) == template.format(id="2", row=1 if needs_id else 2):
            raise ValueError(
                "all images of a row would have the same key" if needs_id else "all rows would have the same key"
            )
    except (LookupError, TypeError, ValueError) as problem:
        return [f"key_template: {template!r} does not make a key of {{id}} or {{row}}: {problem}"]
    return []
