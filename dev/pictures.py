"""
Update the documentation's pictures from screenshots, as ``python -m dev.pictures FOLDER``.

A screenshot replaces the picture with its name, with a palette of 256 colours: a third of the bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).parents[1] / "docs" / "images"
_COLOURS = 256


def main() -> int:
    """Update the pictures, and print those of which there is no screenshot."""
    screenshots = Path(sys.argv[1])
    for picture in sorted(PICTURES.glob("*.png")):
        source = screenshots / picture.name
        if not source.exists():
            print(f"No screenshot of {picture.name}")
            continue
        with Image.open(source) as screenshot:
            small = screenshot.convert("RGB").quantize(_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        small.save(picture, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
