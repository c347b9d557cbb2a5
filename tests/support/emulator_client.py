"""A plain HTTP client of the emulator, for the emulator's own tests."""

from __future__ import annotations

from typing import Any

import httpx

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL
from airflow_provider_ideogram.emulator.running import RunningEmulator


class EmulatorClient:
    """
    Returns the emulator's responses as they are.

    :param emulator: The emulator.
    :param http: A client with the emulator's base URL and API key.
    """

    def __init__(self, emulator: RunningEmulator, http: httpx.Client) -> None:
        self.emulator = emulator
        self.http = http

    def submit(self, prompt: Any = "a lighthouse", **inputs: Any) -> httpx.Response:
        """Submit a request to the default model."""
        return self.http.post(f"/v2/{DEFAULT_MODEL}", json={"prompt": prompt, **inputs})

    def generate(self, prompt: str = "a lighthouse", **inputs: Any) -> httpx.Response:
        """Call the synchronous endpoint of the default model."""
        return self.http.post(f"/v1/{DEFAULT_MODEL}", json={"prompt": prompt, **inputs})

    def submitted(self, prompt: str = "a lighthouse", **inputs: Any) -> str:
        """Submit a request and return its id."""
        response = self.submit(prompt, **inputs)
        assert response.status_code == 200, response.text
        return str(response.json()["request_id"])

    def done(self, prompt: str = "a lighthouse", **inputs: Any) -> str:
        """Submit a request, advance the clock until it is done, and return its id."""
        request_id = self.submitted(prompt, **inputs)
        self.emulator.advance(60)
        return request_id

    def status(self, request_id: str) -> httpx.Response:
        """Ask for the status of a request."""
        return self.http.get(f"/v2/requests/{request_id}/status")

    def result(self, request_id: str) -> httpx.Response:
        """Ask for the result of a request."""
        return self.http.get(f"/v2/requests/{request_id}")

    def image(self, request_id: str) -> httpx.Response:
        """Download the image of a request, without an API key."""
        return httpx.get(self.result(request_id).json()["output"], trust_env=False)

    def history(self, **query: Any) -> httpx.Response:
        """Ask for a page of the history."""
        return self.http.get("/inference-request/request-history", params=query)
