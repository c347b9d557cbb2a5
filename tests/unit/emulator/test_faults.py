from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from airflow_provider_ideogram.emulator.faults import Fault, Faults, marked_faults
from airflow_provider_ideogram.emulator.running import RunningEmulator
from tests.support.emulator_client import EmulatorClient

CALLS: dict[str, Callable[[EmulatorClient, str], httpx.Response]] = {
    "submit": lambda api, _: api.submit(),
    "status": lambda api, request_id: api.status(request_id),
    "result": lambda api, request_id: api.result(request_id),
    "image": lambda api, request_id: api.http.get(f"/images/{request_id}.png"),
    "credits": lambda api, _: api.http.get("/v1/get-user-credits"),
    "history": lambda api, _: api.history(),
}


@pytest.mark.parametrize("operation", CALLS)
def test_error_applies_to_as_many_calls_as_ordered(
    api: EmulatorClient, ideogram_emulator: RunningEmulator, operation: str
) -> None:
    request_id = api.done()
    ideogram_emulator.fault(operation, "error", status=502, times=2)
    responses = [CALLS[operation](api, request_id).status_code for _ in range(3)]
    assert responses == [502, 502, 200]
    assert ideogram_emulator.stats().faults == {f"{operation}:error": 2}


@pytest.mark.parametrize("operation", CALLS)
def test_reset_applies_to_every_operation(
    api: EmulatorClient, ideogram_emulator: RunningEmulator, operation: str
) -> None:
    request_id = api.done()
    ideogram_emulator.fault(operation, "reset")
    with pytest.raises(httpx.ReadError):
        CALLS[operation](api, request_id)
    assert CALLS[operation](api, request_id).status_code == 200


@pytest.mark.parametrize(
    ("body", "content_type", "content"),
    [
        ("error", "application/json", b'{"error": "out of order"}'),
        ("message", "application/json", b'{"message": "out of order"}'),
        ("detail", "application/json", b'{"detail": "out of order"}'),
        ("text", "text/plain", b"out of order"),
        ("html", "text/html", b"<html><body><h1>out of order</h1></body></html>"),
        ("empty", "text/plain", b""),
        ("binary", "text/plain", b"\xff\xfe\x80 not UTF-8"),
    ],
)
def test_error_bodies(
    api: EmulatorClient, ideogram_emulator: RunningEmulator, body: Any, content_type: str, content: bytes
) -> None:
    ideogram_emulator.fault("credits", "error", status=500, body=body, text="out of order")
    response = api.http.get("/v1/get-user-credits")
    assert response.status_code == 500
    assert response.headers["content-type"].startswith(content_type)
    assert response.content == content


