from __future__ import annotations

import io

import pytest
from PIL import Image

from airflow_provider_ideogram.storage.target import Target
from airflow_provider_ideogram.storage.thumbnail import MAX_BYTES, make_thumbnail, thumbnail_key
from tests.support.photo import encoded, photo


def _thumbnail(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(make_thumbnail(io.BytesIO(content))))
    assert image.format == "WEBP"
    return image


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_photograph_is_within_the_limit(image_format: str) -> None:
    original = photo(image_format)
    thumbnail = make_thumbnail(io.BytesIO(original))
    assert len(thumbnail) * 5 < len(original)
    assert len(thumbnail) <= MAX_BYTES


def test_noise_stays_within_the_limit() -> None:
    noise = Image.merge("RGB", [Image.effect_noise((1024, 1024), 100) for _ in range(3)])
    assert len(make_thumbnail(io.BytesIO(encoded(noise, "PNG")))) <= MAX_BYTES


@pytest.mark.parametrize(
    ("size", "expected"), [((1024, 1024), (512, 512)), ((512, 1536), (171, 512)), ((300, 200), (300, 200))]
)
def test_long_side_is_reduced(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert _thumbnail(encoded(Image.new("RGB", size, "teal"), "PNG")).size == expected


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_a_thumbnail(mode: str) -> None:
    image_format = "TIFF" if mode == "CMYK" else "PNG"
    thumbnail = _thumbnail(encoded(Image.new(mode, (600, 600)), image_format))
    assert (thumbnail.mode == "RGBA") == (mode in ("LA", "RGBA"))


def test_image_is_turned_as_its_exif_data_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation: turned to the right
    assert _thumbnail(encoded(Image.new("RGB", (1000, 500)), "JPEG", exif=exif)).size == (256, 512)


def test_key_differs_by_image_and_content() -> None:
    target = Target("bucket", "cat.png")
    key = thumbnail_key("_ideogram/", target, b"1")
    assert key.startswith("_ideogram/.thumbnails/")
    others = [thumbnail_key("_ideogram/", target, b"2"), thumbnail_key("_ideogram/", Target("bucket", "dog.png"), b"1")]
    assert len({key, *others}) == 3
    assert key == thumbnail_key("_ideogram/", target, b"1")
