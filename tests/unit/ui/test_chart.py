from __future__ import annotations

import pytest

from airflow_provider_ideogram.ui.chart import HEIGHT, WIDTH, DayCost, chart_of


def days(*amounts: tuple[float, float]) -> list[DayCost]:
    return [DayCost(f"2026-11-{number + 1:02}", spent, reserved) for number, (spent, reserved) in enumerate(amounts)]


@pytest.mark.parametrize(
    ("highest", "labels"),
    [
        (0.0, ["0.00", "0.01"]),
        (0.05, ["0.00", "0.01", "0.02", "0.03", "0.04", "0.05"]),
        (0.31, ["0.00", "0.10", "0.20", "0.30", "0.40"]),
        (7.0, ["0", "2", "4", "6", "8"]),
        (94.2, ["0", "20", "40", "60", "80", "100"]),
        (1234.5, ["0", "500", "1000", "1500"]),
    ],
)
def test_grid_has_round_amounts(highest: float, labels: list[str]) -> None:
    assert [label for _, label in chart_of(days((highest, 0.0))).lines] == labels


def test_bars_are_stacked_and_in_proportion_within_the_drawing() -> None:
    chart = chart_of(days((2.0, 0.0), (1.0, 1.0), (0.0, 0.0)))
    first, second, third = chart.bars
    assert second.spent_height == second.reserved_height == first.spent_height / 2
    assert second.reserved_y == second.spent_y - second.reserved_height == first.spent_y
    assert third.spent_height == third.reserved_height == 0
    assert all(chart.left <= bar.x and bar.x + bar.width <= WIDTH for bar in chart.bars)
    assert all(0 <= y <= HEIGHT for y, _ in chart.lines)


def test_every_fifth_day_has_a_label_and_the_last_one() -> None:
    labels = [bar.label for bar in chart_of(days(*[(1.0, 0.0)] * 11)).bars]
    assert [label for label in labels if label] == ["11-01", "11-06", "11-11"]


def test_no_days_are_an_empty_chart() -> None:
    assert chart_of([]).bars == []
