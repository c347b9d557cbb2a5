from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from airflow_provider_ideogram.api.parameters import RESOLUTIONS
from airflow_provider_ideogram.emulator.drawing import Picture, draw
from airflow_provider_ideogram.emulator.running import RunningEmulator
from tests.support.emulator_client import EmulatorClient

PICTURE = Picture(
    model="ideogram-2a-txt-2-img",
    prompt="a lighthouse",
    magic_prompt_option="AUTO",
    resolution="RESOLUTION_512_1536",
    style_type="GENERAL",
    seed=7,
    image_format="png",
)


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_formats(image_format: str) -> None:
    with Image.open(io.BytesIO(draw(replace(PICTURE, image_format=image_format)))) as image:
        image.load()
        assert image.format == image_format.upper()
        assert image.size == (512, 1536)


@pytest.mark.parametrize("resolution", RESOLUTIONS[::11])
def test_sizes(resolution: str) -> None:
    with Image.open(io.BytesIO(draw(replace(PICTURE, resolution=resolution)))) as image:
        assert resolution == "RESOLUTION_{}_{}".format(*image.size)


def test_equal_pictures_have_equal_bytes() -> None:
    first = draw(PICTURE)
    draw.cache_clear()
    assert draw(replace(PICTURE)) == first


@pytest.mark.parametrize(
    "other",
    [{"prompt": "a lighthouse!"}, {"seed": 8}, {"style_type": "ANIME"}, {"magic_prompt_option": "ON"}, {"model": "x"}],
)
def test_each_input_changes_the_image(other: dict[str, Any]) -> None:
    assert draw(replace(PICTURE, **other)) != draw(PICTURE)


def test_caption_shows_the_prompt() -> None:
    def caption(prompt: str) -> bytes:
        with Image.open(io.BytesIO(draw(replace(PICTURE, prompt=prompt)))) as image:
            return image.crop((0, 1400, 512, 1500)).tobytes()

    assert caption("a lighthouse") != caption("a windmill")


@pytest.mark.parametrize("prompt", ["\n", "word " * 2000, "x" * 5000, "灯台 \U0001f5fc", "\ud800", "a\x00b"])
def test_unusual_prompts_can_be_drawn(prompt: str) -> None:
    for resolution in ("RESOLUTION_1536_512", "RESOLUTION_512_1536"):
        assert draw(replace(PICTURE, prompt=prompt, resolution=resolution)).startswith(b"\x89PNG")


def test_images_of_requests(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    first, again, other = api.done(seed=1), api.done(seed=1), api.done(seed=2)
    images = [ideogram_emulator.image_bytes(request_id) for request_id in (first, again, other)]
    assert images[0] == images[1] != images[2]


@pytest.mark.parametrize(
    ("resolution", "size"), [("1344x768", (1344, 768)), (None, (1024, 1024)), ("9x9", (1024, 1024))]
)
def test_size_of_a_sister_models_image(
    api: EmulatorClient, ideogram_emulator: RunningEmulator, resolution: str | None, size: tuple[int, int]
) -> None:
    inputs = {"prompt": "a lighthouse", "resolution": resolution}
    request_id = api.http.post("/v2/ideogram-3", json=inputs).json()["request_id"]
    with Image.open(io.BytesIO(ideogram_emulator.image_bytes(request_id))) as image:
        assert image.size == size


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_image_formats_are_served(api: EmulatorClient, ideogram_emulator: RunningEmulator, image_format: str) -> None:
    ideogram_emulator.configure(image_format=image_format)
    response = api.image(api.done())
    assert response.headers["content-type"] == f"image/{image_format}"
    assert response.url.path.endswith(f".{image_format}")
