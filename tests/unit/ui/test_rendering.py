from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_ideogram.api.parameters import RESOLUTIONS
from airflow_provider_ideogram.ui import rendering

ODD: list[Any] = [None, True, "1", [], {}, float("nan"), float("inf"), 1e300]


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("name", ["money", "seconds", "count", "size"])
def test_what_is_no_number_is_unknown(name: str, value: Any) -> None:
    assert getattr(rendering, name)(value) == "unknown"


def test_numbers_have_units() -> None:
    assert rendering.money(0.05) == "0.05 USD"
    assert [rendering.seconds(value) for value in (12.44, 120, 3900)] == ["12.4 s", "2 min", "1 h 05 min"]
    assert rendering.count(2000) == "2,000"
    assert rendering.size(2_097_152) == "2,048 KiB"


def test_times_are_in_utc() -> None:
    local = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    assert rendering.moment(local) == rendering.moment("2026-01-02T01:04:05.9Z") == "2026-01-02 01:04:05 UTC"
    assert rendering.moment("soon") == rendering.moment(None) == "unknown"
    assert rendering.moment("0001-01-01T00:00:00+14:00") == "unknown"


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({"width": 1024, "height": 768, "resolution": "RESOLUTION_1_1"}, "1024 \u00d7 768"),
        ({"resolution": "RESOLUTION_1024_640"}, "1024 \u00d7 640"),
        ({}, "unknown"),
    ],
)
def test_resolution(facts: dict[str, Any], shown: str) -> None:
    assert rendering.resolution(facts) == shown


def test_address_escapes_every_part() -> None:
    assert rendering.address("/ideogram", "dags", "a/b", None, "x+y?", page=2, no=None) == (
        "/ideogram/dags/a%2Fb/x%2By%3F?page=2"
    )
    assert rendering.address("", "dags") == "/dags"


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_ratio_of_every_resolution(resolution: str) -> None:
    width, height = (int(side) for side in resolution.split("_")[1:])
    assert rendering.ratio({"resolution": resolution}) == width / height
    assert rendering.ratio({"width": width, "height": height, "resolution": "RESOLUTION_512_1536"}) == width / height


@pytest.mark.parametrize("value", [*ODD, 0, -1])
def test_ratio_of_made_up_values_is_possible(value: Any) -> None:
    assert rendering.ratio({"width": value, "height": 1024, "resolution": value}) == 1
    assert rendering.ratio({"width": 1, "height": 10**9}) == 1 / 3
    assert rendering.ratio({"resolution": "RESOLUTION_99999_1"}) == 3
