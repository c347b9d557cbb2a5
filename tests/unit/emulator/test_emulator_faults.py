from __future__ import annotations

import json

import httpx
import pytest

from airflow_provider_ideogram.emulator.faults import Fault, Faults, marked_faults

CALLS = {
    "submit": lambda api, _: api.submit(),
    "status": lambda api, request_id: api.status(request_id),
    "result": lambda api, request_id: api.result(request_id),
    "image": lambda api, request_id: api.http.get(f"/images/{request_id}.png"),
    "credits": lambda api, _: api.http.get("/v1/get-user-credits"),
    "history": lambda api, _: api.history(),
}


@pytest.mark.parametrize("operation", CALLS)
def test_an_error_strikes_each_call_as_often_as_ordered(api, ideogram_emulator, operation):
    request_id = api.done()
    ideogram_emulator.fault(operation, "error", status=502, times=2)
    answers = [CALLS[operation](api, request_id).status_code for _ in range(3)]
    assert answers == [502, 502, 200]
    assert ideogram_emulator.stats().faults == {f"{operation}:error": 2}


@pytest.mark.parametrize("operation", CALLS)
def test_a_reset_strikes_each_call(api, ideogram_emulator, operation):
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
def test_forms_of_errors(api, ideogram_emulator, body, content_type, content):
    ideogram_emulator.fault("credits", "error", status=500, body=body, text="out of order")
    answer = api.http.get("/v1/get-user-credits")
    assert answer.status_code == 500
    assert answer.headers["content-type"].startswith(content_type)
    assert answer.content == content


def test_an_error_may_say_when_to_come_back(api, ideogram_emulator):
    ideogram_emulator.fault("status", "error", status=429, retry_after=3)
    request_id = api.submitted()
    assert api.status(request_id).headers["retry-after"] == "3"


@pytest.mark.parametrize(("when", "charges"), [("before", 0), ("after", 1)])
@pytest.mark.parametrize("kind", ["error", "reset"])
def test_a_submit_is_charged_or_not_by_when_it_was_struck(api, ideogram_emulator, kind, when, charges):
    ideogram_emulator.fault("submit", kind, when=when)
    if kind == "reset":
        with pytest.raises(httpx.ReadError):
            api.submit()
    else:
        assert api.submit().status_code == 503
    assert len(ideogram_emulator.charges()) == charges
    assert ideogram_emulator.stats().charged_usd == charges * 0.05
    assert api.history().json()["total"] == charges


@pytest.mark.parametrize(("when", "charges"), [("before", 0), ("after", 1)])
def test_a_slow_answer_comes_after_the_client_has_gone(api, ideogram_emulator, when, charges):
    ideogram_emulator.fault("submit", "slow", when=when, seconds=1000)
    with pytest.raises(httpx.ReadTimeout):
        api.http.post("/v2/ideogram-2a-txt-2-img", json={"prompt": "a lighthouse"}, timeout=1)
    assert len(ideogram_emulator.charges()) == charges


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_slow_answer_is_the_answer(api, ideogram_emulator, when):
    ideogram_emulator.fault("submit", "slow", when=when, seconds=0.01)
    assert api.submit().status_code == 200
    assert len(ideogram_emulator.charges()) == 1


def test_a_truncated_image_announces_more_than_it_sends(api, ideogram_emulator):
    request_id = api.done()
    whole = ideogram_emulator.image_bytes(request_id)
    ideogram_emulator.fault("image", "truncated")
    with api.http.stream("GET", f"/images/{request_id}.png") as answer:
        assert answer.headers["content-length"] == str(len(whole))
        assert answer.headers["content-type"] == "image/png"
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()


def test_an_image_that_is_none(api, ideogram_emulator):
    ideogram_emulator.fault("image", "not_image")
    answer = api.image(api.done())
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"<html>")


def test_an_oversize_image(api, ideogram_emulator):
    request_id = api.done()
    whole = ideogram_emulator.image_bytes(request_id)
    ideogram_emulator.fault("image", "oversize", size=300_000)
    content = api.http.get(f"/images/{request_id}.png").content
    assert len(content) == 300_000
    assert content.startswith(whole)


