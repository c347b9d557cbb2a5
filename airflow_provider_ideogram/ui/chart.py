"""
The bars of a chart, as the template draws them in SVG.

Invariant: plain numbers and texts; the colours are those of the page, in light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 720, 220
#: The plot inside, and the share of a day's width that its bar takes.
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 14, 10, 24
_BAR = 0.72
#: The days between two labels of the axis, and the lines of the grid at most.
_LABEL_DAYS, _LINES = 5, 5


@dataclass(frozen=True, slots=True)
class DayCost:
    """
    The cost of a day in USD.

    :param day: The UTC day, as ``2026-11-25``.
    :param reserved: What open requests may cost.
    """

    day: str
    spent: float
    reserved: float


@dataclass(frozen=True, slots=True)
class Bar:
    """The bar of a day: what was spent, and on top what is reserved; lengths are in the units of the drawing."""

    cost: DayCost
    x: float
    width: float
    spent_y: float
    spent_height: float
    reserved_y: float
    reserved_height: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """
    A chart of costs by day.

    :param lines: The height of each line of the grid, with its label.
    """

    bars: Sequence[Bar]
    lines: Sequence[tuple[float, str]]
    left: float = _LEFT
    width: float = WIDTH
    height: float = HEIGHT
    base: float = HEIGHT - _BOTTOM


def chart_of(days: Sequence[DayCost]) -> Chart:
    """Draw the costs of consecutive days."""
    highest = max((day.spent + day.reserved for day in days), default=0.0)
    step = _step(highest)
    top = step * max(1, math.ceil(highest / step - 1e-9))
    base, plot = HEIGHT - _BOTTOM, HEIGHT - _BOTTOM - _TOP
    slot = (WIDTH - _LEFT - _RIGHT) / max(1, len(days))
    bars = []
    for number, day in enumerate(days):
        spent, reserved = (round(plot * amount / top, 2) for amount in (day.spent, day.reserved))
        label = day.day[5:] if (len(days) - 1 - number) % _LABEL_DAYS == 0 else ""
        x = round(_LEFT + slot * (number + (1 - _BAR) / 2), 2)
        width = round(slot * _BAR, 2)
        bars.append(Bar(day, x, width, base - spent, spent, base - spent - reserved, reserved, label))
    count = round(top / step)
    lines = [
        (round(base - plot * number / count, 2), f"{step * number:.{_digits(step)}f}") for number in range(count + 1)
    ]
    return Chart(bars, lines)


def _step(highest: float) -> float:
    """Return the distance between two lines of the grid: 1, 2 or 5 times a power of ten, a cent at least."""
    wanted = max(highest / _LINES, 0.01)
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= wanted - 1e-12)


def _digits(step: float) -> int:
    return 0 if step >= 1 else 2
