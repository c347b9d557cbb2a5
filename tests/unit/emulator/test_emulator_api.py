from __future__ import annotations

import pytest

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL, RESOLUTIONS
from airflow_provider_ideogram.emulator.validation import MODELS


def test_submit_answers_with_the_addresses(api, ideogram_emulator):
    answer = api.submit()
    body = answer.json()
    base = f"{ideogram_emulator.url}/v2/requests/{body['request_id']}"
    assert body["status"] == "QUEUED"
    assert (body["status_url"], body["response_url"]) == (f"{base}/status", base)
    assert answer.headers["x-remaining-credits"] == "999.95"
    assert api.http.get(body["poll_url"]).status_code == 202


def test_states_follow_the_clock(api, ideogram_emulator):
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


def test_failed_is_422_on_status_and_result(api):
    request_id = api.done("[[fault:failed]]")
    for answer in (api.status(request_id), api.result(request_id)):
        assert answer.status_code == 422
        assert answer.json()["status"] == "FAILED"
        assert answer.json()["error"].startswith("Inference failed")


def test_everything_is_gone_an_hour_after_submission(api, ideogram_emulator):
    request_id = api.done()
    address = api.result(request_id).json()["output"]
    ideogram_emulator.advance(3600 - 61)
    assert api.status(request_id).status_code == 200
    ideogram_emulator.advance(61)
    for url in (f"/v2/requests/{request_id}/status", f"/v2/requests/{request_id}", address):
        answer = api.http.get(url)
        assert answer.status_code == 404
        assert answer.json() == {"error": "request not found or expired"}
    assert len(ideogram_emulator.charges()) == 1


def test_an_image_needs_no_key_and_a_leaked_one_is_noted(api, ideogram_emulator):
    request_id = api.done()
    answer = api.image(request_id)
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == ideogram_emulator.image_bytes(request_id)
    assert ideogram_emulator.stats().key_leaks == 0
    api.http.get(api.result(request_id).json()["output"])
    assert ideogram_emulator.stats().key_leaks == 1


def test_there_is_no_image_before_the_job_is_done_nor_in_another_format(api, ideogram_emulator):
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
def test_every_call_needs_a_key(api, method, path, key, status):
    request_id = api.done()
    body = {"prompt": "a lighthouse"} if method == "POST" else None
    answer = api.http.request(method, path.format(id=request_id), json=body, headers={"x-api-key": key})
    assert answer.status_code == status
    assert (status == 200) or answer.json()["error"]


def test_a_missing_key_is_401(api):
    del api.http.headers["x-api-key"]
    assert api.submit().status_code == 401


def test_credits_run_out_before_anything_is_charged(api, ideogram_emulator):
    ideogram_emulator.configure(credits=0.1)
    assert [api.submit().status_code for _ in range(3)] == [200, 200, 406]
    refused = api.submit()
    assert refused.headers["x-remaining-credits"] == "0.0"
    assert api.http.get("/v1/get-user-credits").json() == {"credits": 0.0, "free-credits": 0.0}
    stats = ideogram_emulator.stats()
    assert (stats.charges, stats.charged_usd, stats.credits) == (2, 0.1, 0.0)


@pytest.mark.parametrize("model", MODELS)
def test_known_models(api, model):
    assert api.http.post(f"/v2/{model}", json={"prompt": "a lighthouse"}).status_code == 200


def test_parameters_of_sister_models_are_their_own(api, ideogram_emulator):
    inputs = {"prompt": "a lighthouse", "resolution": "1024x1024", "rendering_speed": "TURBO"}
    answer = api.http.post("/v2/ideogram-3-txt-2-img", json=inputs)
    assert answer.status_code == 200
    assert ideogram_emulator.charges()[0].inputs == inputs
    assert ideogram_emulator.image_bytes(answer.json()["request_id"])


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
def test_errors_are_json(api, method, path, status):
    answer = api.http.request(method, path, json={"prompt": "a lighthouse"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert isinstance(answer.json()["error"], str)


def test_a_wrong_method_is_told_the_right_one(api):
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
def test_invalid_parameters_are_400(api, ideogram_emulator, inputs):
    answer = api.submit(**inputs)
    assert answer.status_code == 400
    assert next(iter(inputs)) in answer.json()["error"]
    assert ideogram_emulator.stats().charges == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000], ids=len)
def test_a_body_that_is_no_object_is_400(api, body):
    answer = api.http.post(f"/v2/{DEFAULT_MODEL}", content=body)
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]


def test_a_huge_body_is_refused(api):
    answer = api.submit("x" * (2 << 20))
    assert answer.status_code == 413
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "inputs", [{}, {"seed": 0}, {"seed": 2**31 - 1}, {"magic_prompt_option": "OFF", "style_type": "RENDER_3D"}]
)
def test_valid_parameters(api, inputs):
    assert api.submit(**inputs).status_code == 200


def test_every_resolution_is_taken(api):
    assert {api.submit(resolution=resolution).status_code for resolution in RESOLUTIONS} == {200}


def test_seeds_are_drawn_where_none_is_sent(api, ideogram_emulator):
    api.submitted()
    api.submitted()
    api.submitted(seed=5)
    drawn, other, sent = (charge.seed for charge in ideogram_emulator.charges())
    assert drawn != other
    assert sent == 5
    assert [charge.inputs.get("seed") for charge in ideogram_emulator.charges()] == [None, None, 5]


def test_rate_limit(api, ideogram_emulator):
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


def test_rate_limit_without_retry_after(api, ideogram_emulator):
    ideogram_emulator.configure(rate_limit=1, retry_after=False)
    api.submit()
    limited = api.submit()
    assert limited.status_code == 429
    assert "retry-after" not in limited.headers


def test_reads_are_not_limited(api, ideogram_emulator):
    ideogram_emulator.configure(rate_limit=1)
    request_id = api.submitted()
    assert {api.status(request_id).status_code for _ in range(5)} == {200}


def test_generate_waits_for_the_job(api, ideogram_emulator):
    answer = api.generate(resolution="RESOLUTION_512_1536")
    [charge] = ideogram_emulator.charges()
    assert charge.state == "COMPLETED"
    assert answer.content == ideogram_emulator.image_bytes(charge.request_id)


def test_generate_answers_json_on_demand(api, ideogram_emulator):
    answer = api.generate("[[result:url]]")
    assert answer.json()["output"].startswith(f"{ideogram_emulator.url}/images/")


def test_generate_fails(api):
    answer = api.generate("[[fault:blocked]]")
    assert answer.status_code == 422
    assert "RAI" in answer.json()["error"]
