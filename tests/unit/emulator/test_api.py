from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL
from airflow_provider_ideogram.emulator.running import RunningEmulator
from tests.support.emulator_client import EmulatorClient


def test_submit_returns_urls(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(clock_speed=0)
    response = api.submit()
    body = response.json()
    base = f"{ideogram_emulator.url}/v2/requests/{body['request_id']}"
    assert body["status"] == "QUEUED"
    assert (body["status_url"], body["response_url"]) == (f"{base}/status", base)
    assert api.http.get(body["poll_url"]).status_code == 202


def test_request_ids_without_dashes(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(request_id_dashes=False)
    request_id = api.done()
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    assert api.image(request_id).content == ideogram_emulator.image_bytes(request_id)


def test_states_follow_the_clock(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(queue_seconds=10, job_seconds=20)
    request_id = api.submitted()
    assert api.status(request_id).json() == {"request_id": request_id, "status": "QUEUED"}
    assert api.result(request_id).status_code == 202
    ideogram_emulator.advance(10)
    assert api.status(request_id).json()["status"] == "PROCESSING"
    ideogram_emulator.advance(20)
    metrics = {"inference_time": 20.0, "queue_time": 10.0, "total_time": 30.0}
    metrics |= {"cost": 0.05, "remaining_credits": 999.95}
    body = {"request_id": request_id, "status": "COMPLETED", "metrics": metrics}
    assert api.status(request_id).json() == body
    result = api.result(request_id)
    assert result.status_code == 200
    assert result.json() == body | {"output": f"{ideogram_emulator.url}/images/{request_id}.png"}


def test_failed_is_422_on_status_and_result(api: EmulatorClient) -> None:
    request_id = api.done("[[fault:failed]]")
    for response in (api.status(request_id), api.result(request_id)):
        assert response.status_code == 422
        assert response.json()["status"] == "FAILED"
        assert response.json()["error"].startswith("Inference failed")
        assert response.json()["metrics"] == {"inference_time": 0.15, "queue_time": 0.05, "total_time": 0.2}


def test_records_expire_after_an_hour(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    request_id = api.done()
    ideogram_emulator.advance(3600 - 61)
    assert api.status(request_id).status_code == 200
    ideogram_emulator.advance(61)
    for response in (api.status(request_id), api.result(request_id)):
        assert response.status_code == 404
        assert response.json() == {"error": "request not found or expired"}
    assert ideogram_emulator.charges()[0].request_id == request_id


def test_files_expire_after_seven_days(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    url = api.result(api.done()).json()["output"]
    ideogram_emulator.advance(7 * 86_400 - 61)
    assert httpx.get(url, trust_env=False).status_code == 200
    ideogram_emulator.advance(61)
    response = httpx.get(url, trust_env=False)
    assert (response.status_code, response.json()) == (404, {"error": "file not found"})


def test_image_needs_no_key_and_sent_keys_are_counted(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    request_id = api.done()
    response = api.image(request_id)
    assert response.headers["content-type"] == "image/png"
    assert response.content == ideogram_emulator.image_bytes(request_id)
    assert ideogram_emulator.stats().key_leaks == 0
    api.http.get(api.result(request_id).json()["output"])
    assert ideogram_emulator.stats().key_leaks == 1


def test_image_needs_a_completed_job_and_its_format(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(job_seconds=100)
    request_id = api.submitted()
    assert api.http.get(f"/images/{request_id}.png").status_code == 404
    ideogram_emulator.advance(200)
    assert api.http.get(f"/images/{request_id}.png").status_code == 200
    assert api.http.get(f"/images/{request_id}.webp").status_code == 404


@pytest.mark.parametrize(
    ("key", "status"), [("unknown", 401), ("", 401), ("emulator-key-without-permission", 403), ("emulator-key", 200)]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/v2/{DEFAULT_MODEL}"),
        ("GET", "/v2/requests/{id}/status"),
        ("GET", "/v2/requests/{id}"),
        ("GET", "/v1/get-user-credits"),
        ("GET", "/inference-request/request-history"),
        ("GET", "/inference-request/request-history/{id}"),
        ("POST", f"/v1/{DEFAULT_MODEL}"),
    ],
)
def test_calls_need_a_key(api: EmulatorClient, method: str, path: str, key: str, status: int) -> None:
    request_id = api.done()
    body = {"prompt": "a lighthouse"} if method == "POST" else None
    response = api.http.request(method, path.format(id=request_id), json=body, headers={"x-api-key": key})
    assert response.status_code == status
    assert (status == 200) or response.json()["error"]


def test_form_of_401(api: EmulatorClient) -> None:
    api.http.headers["x-api-key"] = "unknown"
    response = api.submit()
    assert response.status_code == 401
    assert response.json() == {
        "error": "invalid_api_key",
        "error_description": "The API key is invalid or expired",
        "status_code": 401,
    }
    del api.http.headers["x-api-key"]
    response = api.submit()
    assert response.status_code == 401
    assert response.json() == {
        "error": "missing_api_key",
        "error_description": "Missing Authorization or x-api-key in header",
        "status_code": 401,
    }


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("ideogram-3", {"resolution": "1024x1024", "magic_prompt": "ON"}),
        ("ideogram-2a-img-2-img", {"image_file": "https://example.com/a.png", "image_weight": 50}),
        ("ideogram-txt-2-img", {"negative_prompt": "ships"}),
    ],
)
def test_sister_models_accept_their_own_parameters(
    api: EmulatorClient, ideogram_emulator: RunningEmulator, model: str, parameters: dict[str, Any]
) -> None:
    inputs = {"prompt": "a lighthouse", **parameters}
    request_id = api.http.post(f"/v2/{model}", json=inputs).json()["request_id"]
    ideogram_emulator.advance(60)
    [charge] = ideogram_emulator.charges()
    assert (charge.model, charge.inputs) == (model, inputs)
    assert api.image(request_id).content == ideogram_emulator.image_bytes(request_id)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/no-such-model", 404),
        ("POST", "/v1/no-such-model", 404),
        ("GET", "/v2/requests/unknown", 404),
        ("GET", "/v2/requests/unknown/status", 404),
        ("GET", "/images/unknown.png", 404),
        ("GET", "/inference-request/request-history/unknown", 404),
        ("POST", "/v2/ideogram-3-txt-2-img", 404),
        ("GET", "/images/unknown", 404),
        ("GET", "/nowhere", 404),
    ],
)
def test_errors_are_json(api: EmulatorClient, method: str, path: str, status: int) -> None:
    response = api.http.request(method, path, json={"prompt": "a lighthouse"})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert isinstance(response.json()["error"], str)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", f"/v2/{DEFAULT_MODEL}", "POST"),
        ("DELETE", "/v2/requests/unknown", "GET,HEAD"),
        ("POST", "/inference-request/request-history", "GET,HEAD"),
    ],
)
def test_405_has_an_html_body(api: EmulatorClient, method: str, path: str, allowed: str) -> None:
    response = api.http.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allowed
    assert response.headers["content-type"].startswith("text/html")
    assert response.text == "<html><body><h1>405 Method Not Allowed</h1></body></html>"


def test_server_draws_missing_seeds(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    api.submitted()
    api.submitted()
    api.submitted(seed=5)
    drawn, other, sent = (charge.seed for charge in ideogram_emulator.requests())
    assert drawn != other
    assert sent == 5
    assert [charge.inputs.get("seed") for charge in ideogram_emulator.requests()] == [None, None, 5]
