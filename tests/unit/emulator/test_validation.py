from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL, RESOLUTIONS
from airflow_provider_ideogram.emulator.running import RunningEmulator
from tests.support.emulator_client import EmulatorClient


@pytest.mark.parametrize("path", [f"/v2/{DEFAULT_MODEL}", f"/v1/{DEFAULT_MODEL}"])
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_content_type_must_be_json(
    api: EmulatorClient, ideogram_emulator: RunningEmulator, path: str, content_type: str | None
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    response = api.http.post(path, content=b'{"prompt": "a lighthouse"}', headers=headers)
    assert (response.status_code, response.json()) == (406, {"error": "Invalid content type"})
    assert ideogram_emulator.stats().accepted == 0


INVALID_INPUTS = pytest.mark.parametrize(
    ("inputs", "status"),
    [
        ({"prompt": ""}, 400),
        ({"prompt": "  "}, 400),
        ({"prompt": None}, 400),
        ({"prompt": 5}, 400),
        ({"magic_prompt_option": "MAYBE"}, 406),
        ({"style_type": "general"}, 406),
        ({"resolution": "1024x1024"}, 406),
        ({"resolution": ["RESOLUTION_1024_1024"]}, 406),
        ({"seed": -1}, 406),
        ({"seed": 2**31}, 406),
        ({"seed": "7"}, 406),
        ({"seed": True}, 406),
        ({"seed": None}, 406),
    ],
)


@INVALID_INPUTS
def test_late_validation(
    api: EmulatorClient, ideogram_emulator: RunningEmulator, inputs: dict[str, Any], status: int
) -> None:
    ideogram_emulator.configure(queue_seconds=100)
    request_id = api.submitted(**inputs)
    ideogram_emulator.advance(0.5)
    response = api.status(request_id)
    assert (response.status_code, response.json()["status"]) == (422, "FAILED")
    assert next(iter(inputs)) in response.json()["error"]
    assert response.json()["metrics"] == {"inference_time": 0.2, "queue_time": 0.0, "total_time": 0.2}
    assert ideogram_emulator.stats().charged_usd == 0


@INVALID_INPUTS
def test_early_validation(
    api: EmulatorClient, ideogram_emulator: RunningEmulator, inputs: dict[str, Any], status: int
) -> None:
    ideogram_emulator.configure(late_validation=False)
    response = api.submit(**inputs)
    assert response.status_code == status
    assert next(iter(inputs)) in response.json()["error"]
    assert ideogram_emulator.stats().accepted == 0


def test_synchronous_endpoint_validates_early(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    assert api.generate(style_type="CUBIST").status_code == 406
    assert ideogram_emulator.stats().accepted == 0


@pytest.mark.parametrize(
    "mark", ["[[fault:misspelt]]", "[[result:misspelt]]", "[[slow:misspelt]]", "[[slow:inf]]", "[[fault:99]]"]
)
def test_unknown_marks_are_400(api: EmulatorClient, ideogram_emulator: RunningEmulator, mark: str) -> None:
    response = api.submit(mark)
    assert response.status_code == 400
    assert "prompt" in response.json()["error"]
    assert ideogram_emulator.stats().accepted == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000], ids=len)
def test_body_must_be_a_json_object(api: EmulatorClient, body: Any) -> None:
    response = api.http.post(f"/v2/{DEFAULT_MODEL}", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert "JSON" in response.json()["error"]


def test_huge_body_is_413(api: EmulatorClient) -> None:
    response = api.submit("x" * (2 << 20))
    assert response.status_code == 413
    assert response.json()["error"]


@pytest.mark.parametrize(
    "inputs", [{}, {"seed": 0}, {"seed": 2**31 - 1}, {"magic_prompt_option": "OFF", "style_type": "RENDER_3D"}]
)
def test_valid_parameters(api: EmulatorClient, inputs: dict[str, Any]) -> None:
    assert api.submit(**inputs).status_code == 200


def test_all_resolutions_are_valid(api: EmulatorClient) -> None:
    assert {api.submit(resolution=resolution).status_code for resolution in RESOLUTIONS} == {200}
