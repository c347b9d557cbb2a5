from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL
from airflow_provider_ideogram.emulator.running import RunningEmulator


class Api:
    """A client that knows nothing: what it is answered is what the emulator said."""

    def __init__(self, emulator: RunningEmulator, http: httpx.Client) -> None:
        self.emulator = emulator
        self.http = http

    def submit(self, prompt: str = "a lighthouse", **inputs: Any) -> httpx.Response:
        return self.http.post(f"/v2/{DEFAULT_MODEL}", json={"prompt": prompt, **inputs})

    def generate(self, prompt: str = "a lighthouse", **inputs: Any) -> httpx.Response:
        return self.http.post(f"/v1/{DEFAULT_MODEL}", json={"prompt": prompt, **inputs})

    def submitted(self, prompt: str = "a lighthouse", **inputs: Any) -> str:
        answer = self.submit(prompt, **inputs)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["request_id"])

    def done(self, prompt: str = "a lighthouse", **inputs: Any) -> str:
        request_id = self.submitted(prompt, **inputs)
        self.emulator.advance(60)
        return request_id

    def status(self, request_id: str) -> httpx.Response:
        return self.http.get(f"/v2/requests/{request_id}/status")

    def result(self, request_id: str) -> httpx.Response:
        return self.http.get(f"/v2/requests/{request_id}")

    def image(self, request_id: str) -> httpx.Response:
        with httpx.Client(trust_env=False) as keyless:
            return keyless.get(self.result(request_id).json()["output"])

    def history(self, **query: Any) -> httpx.Response:
        return self.http.get("/inference-request/request-history", params=query)


@pytest.fixture
def api(ideogram_emulator: RunningEmulator) -> Iterator[Api]:
    headers = {"x-api-key": ideogram_emulator.api_key}
    with httpx.Client(base_url=ideogram_emulator.url, headers=headers, trust_env=False) as http:
        yield Api(ideogram_emulator, http)