def test_error_with_retry_after(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.fault("status", "error", status=429, retry_after=3)
    request_id = api.submitted()
    assert api.status(request_id).headers["retry-after"] == "3"


def test_error_with_other_headers(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.fault("submit", "error", status=429, headers={"x-rate-limit-reset-at-utc": "soon"})
    assert api.submit().headers["x-rate-limit-reset-at-utc"] == "soon"


VENDOR_ERRORS = pytest.mark.parametrize(
    ("kind", "status", "text"),
    [
        ("credits_402", 402, "Insufficient credits"),
        ("credits_406", 406, "Insufficient credits"),
        ("spend_limit", 406, "spend limit"),
        ("parameter_refused", 406, "style_type"),
        ("invalid_content_type", 406, "Invalid content type"),
        ("model_forbidden", 403, "not allowed"),
        ("model_retired", 410, "retired"),
    ],
)


@VENDOR_ERRORS
def test_vendor_errors_by_fault_and_by_mark(
    api: EmulatorClient, ideogram_emulator: RunningEmulator, kind: str, status: int, text: str
) -> None:
    ideogram_emulator.fault("submit", kind)
    by_fault, by_mark = api.submit(), api.submit(f"[[fault:{kind.replace('_', '-')}]]")
    for response in (by_fault, by_mark):
        assert response.status_code == status
        assert text in response.json()["error"]
    assert ideogram_emulator.requests() == []


def test_vendor_error_with_another_text_and_body(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.fault("submit", "spend_limit", text="Daily cap of 5 USD", body="detail")
    response = api.submit()
    assert (response.status_code, response.json()) == (406, {"detail": "Daily cap of 5 USD"})


@pytest.mark.parametrize(("when", "accepted"), [("before", 0), ("after", 1)])
@pytest.mark.parametrize("kind", ["error", "reset"])
def test_submit_fault_before_or_after_it_is_accepted(
    api: EmulatorClient, ideogram_emulator: RunningEmulator, kind: str, when: str, accepted: int
) -> None:
    ideogram_emulator.fault("submit", kind, when=when)
    if kind == "reset":
        with pytest.raises(httpx.ReadError):
            api.submit()
    else:
        assert api.submit().status_code == 503
    ideogram_emulator.advance(60)
    assert len(ideogram_emulator.charges()) == len(ideogram_emulator.requests()) == accepted
    assert ideogram_emulator.stats().charged_usd == accepted * 0.05
    assert api.history().json()["total"] == accepted


@pytest.mark.parametrize(("when", "accepted"), [("before", 0), ("after", 1)])
def test_slow_response_outlasts_the_clients_timeout(
    api: EmulatorClient, ideogram_emulator: RunningEmulator, when: str, accepted: int
) -> None:
    ideogram_emulator.fault("submit", "slow", when=when, seconds=1000)
    with pytest.raises(httpx.ReadTimeout):
        api.http.post("/v2/ideogram-2a-txt-2-img", json={"prompt": "a lighthouse"}, timeout=1)
    assert len(ideogram_emulator.requests()) == accepted


@pytest.mark.parametrize("when", ["before", "after"])
def test_slow_response_is_complete(api: EmulatorClient, ideogram_emulator: RunningEmulator, when: str) -> None:
    ideogram_emulator.fault("submit", "slow", when=when, seconds=0.01)
    assert api.submit().status_code == 200
    assert len(ideogram_emulator.requests()) == 1


def test_truncated_image(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    request_id = api.done()
    whole = ideogram_emulator.image_bytes(request_id)
    ideogram_emulator.fault("image", "truncated")
    with api.http.stream("GET", f"/images/{request_id}.png") as response:
        assert response.headers["content-length"] == str(len(whole))
        assert response.headers["content-type"] == "image/png"
        with pytest.raises(httpx.RemoteProtocolError):
            response.read()


def test_html_instead_of_an_image(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.fault("image", "not_image")
    response = api.image(api.done())
    assert response.headers["content-type"] == "image/png"
    assert response.content.startswith(b"<html>")


def test_oversize_image(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    request_id = api.done()
    whole = ideogram_emulator.image_bytes(request_id)
    ideogram_emulator.fault("image", "oversize", size=300_000)
    content = api.http.get(f"/images/{request_id}.png").content
    assert len(content) == 300_000
    assert content.startswith(whole)


def test_endless_image(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.fault("image", "endless")
    request_id = api.done()
    received = 0
    with api.http.stream("GET", f"/images/{request_id}.png") as response:
        assert "content-length" not in response.headers
        for chunk in response.iter_raw():
            received += len(chunk)
            if received > 5_000_000:
                break
    assert api.image(request_id).content == ideogram_emulator.image_bytes(request_id)


def test_redirect(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.fault("image", "redirect", location="http://169.254.169.254/latest")
    response = api.image(api.done())
    assert response.status_code == 302
    assert response.headers["location"] == "http://169.254.169.254/latest"


def test_wrong_content_type(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    request_id = api.done()
    ideogram_emulator.fault("image", "content_type", content_type="application/octet-stream")
    response = api.image(request_id)
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.content == ideogram_emulator.image_bytes(request_id)


def test_html_instead_of_json(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.fault("submit", "not_image")
    response = api.submit()
    assert response.headers["content-type"] == "application/json"
    with pytest.raises(json.JSONDecodeError):
        response.json()
    assert len(ideogram_emulator.requests()) == 1


def test_job_faults(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.fault("job", "blocked")
    ideogram_emulator.fault("job", "result_form", form="base64")
    ideogram_emulator.fault("job", "job_seconds", seconds=500)
    ideogram_emulator.fault("job", "invalid", text="seed: too large")
    ids = [api.submitted() for _ in range(5)]
    ideogram_emulator.advance(60)
    blocked, in_base64, slow, invalid, ordinary = map(api.result, ids)
    assert (invalid.json()["error"], invalid.json()["metrics"]["total_time"]) == ("seed: too large", 0.2)
    assert "content policy" in blocked.json()["error"]
    assert not in_base64.json()["output"].startswith("http")
    assert slow.json()["status"] == "PROCESSING"
    assert ordinary.json()["output"].startswith("http")


def test_marks_can_be_combined(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    request_id = api.submitted("[[slow:100]] and [[result:top-url]] and [[fault:truncated]]")
    ideogram_emulator.advance(99)
    assert api.status(request_id).json()["status"] == "PROCESSING"
    ideogram_emulator.advance(2)
    address = api.result(request_id).json()["url"]
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            api.http.get(address)


@pytest.mark.parametrize(
    ("mark", "on", "kind"),
    [
        ("failed", "job", "failed"),
        ("blocked", "job", "blocked"),
        ("invalid", "job", "invalid"),
        ("reset-before", "submit", "reset"),
        ("reset-after", "submit", "reset"),
        ("503", "submit", "error"),
        ("truncated", "image", "truncated"),
        ("not-image", "image", "not_image"),
        ("endless", "image", "endless"),
        ("credits-402", "submit", "credits_402"),
        ("model-retired", "submit", "model_retired"),
    ],
)
def test_marks(mark: str, on: str, kind: str) -> None:
    [fault] = marked_faults(f"a lighthouse [[fault:{mark}]]")
    assert (fault.on, fault.kind) == (on, kind)


def test_marked_reset_after_the_submit_is_accepted(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    with pytest.raises(httpx.ReadError):
        api.generate("[[fault:reset-after]]")
    assert len(ideogram_emulator.requests()) == 1


def test_marked_http_status(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    assert api.submit("[[fault:504]]").status_code == 504
    assert ideogram_emulator.requests() == []


def test_fault_for_certain_prompts(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.fault("status", "error", prompt="second", times=None)
    first, second = api.submitted("the first"), api.submitted("the second")
    assert [api.status(first).status_code, api.status(second).status_code] == [200, 503]


def test_clear_faults(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.fault("submit", "error", times=None)
    assert api.submit().status_code == 503
    ideogram_emulator.clear_faults()
    assert api.submit().status_code == 200


def test_probability_is_reproducible() -> None:
    def triggered(random_seed: int) -> list[bool]:
        faults = Faults()
        faults.add(Fault(on="status", kind="error", times=None, probability=0.2, random_seed=random_seed))
        return [faults.trigger("status", "") is not None for _ in range(1000)]

    assert triggered(1) == triggered(1) != triggered(2)
    assert 150 < sum(triggered(1)) < 250


@pytest.mark.parametrize(
    "wrong",
    [
        {"on": "nowhere"},
        {"on": "job"},
        {"kind": "failed"},
        {"when": "meanwhile"},
        {"body": "xml"},
        {"form": "hologram"},
        {"status": 99},
        {"status": "503"},
        {"times": -1},
        {"times": "once"},
        {"seconds": float("nan")},
        {"prompt": None},
    ],
)
def test_invalid_faults(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^({next(iter(wrong))}|kind): "):
        Fault(**{"on": "status", "kind": "error"} | wrong)


def test_misspelt_kind_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"^kind: 'eror' is not valid\. Did you mean 'error'\?$"):
        Fault(on="submit", kind="eror")
