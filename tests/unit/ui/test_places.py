from __future__ import annotations

from uuid import UUID

import pytest

from airflow_provider_ideogram.ui.places import Place

REGION = UUID(int=7)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("-1", Place(-1)),
        ("12", Place(12)),
        (f"-1@{REGION.hex}.2", Place(-1, REGION, 2)),
        ("", None),
        ("-2", None),
        ("1@7.2", None),
        (f"1@{REGION.hex}", None),
        ("{MAP_INDEX}", None),
        ("\u0661", None),
    ],
)
def test_place_in_an_address(text: str, place: Place | None) -> None:
    assert Place.parse(text) == place


def test_place_of_a_row() -> None:
    assert Place.of_row("a", 3) == Place(3)
    assert Place.of_row("a", 3, None, None, None) == Place(3)
    mapped = Place.of_row("a", 3, REGION, "a", b"")
    assert (mapped, str(mapped)) == (Place(3, REGION, 3), "3")
    looped = Place.of_row("a", 2, REGION, "loop", b"")
    assert (looped.iteration, str(looped)) == (2, f"-1@{REGION.hex}.2")
    both = Place.of_row("a", 3, REGION, "a", b"\1" * 16 + b"\0\0\0\5")
    assert (both.iteration, str(both)) == (5, f"3@{REGION.hex}.3")


def test_place_of_all_iterations_includes_each() -> None:
    one, other = Place(-1, REGION, 2, 2), Place(-1, REGION, 3, 3)
    assert Place(-1).includes(one)
    assert not Place(0).includes(one)
    assert Place(-1, REGION, 2).includes(one)
    assert not Place(-1, REGION, 2).includes(other)
