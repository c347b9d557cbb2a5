from __future__ import annotations

import base64

import pytest

from airflow_provider_ideogram.emulator.results import RESULT_FORMS
from airflow_provider_ideogram.emulator.running import RunningEmulator
from tests.support.emulator_client import EmulatorClient

PATHS = {
    "url": lambda body: body["output"],
    "list": lambda body: body["output"][0],
    "object-url": lambda body: body["output"]["url"],
    "object-image_url": lambda body: body["output"]["image_url"],
    "image": lambda body: body["image"],
    "images-list": lambda body: body["images"][0],
    "images-object": lambda body: body["images"][0]["url"],
    "top-url": lambda body: body["url"],
    "data-list": lambda body: body["data"][0]["url"],
}


@pytest.mark.parametrize("form", PATHS)
def test_forms_with_a_url(api: EmulatorClient, ideogram_emulator: RunningEmulator, form: str) -> None:
    request_id = api.done(f"[[result:{form}]]")
    address = PATHS[form](api.result(request_id).json())
    assert api.http.get(address).content == ideogram_emulator.image_bytes(request_id)


def test_base64(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    request_id = api.done("[[result:base64]]")
    output = api.result(request_id).json()["output"]
    assert base64.b64decode(output, validate=True) == ideogram_emulator.image_bytes(request_id)


def test_data_uri(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    request_id = api.done("[[result:data-uri]]")
    head, _, payload = api.result(request_id).json()["output"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(payload) == ideogram_emulator.image_bytes(request_id)


def test_raw(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    request_id = api.done("[[result:raw]]")
    response = api.result(request_id)
    assert response.headers["content-type"] == "image/png"
    assert response.content == ideogram_emulator.image_bytes(request_id)


def test_none(api: EmulatorClient) -> None:
    request_id = api.done("[[result:none]]")
    assert api.result(request_id).json().keys() == {"request_id", "status", "metrics"}


def test_all_forms_are_tested() -> None:
    assert set(RESULT_FORMS) == {*PATHS, "base64", "data-uri", "raw", "none"}
