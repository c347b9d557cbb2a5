from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL, RESOLUTIONS
from airflow_provider_ideogram.emulator.running import RunningEmulator
from airflow_provider_ideogram.emulator.validation import MODELS
from tests.support.emulator_client import EmulatorClient


def test_submit_returns_urls(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    response = api.submit()
    body = response.json()
    base = f"{ideogram_emulator.url}/v2/requests/{body['request_id']}"
    assert body["status"] == "QUEUED"
    assert (body["status_url"], body["response_url"]) == (f"{base}/status", base)
    assert response.headers["x-remaining-credits"] == "999.95"
    assert api.http.get(body["poll_url"]).status_code == 202


def test_states_follow_the_clock(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(queue_seconds=10, job_seconds=20)
    request_id = api.submitted()
    assert api.status(request_id).json() == {"request_id": request_id, "status": "QUEUED"}
    assert api.result(request_id).status_code == 202
    ideogram_emulator.advance(10)
    assert api.status(request_id).json()["status"] == "PROCESSING"
    ideogram_emulator.advance(20)
    body = {"request_id": request_id, "status": "COMPLETED", "metrics": {"inference_time": 20.0}}
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


def test_results_expire_after_an_hour(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    request_id = api.done()
    address = api.result(request_id).json()["output"]
    ideogram_emulator.advance(3600 - 61)
    assert api.status(request_id).status_code == 200
    ideogram_emulator.advance(61)
    for url in (f"/v2/requests/{request_id}/status", f"/v2/requests/{request_id}", address):
        response = api.http.get(url)
        assert response.status_code == 404
        assert response.json() == {"error": "request not found or expired"}
    assert len(ideogram_emulator.charges()) == 1


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


def test_missing_key_is_401(api: EmulatorClient) -> None:
    del api.http.headers["x-api-key"]
    assert api.submit().status_code == 401


def test_submit_without_credits_is_406(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(credits=0.1)
    assert [api.submit().status_code for _ in range(3)] == [200, 200, 406]
    refused = api.submit()
    assert refused.headers["x-remaining-credits"] == "0.0"
    assert api.http.get("/v1/get-user-credits").json() == {"credits": 0.0, "free-credits": 0.0}
    stats = ideogram_emulator.stats()
    assert (stats.charges, stats.charged_usd, stats.credits) == (2, 0.1, 0.0)


@pytest.mark.parametrize("model", MODELS)
def test_known_models(api: EmulatorClient, model: str) -> None:
    assert api.http.post(f"/v2/{model}", json={"prompt": "a lighthouse"}).status_code == 200


def test_sister_models_accept_their_own_parameters(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    inputs = {"prompt": "a lighthouse", "resolution": "1024x1024", "rendering_speed": "TURBO"}
    response = api.http.post("/v2/ideogram-3-txt-2-img", json=inputs)
    assert response.status_code == 200
    assert ideogram_emulator.charges()[0].inputs == inputs
    assert ideogram_emulator.image_bytes(response.json()["request_id"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/no-such-model", 404),
        ("POST", "/v1/no-such-model", 404),
        ("GET", "/v2/requests/unknown", 404),
        ("GET", "/v2/requests/unknown/status", 404),
        ("GET", "/images/unknown.png", 404),
        ("GET", "/inference-request/request-history/unknown", 404),
        ("GET", "/nowhere", 404),
        ("GET", f"/v2/{DEFAULT_MODEL}", 405),
        ("DELETE", "/v2/requests/unknown", 405),
        ("POST", "/inference-request/request-history", 405),
    ],
)
def test_errors_are_json(api: EmulatorClient, method: str, path: str, status: int) -> None:
    response = api.http.request(method, path, json={"prompt": "a lighthouse"})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert isinstance(response.json()["error"], str)


def test_405_names_the_allowed_method(api: EmulatorClient) -> None:
    assert api.http.get(f"/v2/{DEFAULT_MODEL}").headers["allow"] == "POST"


@pytest.mark.parametrize(
    "inputs",
    [
        {"prompt": ""},
        {"prompt": "  "},
        {"prompt": None},
        {"prompt": 5},
        {"magic_prompt_option": "MAYBE"},
        {"style_type": "general"},
        {"resolution": "1024x1024"},
        {"resolution": ["RESOLUTION_1024_1024"]},
        {"seed": -1},
        {"seed": 2**31},
        {"seed": "7"},
        {"seed": True},
        {"seed": None},
        {"prompt": "[[fault:misspelt]]"},
        {"prompt": "[[result:misspelt]]"},
        {"prompt": "[[slow:misspelt]]"},
        {"prompt": "[[slow:inf]]"},
    ],
)
def test_invalid_parameters_are_400(
    api: EmulatorClient, ideogram_emulator: RunningEmulator, inputs: dict[str, Any]
) -> None:
    response = api.submit(**inputs)
    assert response.status_code == 400
    assert next(iter(inputs)) in response.json()["error"]
    assert ideogram_emulator.stats().charges == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000], ids=len)
def test_body_must_be_a_json_object(api: EmulatorClient, body: Any) -> None:
    response = api.http.post(f"/v2/{DEFAULT_MODEL}", content=body)
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


def test_server_draws_missing_seeds(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    api.submitted()
    api.submitted()
    api.submitted(seed=5)
    drawn, other, sent = (charge.seed for charge in ideogram_emulator.charges())
    assert drawn != other
    assert sent == 5
    assert [charge.inputs.get("seed") for charge in ideogram_emulator.charges()] == [None, None, 5]


def test_rate_limit(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(rate_limit=2)
    assert [api.submit().status_code, api.generate().status_code] == [200, 200]
    limited = api.submit()
    assert limited.status_code == 429
    wait = int(limited.headers["retry-after"])
    assert 1 <= wait <= 60
    assert ideogram_emulator.stats().rate_limited == 1
    assert len(ideogram_emulator.charges()) == 2
    ideogram_emulator.advance(wait)
    assert api.submit().status_code == 200


def test_rate_limit_without_retry_after(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(rate_limit=1, retry_after=False)
    api.submit()
    limited = api.submit()
    assert limited.status_code == 429
    assert "retry-after" not in limited.headers


def test_rate_limit_ignores_polls(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(rate_limit=1)
    request_id = api.submitted()
    assert {api.status(request_id).status_code for _ in range(5)} == {200}


def test_generate_waits_for_the_job(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    response = api.generate(resolution="RESOLUTION_512_1536")
    [charge] = ideogram_emulator.charges()
    assert charge.state == "COMPLETED"
    assert response.content == ideogram_emulator.image_bytes(charge.request_id)


def test_generate_can_return_json(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    response = api.generate("[[result:url]]")
    assert response.json()["output"].startswith(f"{ideogram_emulator.url}/images/")


def test_generate_fails(api: EmulatorClient) -> None:
    response = api.generate("[[fault:blocked]]")
    assert response.status_code == 422
    assert "RAI" in response.json()["error"]
