"""Connections with a limit or a budget for the tests of the account."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from tests.support.world import World

#: Sets fields of the connection's extra.
Account: TypeAlias = Callable[..., None]
#: Returns the account's object whose name contains a text, except closed days.
Objects: TypeAlias = Callable[[str], dict[str, Any]]


@pytest.fixture
def account(ideogram_connection: str, monkeypatch: pytest.MonkeyPatch) -> Account:
    """Set fields of the connection's extra."""

    def configure(**extra: Any) -> None:
        connection = json.loads(os.environ["AIRFLOW_CONN_IDEOGRAM_DEFAULT"])
        known = connection.get("extra") or {}
        known = json.loads(known) if isinstance(known, str) else known
        connection["extra"] = {**known, **extra}
        monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", json.dumps(connection))

    return configure


@pytest.fixture
def account_objects(world: World) -> Objects:
    """
    Return the account's object whose name contains a text.

    In the first hour of a UTC day, the day before has an object as well, which is closed.
    """

    def read(part: str) -> dict[str, Any]:
        keys = [key for key in world.object_keys() if "_account/" in key and part in key]
        found: list[dict[str, Any]] = [json.loads(world.stored(key)) for key in keys]
        [value] = [one for one in found if not one.get("closed")]
        return value

    return read


def totals(day: dict[str, Any]) -> list[list[int]]:
    """Return images, millionths of a USD, failed and unknown requests of each spender."""
    return [counts for _, *counts in day["totals"]]
