from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image

from airflow_provider_ideogram.api.image_source import ImageBytes, ImageUrl, find_image

URL = "https://images.segmind.com/a/b.png?x=1"
PNG = b"\x89PNG\r\n\x1a\n and more"
BASE64 = base64.b64encode(PNG).decode()
#: Its base64 has each of the characters in which the two alphabets differ, and padding.
JPEG = b"\xff\xd8\xff\xfb\xef\xbe\xff\xff\xff\0"
URL_SAFE = base64.urlsafe_b64encode(JPEG).decode()

#: Kinds of images in Pillow's terms, with the options that write them.
IMAGE_KINDS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("JPEG", {}),
    ("WEBP", {}),
    ("GIF", {}),
    ("AVIF", {}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"big_endian": True}),
    ("JPEG2000", {}),
    ("JPEG2000", {"no_jp2": True}),
]
IMAGE_FORMS: dict[str, tuple[Any, Any]] = {
    "output url": ({"output": URL}, ImageUrl(URL)),
    "output url in spaces": ({"output": f" {URL}\n"}, ImageUrl(URL)),
    "output url in capitals": ({"output": "HTTPS://images.segmind.com/A"}, ImageUrl("HTTPS://images.segmind.com/A")),
    "output list": ({"output": [URL, "https://other"]}, ImageUrl(URL)),
    "output object url": ({"output": {"url": URL}}, ImageUrl(URL)),
    "output object image_url": ({"output": {"image_url": URL}}, ImageUrl(URL)),
    "output list of objects": ({"output": [{"url": URL}]}, ImageUrl(URL)),
    "output base64": ({"output": BASE64}, ImageBytes(PNG)),
    "output base64 in lines": ({"output": f"{BASE64[:12]}\n{BASE64[12:]}"}, ImageBytes(PNG)),
    "output base64 without padding": ({"output": BASE64.rstrip("=")}, ImageBytes(PNG)),
    "output base64, url-safe": ({"output": URL_SAFE}, ImageBytes(JPEG)),
    "output base64, url-safe without padding": ({"output": URL_SAFE.rstrip("=")}, ImageBytes(JPEG)),
    "output base64 that begins with a slash": ({"output": base64.b64encode(JPEG).decode()}, ImageBytes(JPEG)),
    "output data uri, url-safe": ({"output": f"data:image/jpeg;base64,{URL_SAFE}"}, ImageBytes(JPEG)),
    "output without a scheme": ({"output": "//images.segmind.com/a"}, ImageUrl("//images.segmind.com/a")),
    "output without a host": ({"output": "/files/a?x=1"}, ImageUrl("/files/a?x=1")),
    "output that is a file name": ({"output": "files/a.PNG?x=1"}, ImageUrl("files/a.PNG?x=1")),
    "output data uri": ({"output": f"data:image/png;base64,{BASE64}"}, ImageBytes(PNG)),
    "output data uri in capitals": ({"output": f"DATA:image/png;BASE64,{BASE64}"}, ImageBytes(PNG)),
    "output data uri, quoted": ({"output": "data:image/png,%89PNG%0D%0A%1A%0A and more"}, ImageBytes(PNG)),
    "output data uri, base64 quoted": ({"output": f"data:;base64,{BASE64.replace('=', '%3D')}"}, ImageBytes(PNG)),
    "image": ({"image": URL}, ImageUrl(URL)),
    "images[0]": ({"images": [URL]}, ImageUrl(URL)),
    "images[0].url": ({"images": [{"url": URL, "seed": 7}]}, ImageUrl(URL)),
    "url": ({"url": URL}, ImageUrl(URL)),
    "data[0].url": ({"data": [{"url": URL}]}, ImageUrl(URL)),
    "data[0].b64_json": ({"data": [{"b64_json": BASE64}]}, ImageBytes(PNG)),
    "empty before full": ({"output": None, "images": [], "image": "", "data": [{}, {"url": URL}]}, ImageUrl(URL)),
    "nothing": ({}, None),
    "nothing known": ({"picture": URL}, None),
    "no text": ({"output": 7, "image": True, "images": None}, None),
    "no address": ({"output": "ftp://images.segmind.com/a.png"}, None),
    "no address in a sentence": ({"output": "see /files/a.png"}, None),
    "no address of an image": ({"output": "n/a"}, None),
    "no short address": ({"output": f"/{'x' * 2001}"}, None),
    "no base64": ({"output": "it is done!"}, None),
    "word that is base64": ({"output": "done", "url": URL}, ImageUrl(URL)),
    "base64 of no image": ({"output": base64.b64encode(b"<html></html>").decode()}, None),
    "data uri of no image": ({"output": "data:text/plain,done", "url": URL}, ImageUrl(URL)),
    "not ASCII": ({"output": "ä"}, None),
    "half a surrogate": ({"output": "data:,\ud800"}, None),
    "data uri without data": ({"output": "data:image/png;base64"}, None),
    "data uri with bad data": ({"output": "data:;base64,?"}, None),
    "too deep": ({"output": [[[[[URL]]]]]}, None),
}


@pytest.mark.parametrize("form", IMAGE_FORMS)
def test_image_is_found_in_every_form(form: str) -> None:
    body, image = IMAGE_FORMS[form]
    assert find_image(body) == image


@pytest.mark.parametrize(("kind", "options"), IMAGE_KINDS, ids=str)
def test_base64_of_every_kind_of_image(kind: str, options: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, kind, **options)
    assert find_image({"output": base64.b64encode(buffer.getvalue()).decode()}) == ImageBytes(buffer.getvalue())
