"""
Draw the image of a job: a pattern with the prompt as caption.

Invariant: equal pictures have equal bytes. Images are therefore not stored, but drawn again when requested.
"""

from __future__ import annotations

import colorsys
import io
import random
import textwrap
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont, ImageOps

from airflow_provider_ideogram.api.parameters import RESOLUTIONS
from airflow_provider_ideogram.emulator.jobs import Job

#: Used when the inputs have no resolution, or an unknown one.
_DEFAULT_RESOLUTION = "RESOLUTION_1024_1024"
#: Encoded images in the cache, a fraction of a megabyte each. It serves clients that fetch an image twice.
_CACHED_IMAGES = 32
_SHAPES = 7
_MAX_LINES = 6
#: Letters of the default font that fit into a width of one font size, on average and rounded down.
_LETTERS_PER_LINE = 1.6

#: Chosen for speed, not size: benchmarks draw thousands of images on the machine that they measure.
_ENCODING: dict[str, dict[str, int]] = {"png": {"compress_level": 1}, "jpeg": {"quality": 85}, "webp": {"method": 0}}


@dataclass(frozen=True, slots=True)
class Picture:
    """All inputs that determine an image's bytes."""

    model: str
    prompt: str
    magic_prompt_option: str
    resolution: str
    style_type: str
    seed: int
    image_format: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        _, width, height = self.resolution.split("_")
        return int(width), int(height)


def picture_of(job: Job, output: int = 0) -> Picture:
    """Return the picture of an output of a job. Each output has its own seed."""
    return Picture(
        model=job.model,
        prompt=job.prompt,
        magic_prompt_option=str(job.inputs.get("magic_prompt_option", "AUTO")),
        resolution=_resolution(job.inputs.get("resolution")),
        style_type=str(job.inputs.get("style_type", "GENERAL")),
        seed=job.seed + output,
        image_format=job.image_format,
    )


def _resolution(sent: object) -> str:
    """Return the resolution in the form of Ideogram 2a. Ideogram 3 has the form ``1024x1024``."""
    for resolution in (sent, f"RESOLUTION_{sent}".replace("x", "_")):
        if resolution in RESOLUTIONS:
            return str(resolution)
    return _DEFAULT_RESOLUTION


@lru_cache(maxsize=_CACHED_IMAGES)
def draw(picture: Picture) -> bytes:
    """Return the encoded image: prompt, seed and resolution over a pattern that depends on all inputs."""
    rng = random.Random(repr(picture))
    image = _background(picture.size, rng)
    canvas = ImageDraw.Draw(image)
    for _ in range(_SHAPES):
        _draw_shape(canvas, picture.size, rng)
    _draw_caption(canvas, picture)
    encoded = io.BytesIO()
    image.save(encoded, picture.image_format, **_ENCODING[picture.image_format])
    return encoded.getvalue()


def _colour(rng: random.Random, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.4, 0.8), value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _background(size: tuple[int, int], rng: random.Random) -> Image.Image:
    return ImageOps.colorize(Image.linear_gradient("L").resize(size), _colour(rng, 0.9), _colour(rng, 0.4))


def _draw_shape(canvas: ImageDraw.ImageDraw, size: tuple[int, int], rng: random.Random) -> None:
    x, y = rng.uniform(0, size[0]), rng.uniform(0, size[1])
    radius = rng.uniform(0.05, 0.25) * min(size)
    corners = rng.choice((0, 3, 4, 6))
    if corners:
        canvas.regular_polygon((x, y, radius), corners, rotation=rng.randrange(360), fill=_colour(rng, 0.8))
    else:
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_colour(rng, 0.8))


def _draw_caption(canvas: ImageDraw.ImageDraw, picture: Picture) -> None:
    width, height = picture.size
    font_size = min(width // 30, height // 20)
    font = ImageFont.load_default(font_size)
    drawable = picture.prompt.encode("utf-8", "replace").decode()
    lines = textwrap.wrap(
        drawable, width=int(_LETTERS_PER_LINE * width / font_size), max_lines=_MAX_LINES, placeholder=" …"
    )
    lines.append(f"seed {picture.seed}   {width} x {height}   {picture.style_type}")
    line_height = font_size * 3 // 2
    top = height - line_height * len(lines) - line_height // 2
    canvas.rectangle((0, top - line_height // 2, width, height), fill=(24, 24, 28))
    for number, line in enumerate(lines):
        canvas.text((font_size, top + number * line_height), line, font=font, fill=(245, 245, 240))
