"""The vendor's unmodified SDK against the emulator."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from segmind import (
    InferenceFailed,
    InferenceTimeout,
    SegmindClient,
    SegmindError,
)

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL
from airflow_provider_ideogram.emulator.running import RunningEmulator


@pytest.fixture
def sdk(ideogram_emulator: RunningEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[SegmindClient]:
    # The package has an attribute "generations" that is not this module.
    monkeypatch.setattr(sys.modules["segmind.generations"], "REQUEST_HISTORY_URL", ideogram_emulator.history_url)
    client = SegmindClient(api_key=ideogram_emulator.api_key, base_url=f"{ideogram_emulator.url}/v1")
    yield client
    client._client.close()


def test_run(sdk: SegmindClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(job_seconds=0, queue_seconds=0)
    result = sdk.run(DEFAULT_MODEL, prompt="a lighthouse", seed=7)
    [charge] = ideogram_emulator.charges()
    assert result["status"] == "COMPLETED"
    assert result["output"] == f"{ideogram_emulator.url}/images/{charge.request_id}.png"
    assert charge.inputs == {"prompt": "a lighthouse", "seed": 7}


def test_submit_async_and_wait(sdk: SegmindClient) -> None:
    job = sdk.submit_async(DEFAULT_MODEL, prompt="a lighthouse")
    result = job.wait(timeout=20, interval=0.02)
    assert result["request_id"] == job.request_id
    assert result["metrics"] == {
        "inference_time": 0.15,
        "queue_time": 0.05,
        "total_time": 0.2,
        "cost": 0.05,
        "remaining_credits": 999.95,
    }


def test_states(sdk: SegmindClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(job_seconds=100, queue_seconds=100)
    job = sdk.submit_async(DEFAULT_MODEL, prompt="a lighthouse")
    assert job.status()["status"] == "QUEUED"
    ideogram_emulator.advance(100)
    assert job.status()["status"] == "PROCESSING"
    assert job.result()["status"] == "PROCESSING"
    ideogram_emulator.advance(100)
    assert job.status()["status"] == "COMPLETED"


def test_failure(sdk: SegmindClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.fault("job", "failed", text="the worker was lost")
    ideogram_emulator.configure(job_seconds=0, queue_seconds=0)
    job = sdk.submit_async(DEFAULT_MODEL, prompt="a lighthouse")
    with pytest.raises(InferenceFailed) as caught:
        job.wait()
    assert caught.value.detail == "the worker was lost"
    assert caught.value.status_body["status"] == "FAILED"
    assert job.result()["error"] == "the worker was lost"
    assert ideogram_emulator.stats().charged_usd == 0


def test_invalid_parameters_fail_late(sdk: SegmindClient) -> None:
    with pytest.raises(InferenceFailed, match="style_type"):
        sdk.submit_async(DEFAULT_MODEL, prompt="a lighthouse", style_type="CUBIST").wait(interval=0.02)


def test_timeout(sdk: SegmindClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.configure(job_seconds=100)
    job = sdk.submit_async(DEFAULT_MODEL, prompt="a lighthouse")
    with pytest.raises(InferenceTimeout) as caught:
        job.wait(timeout=0, interval=0)
    assert caught.value.request_id == job.request_id


def test_run_sync(sdk: SegmindClient, ideogram_emulator: RunningEmulator) -> None:
    response = sdk.run_sync(DEFAULT_MODEL, prompt="a lighthouse")
    [charge] = ideogram_emulator.charges()
    assert response.headers["content-type"] == "image/png"
    assert (response.headers["x-cost"], response.headers["x-remaining-credits"]) == ("0.05", "999.95")
    assert response.content == ideogram_emulator.image_bytes(charge.request_id)


def test_history(sdk: SegmindClient, ideogram_emulator: RunningEmulator) -> None:
    first, second = (sdk.submit_async(DEFAULT_MODEL, prompt=prompt) for prompt in ("one", "two"))
    ideogram_emulator.advance(10)
    history = sdk.generations.history(per_page=1, model_name="ideogram", status="COMPLETED")
    assert (history["total"], history["page"], history["per_page"]) == (2, 1, 1)
    [row] = history["data"]
    assert row["request_id"] == second.request_id
    assert row["request_body"] == {"prompt": "two"}
    assert sdk.generations.get(first.request_id)["request_body"] == {"prompt": "one"}


def test_history_of_a_team(sdk: SegmindClient, ideogram_emulator: RunningEmulator) -> None:
    teammates = ideogram_emulator.add_teammate_request({"prompt": "a lighthouse"})
    [row] = sdk.generations.history()["data"]
    assert row["request_id"] == teammates
    assert sdk.generations.history(user_id="emulator-user")["data"] == []
    with pytest.raises(SegmindError) as caught:
        sdk.generations.get(teammates)
    assert caught.value.status == 404


def test_generations(sdk: SegmindClient, ideogram_emulator: RunningEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    request, host = sdk._request, "https://api.spotprod.segmind.com"  # a constant of the method

    def request_here(method: str, url: str, **kwargs: Any) -> Any:
        return request(method, url.replace(host, ideogram_emulator.url), **kwargs)

    monkeypatch.setattr(sdk, "_request", request_here)
    ideogram_emulator.add_teammate_request({"prompt": "a gull"})
    done = sdk.submit_async(DEFAULT_MODEL, prompt="one")
    sdk.submit_async(DEFAULT_MODEL, prompt="[[fault:failed]]")
    ideogram_emulator.advance(10)
    ideogram_emulator.configure(history_lag_seconds=30)
    generations = sdk.generations.list(model_name="ideogram")
    [row] = generations["data"]
    columns = ("status", "credits_deduction", "latency_ms", "prompt", "parameters")
    assert (generations["total"], row["request_id"], row["model_name"]) == (1, done.request_id, DEFAULT_MODEL)
    assert row["generation_url"].endswith(f"/images/{done.request_id}.png")
    assert [row[name] for name in columns] == [None] * 5
    ideogram_emulator.advance(30)
    [row] = sdk.generations.list()["data"]
    assert [row[name] for name in columns] == ["COMPLETED", 0.05, 200, "one", {"prompt": "one"}]
    assert sdk.generations.list(page=2)["data"] == []
    assert sdk.generations.list(start_date="2026-01-01", end_date="2026-01-02")["data"] == []
    [row] = sdk.generations.list(user_id="emulator-teammate")["data"]
    assert row["prompt"] == "a gull"


def test_metrics_of_a_retried_job(sdk: SegmindClient, ideogram_emulator: RunningEmulator) -> None:
    ideogram_emulator.fault("job", "retried")
    retried, other = (sdk.submit_async(DEFAULT_MODEL, prompt="a lighthouse") for _ in range(2))
    ideogram_emulator.advance(10)
    assert retried.status()["metrics"]["retry_count"] == 1
    assert "retry_count" not in other.status()["metrics"]


def test_recovery_after_the_record_has_expired(sdk: SegmindClient, ideogram_emulator: RunningEmulator) -> None:
    job = sdk.submit_async(DEFAULT_MODEL, prompt="a lighthouse")
    ideogram_emulator.advance(30 * 86_400)
    with pytest.raises(SegmindError) as caught:
        job.result()
    assert caught.value.status == 404
    row = sdk.generations.get(job.request_id)
    assert (row["model_status"], row["credits_deduction"]) == ("COMPLETED", 0.05)


@pytest.mark.parametrize(
    ("key", "slug", "inputs", "status"),
    [
        ("unknown", DEFAULT_MODEL, {"prompt": "a lighthouse"}, 401),
        ("emulator-key", "no-such-model", {"prompt": "a lighthouse"}, 404),
        ("emulator-key", DEFAULT_MODEL, {"prompt": "a lighthouse [[fault:credits-402]]"}, 402),
        ("emulator-key", DEFAULT_MODEL, {"prompt": "a lighthouse [[fault:spend-limit]]"}, 406),
        ("emulator-key", DEFAULT_MODEL, {"prompt": "a lighthouse [[fault:model-retired]]"}, 410),
    ],
)
def test_errors(
    sdk: SegmindClient, ideogram_emulator: RunningEmulator, key: str, slug: str, inputs: dict[str, Any], status: int
) -> None:
    sdk._client.headers["x-api-key"] = key
    with pytest.raises(SegmindError) as caught:
        sdk.submit_async(slug, **inputs)
    assert caught.value.status == status
    assert caught.value.detail
    assert ideogram_emulator.requests() == []
