from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from airflow_provider_ideogram.emulator.running import RunningEmulator
from tests.support.emulator_client import EmulatorClient

DAY = 86_400


def test_rows(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    request_id = api.done("a lighthouse", seed=7)
    [row] = api.history().json()["data"]
    created, updated = (datetime.fromisoformat(row.pop(name)) for name in ("model_created", "model_updated"))
    assert row == {
        "request_id": request_id,
        "model_name": "ideogram-2a-txt-2-img",
        "model_status": "COMPLETED",
        "request_body": {"prompt": "a lighthouse", "seed": 7},
        "generation_url": f"{ideogram_emulator.url}/images/{request_id}.png",
        "credits_deduction": 0.05,
        "latency_ms": 200,
        "error": None,
    }
    assert created.tzinfo == UTC
    assert (updated - created).total_seconds() == pytest.approx(0.2, abs=0.002)


def test_pending_and_failed(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    failed = api.done("[[fault:failed]]")
    ideogram_emulator.configure(job_seconds=100)
    pending = api.submitted()
    first, second = api.history().json()["data"]
    assert (first["request_id"], first["model_status"], first["latency_ms"]) == (pending, "PENDING", None)
    assert (second["request_id"], second["model_status"], second["generation_url"]) == (failed, "FAILED", None)
    assert second["error"]
    assert (first["credits_deduction"], second["credits_deduction"]) == (None, 0.0)
    for status, found in (("PENDING", pending), ("FAILED", failed)):
        assert [row["request_id"] for row in api.history(status=status).json()["data"]] == [found]
    assert api.history(status="COMPLETED").json()["total"] == 0


def test_pages(api: EmulatorClient) -> None:
    ids = [api.submitted() for _ in range(5)][::-1]
    pages = [api.history(page=page, per_page=2).json() for page in (1, 2, 3, 4)]
    assert [[row["request_id"] for row in page["data"]] for page in pages] == [ids[:2], ids[2:4], ids[4:], []]
    assert {(page["total"], page["per_page"]) for page in pages} == {(5, 2)}


def test_order_and_model(api: EmulatorClient) -> None:
    ids = [api.submitted() for _ in range(2)]
    api.http.post("/v2/ideogram-3", json={"prompt": "a lighthouse"})
    rows = api.history(model_name="2a-txt", sort_by="model_created", sort_order="asc").json()["data"]
    assert [row["request_id"] for row in rows] == ids
    rows = api.history(sort_by="model_name").json()["data"]
    assert rows[0]["model_name"] == "ideogram-3"


def test_window_of_days(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    request_id = api.submitted()
    ideogram_emulator.advance(9 * DAY)
    day = datetime.fromtimestamp(ideogram_emulator.charges()[0].accepted_at, UTC).date()
    assert api.history().json()["total"] == 0
    assert api.history(from_date=day, to_date=day).json()["total"] == 1
    # The history keeps requests whose record and file have expired.
    assert api.status(request_id).status_code == 404
    row = api.http.get(f"/inference-request/request-history/{request_id}").json()
    assert (row["request_id"], row["model_status"], row["credits_deduction"]) == (request_id, "COMPLETED", 0.05)
    assert httpx.get(row["generation_url"], trust_env=False).status_code == 404


def test_file_of_an_expired_record(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    request_id = api.done()
    ideogram_emulator.advance(6 * DAY)
    assert api.result(request_id).status_code == 404
    row = api.http.get(f"/inference-request/request-history/{request_id}").json()
    image = httpx.get(row["generation_url"], trust_env=False).content
    assert image == ideogram_emulator.image_bytes(request_id)


def test_one_row_per_output_of_a_completed_request(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(outputs=3)
    failed, completed = api.done("[[fault:failed]]"), api.done()
    rows = api.history().json()["data"]
    assert [row["request_id"] for row in rows] == [completed, completed, completed, failed]
    assert [row["credits_deduction"] for row in rows] == [0.05, 0.05, 0.05, 0.0]
    urls = [row["generation_url"] for row in rows[:3]]
    assert api.result(completed).json()["output"] == urls
    images = [httpx.get(url, trust_env=False).content for url in urls]
    assert len(set(images)) == 3
    assert images[0] == ideogram_emulator.image_bytes(completed)
    assert api.history(page=2, per_page=3).json() == {"data": rows[3:], "total": 4, "page": 2, "per_page": 3}
    assert httpx.get(urls[2].replace("_2", "_3"), trust_env=False).status_code == 404


def test_teammates_requests_are_in_the_list_only(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    own = api.submitted()
    teammates = ideogram_emulator.add_teammate_request({"prompt": "a lighthouse"})
    ideogram_emulator.advance(60)
    rows = api.history().json()["data"]
    assert {row["request_id"] for row in rows} == {own, teammates}
    one = f"/inference-request/request-history/{teammates}"
    for response in (api.status(teammates), api.result(teammates), api.http.get(one)):
        assert response.status_code == 404
    [row] = api.history(user_id="emulator-teammate").json()["data"]
    assert httpx.get(row["generation_url"], trust_env=False).status_code == 200
    assert ideogram_emulator.stats().credits == 999.95
    assert [request.request_id for request in ideogram_emulator.requests()] == [own]


@pytest.mark.parametrize(
    ("query", "users"),
    [
        ({"user_id": "emulator-user"}, ["own"]),
        ({"user_email": "emulator-user@example.com"}, ["own"]),
        ({"user_email": "emulator-teammate@example.com"}, ["teammate"]),
        ({"user_id": "unknown"}, []),
    ],
)
def test_filter_by_user(
    api: EmulatorClient, ideogram_emulator: RunningEmulator, query: dict[str, str], users: list[str]
) -> None:
    api.submitted("own")
    ideogram_emulator.add_teammate_request({"prompt": "teammate"})
    rows = api.history(**query).json()["data"]
    assert [row["request_body"]["prompt"] for row in rows] == users


def test_history_lag(api: EmulatorClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(history_lag_seconds=30)
    request_id = api.submitted()
    one = f"/inference-request/request-history/{request_id}"
    assert api.history().json()["total"] == 0
    assert api.http.get(one).status_code == 404
    ideogram_emulator.advance(30)
    assert api.history().json()["total"] == 1
    assert api.http.get(one).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        {"page": "0"},
        {"page": "x"},
        {"per_page": "101"},
        {"per_page": "0"},
        {"from_date": "yesterday"},
        {"from_date": "2026-01-01", "to_date": "2026-02-02"},
        {"from_date": "2026-01-02", "to_date": "2026-01-01"},
        {"status": "QUEUED"},
        {"sort_by": "prompt"},
        {"sort_order": "up"},
    ],
)
def test_invalid_queries_are_400(api: EmulatorClient, query: dict[str, str]) -> None:
    response = api.history(**query)
    assert response.status_code == 400
    assert next(iter(query)) in response.json()["error"]


def test_window_of_31_days(api: EmulatorClient) -> None:
    assert api.history(from_date="2026-01-01", to_date="2026-02-01").status_code == 200
