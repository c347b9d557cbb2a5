from __future__ import annotations

import base64
from typing import Any

import pytest

from airflow_provider_ideogram.api.image_source import ImageBytes, ImageUrl, find_image

URL = "https://images.segmind.com/a/b.png?x=1"
PNG = b"\x89PNG\r\n\x1a\n and more"
BASE64 = base64.b64encode(PNG).decode()

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
    "no address": ({"output": "ftp://images.segmind.com/a"}, None),
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


@pytest.mark.parametrize(
    "data", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF\n\0\0\0WEBPVP8 ", b"GIF89a", b"\0\0\0 ftypavif"]
)
def test_base64_of_every_kind_of_image(data: bytes) -> None:
    assert find_image({"output": base64.b64encode(data).decode()}) == ImageBytes(data)
