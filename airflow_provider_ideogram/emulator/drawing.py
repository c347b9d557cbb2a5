"""
Draw the image of a job: a landscape with the prompt as caption.

Invariant: equal pictures have equal bytes. Images are therefore not stored, but drawn again when requested.
"""

from __future__ import annotations

import io
import random
import textwrap
from dataclasses import dataclass, field
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from airflow_provider_ideogram.api.parameters import RESOLUTIONS
from airflow_provider_ideogram.emulator.jobs import Job
from airflow_provider_ideogram.emulator.scenery import landscape

#: Used when the inputs have no resolution, or an unknown one.
_DEFAULT_RESOLUTION = "RESOLUTION_1024_1024"
#: Encoded images in the cache, a fraction of a megabyte each. It serves clients that fetch an image twice.
_CACHED_IMAGES = 32
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
    is_blank: bool = field(default=False, repr=False)  # repr() is the landscape's seed

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
        is_blank=job.outcome.is_blank,
    )


def _resolution(sent: object) -> str:
    """Return the resolution in the form of Ideogram 2a. Ideogram 3 has the form ``1024x1024``."""
    for resolution in (sent, f"RESOLUTION_{sent}".replace("x", "_")):
        if resolution in RESOLUTIONS:
            return str(resolution)
    return _DEFAULT_RESOLUTION


@lru_cache(maxsize=_CACHED_IMAGES)
def draw(picture: Picture) -> bytes:
    """Return the encoded image: a landscape that depends on all inputs, with prompt, seed and resolution."""
    if picture.is_blank:
        image = Image.new("RGB", picture.size, (18, 18, 20))
    else:
        image = landscape(picture.size, random.Random(repr(picture)))
        _draw_caption(ImageDraw.Draw(image, "RGBA"), picture)
    encoded = io.BytesIO()
    image.save(encoded, picture.image_format, **_ENCODING[picture.image_format])
    return encoded.getvalue()


def _draw_caption(canvas: ImageDraw.ImageDraw, picture: Picture) -> None:
    width, height = picture.size
    font_size = min(width // 44, height // 28)
    font = ImageFont.load_default(font_size)
    drawable = picture.prompt.encode("utf-8", "replace").decode()
    lines = textwrap.wrap(
        drawable, width=int(_LETTERS_PER_LINE * width / font_size), max_lines=_MAX_LINES, placeholder=" …"
    )
    lines.append(f"seed {picture.seed}   {width} x {height}   {picture.style_type}")
    line_height = font_size * 3 // 2
    top = height - line_height * len(lines) - line_height // 2
    canvas.rectangle((0, top - line_height // 2, width, height), fill=(20, 20, 24, 150))
    for number, line in enumerate(lines):
        canvas.text((font_size, top + number * line_height), line, font=font, fill=(245, 245, 240))
