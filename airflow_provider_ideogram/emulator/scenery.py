"""
Landscapes in flat colours, in the manner of a printed poster.

Invariant: a landscape follows from its size and the random numbers alone. It is drawn by a few polygons, since
benchmarks draw thousands on the machine that they measure.
"""

from __future__ import annotations

import colorsys
import random
from itertools import pairwise
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageOps

_Colour: TypeAlias = tuple[int, int, int]
_Size: TypeAlias = tuple[int, int]
#: The hues of a palette's sky at the top, sky at the horizon, and land, in degrees: dawn, noon, dusk, night, autumn.
_PALETTES = ((262, 24, 250), (205, 190, 150), (285, 345, 265), (228, 262, 224), (190, 45, 12), (170, 60, 195))
_RIDGES = 4
#: The points of a ridge's line.
_POINTS = 33
_TREES = 26
_TOWERS = 14


def landscape(size: _Size, rng: random.Random) -> Image.Image:
    """Return a landscape: a sky with a sun or moon, and ridges that become darker towards the front."""
    top, horizon, land = (hue / 360 for hue in rng.choice(_PALETTES))
    far, near = _colour(horizon, 0.45, 0.86), _colour(land, 0.62, 0.22)
    sky = _blend(_colour(top, 0.62, 0.62), _colour(top, 0.3, 0.9), rng.random())
    image = ImageOps.colorize(Image.linear_gradient("L").resize(size), sky, _colour(horizon, 0.38, 0.99))
    canvas = ImageDraw.Draw(image)
    _draw_sun(canvas, size, _colour(horizon, 0.16, 1.0), rng)
    motif = rng.choice((_draw_trees, _draw_towers, _draw_birds))
    for ridge in range(_RIDGES):
        share = (ridge + 1) / _RIDGES
        colour = _blend(far, near, share)
        line = _ridge(size, 0.42 + 0.38 * share, 0.2 * (1.25 - share), rng)
        if ridge == _RIDGES - 2:
            motif(canvas, size, line, _blend(far, near, share + 0.12), rng)
        canvas.polygon([(0, size[1]), *line, (size[0], size[1])], fill=colour)
    return image


def _draw_sun(canvas: ImageDraw.ImageDraw, size: _Size, colour: _Colour, rng: random.Random) -> None:
    x, y = rng.uniform(0.15, 0.85) * size[0], rng.uniform(0.14, 0.42) * size[1]
    radius = rng.uniform(0.07, 0.15) * min(size)
    canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _ridge(size: _Size, height: float, roughness: float, rng: random.Random) -> list[tuple[float, float]]:
    """Return the line of a ridge, by displacing midpoints."""
    line = [rng.uniform(-1, 1), rng.uniform(-1, 1)]
    step = 1.0
    while len(line) < _POINTS:
        step *= 0.55
        between = [(left + right) / 2 + rng.uniform(-step, step) for left, right in pairwise(line)]
        line = [point for pair in zip(line, between, strict=False) for point in pair] + line[-1:]
    width, scale = size[0] / (len(line) - 1), roughness * size[1]
    return [(index * width, height * size[1] + value * scale) for index, value in enumerate(line)]


def _draw_trees(
    canvas: ImageDraw.ImageDraw, size: _Size, line: list[tuple[float, float]], colour: _Colour, rng: random.Random
) -> None:
    for _ in range(_TREES):
        x, y = rng.choice(line)
        x += rng.uniform(-1, 1) * size[0] / _POINTS
        height = rng.uniform(0.07, 0.14) * min(size)
        for part in range(3):
            tip, foot = y - height + part * height * 0.22, y - height * 0.5 + part * height * 0.3
            half = height * (0.14 + 0.07 * part)
            canvas.polygon([(x, tip), (x - half, foot), (x + half, foot)], fill=colour)
        canvas.rectangle((x - height * 0.03, y - height * 0.1, x + height * 0.03, y + height), fill=colour)


def _draw_towers(
    canvas: ImageDraw.ImageDraw, size: _Size, line: list[tuple[float, float]], colour: _Colour, rng: random.Random
) -> None:
    light = _blend(colour, (255, 224, 150), 0.75)
    width = size[0] / _TOWERS * 0.8
    foot = sum(y for _, y in line) / len(line)
    for number in range(_TOWERS):
        x = number * size[0] / _TOWERS
        top = foot - rng.uniform(0.08, 0.34) * size[1] * (1 - abs(number / _TOWERS - 0.5))
        canvas.rectangle((x, top, x + width, size[1]), fill=colour)
        window = width / 7
        for row in range(int((foot - top) / (window * 2))):
            for column in (1, 3, 5):
                if rng.random() < 0.35:
                    left, above = x + column * window, top + window * (1 + 2 * row)
                    canvas.rectangle((left, above, left + window, above + window), fill=light)


def _draw_birds(
    canvas: ImageDraw.ImageDraw, size: _Size, line: list[tuple[float, float]], colour: _Colour, rng: random.Random
) -> None:
    ground = min(y for _, y in line)
    for _ in range(9):
        x, y = rng.uniform(0.1, 0.9) * size[0], rng.uniform(0.1, 0.85) * ground
        wing = rng.uniform(0.012, 0.03) * min(size)
        stroke = max(round(wing / 5), 1)
        canvas.arc((x - 2 * wing, y - wing, x, y + wing), 200, 350, fill=colour, width=stroke)
        canvas.arc((x, y - wing, x + 2 * wing, y + wing), 190, 340, fill=colour, width=stroke)


def _colour(hue: float, saturation: float, value: float) -> _Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _blend(first: _Colour, second: _Colour, share: float) -> _Colour:
    red, green, blue = (round(one + (two - one) * min(share, 1.0)) for one, two in zip(first, second, strict=True))
    return red, green, blue