def test_an_endless_image_goes_on_until_the_client_has_enough(api, ideogram_emulator):
    ideogram_emulator.fault("image", "endless")
    request_id = api.done()
    received = 0
    with api.http.stream("GET", f"/images/{request_id}.png") as answer:
        assert "content-length" not in answer.headers
        for piece in answer.iter_raw():
            received += len(piece)
            if received > 5_000_000:
                break
    assert api.image(request_id).content == ideogram_emulator.image_bytes(request_id)


def test_a_redirect(api, ideogram_emulator):
    ideogram_emulator.fault("image", "redirect", location="http://169.254.169.254/latest")
    answer = api.image(api.done())
    assert answer.status_code == 302
    assert answer.headers["location"] == "http://169.254.169.254/latest"


def test_a_wrong_content_type(api, ideogram_emulator):
    request_id = api.done()
    ideogram_emulator.fault("image", "content_type", content_type="application/octet-stream")
    answer = api.image(request_id)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.content == ideogram_emulator.image_bytes(request_id)


def test_answers_in_json_can_be_spoilt_too(api, ideogram_emulator):
    ideogram_emulator.fault("submit", "not_image")
    answer = api.submit()
    assert answer.headers["content-type"] == "application/json"
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    assert len(ideogram_emulator.charges()) == 1


def test_faults_on_jobs(api, ideogram_emulator):
    ideogram_emulator.fault("job", "blocked")
    ideogram_emulator.fault("job", "result_form", form="base64")
    ideogram_emulator.fault("job", "job_seconds", seconds=500)
    ids = [api.submitted() for _ in range(4)]
    ideogram_emulator.advance(60)
    blocked, in_base64, slow, ordinary = map(api.result, ids)
    assert "content policy" in blocked.json()["error"]
    assert not in_base64.json()["output"].startswith("http")
    assert slow.json()["status"] == "PROCESSING"
    assert ordinary.json()["output"].startswith("http")


def test_marks_in_a_prompt_work_together(api, ideogram_emulator):
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
        ("reset-before", "submit", "reset"),
        ("reset-after", "submit", "reset"),
        ("503", "submit", "error"),
        ("truncated", "image", "truncated"),
        ("not-image", "image", "not_image"),
        ("endless", "image", "endless"),
    ],
)
def test_marks(mark, on, kind):
    [fault] = marked_faults(f"a lighthouse [[fault:{mark}]]")
    assert (fault.on, fault.kind) == (on, kind)


def test_a_marked_reset_after_accepting_is_charged(api, ideogram_emulator):
    with pytest.raises(httpx.ReadError):
        api.generate("[[fault:reset-after]]")
    assert len(ideogram_emulator.charges()) == 1


def test_a_marked_status(api, ideogram_emulator):
    assert api.submit("[[fault:504]]").status_code == 504
    assert ideogram_emulator.charges() == []


def test_faults_may_be_meant_for_certain_prompts(api, ideogram_emulator):
    ideogram_emulator.fault("status", "error", prompt="second", times=None)
    first, second = api.submitted("the first"), api.submitted("the second")
    assert [api.status(first).status_code, api.status(second).status_code] == [200, 503]


def test_faults_can_be_taken_back(api, ideogram_emulator):
    ideogram_emulator.fault("submit", "error", times=None)
    assert api.submit().status_code == 503
    ideogram_emulator.clear_faults()
    assert api.submit().status_code == 200


def test_probability_is_reproducible():
    def triggered(random_seed: int) -> list[bool]:
        faults = Faults()
        faults.add(Fault(on="status", kind="error", times=None, probability=0.2, random_seed=random_seed))
        return [faults.take("status", "") is not None for _ in range(1000)]

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
def test_faults_that_do_not_exist(wrong):
    with pytest.raises(ValueError, match=f"^({next(iter(wrong))}|kind): "):
        Fault(**{"on": "status", "kind": "error"} | wrong)
