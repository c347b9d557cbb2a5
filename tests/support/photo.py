"""Pictures that compress as badly as photographs do."""

from __future__ import annotations

import io

from PIL import Image, ImageChops, ImageFilter

#: The size of the details in pixels, and their contrast.
_OCTAVES = ((64, 64), (24, 45), (8, 32), (3, 26), (1, 12))


def photo(image_format: str = "PNG", size: tuple[int, int] = (1024, 1024)) -> bytes:
    """Return a picture with details of all sizes: about 1.7 MB as a PNG of 1024 by 1024, as the vendor's."""
    return encoded(Image.merge("RGB", [_band(size) for _ in range(3)]), image_format)


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    """Return an image's file."""
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def _band(size: tuple[int, int]) -> Image.Image:
    width, height = size
    band = Image.new("L", size, 128)
    for pixels, contrast in _OCTAVES:
        details = Image.effect_noise((max(width // pixels, 2), max(height // pixels, 2)), contrast)
        band = ImageChops.add(band, details.resize(size, Image.Resampling.BICUBIC), 1, -128)
    return band.filter(ImageFilter.GaussianBlur(1))
