from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from airflow_provider_ideogram.emulator.running import RunningEmulator
from tests.support.emulator_client import EmulatorClient


@pytest.fixture
def api(ideogram_emulator: RunningEmulator) -> Iterator[EmulatorClient]:
    headers = {"x-api-key": ideogram_emulator.api_key}
    with httpx.Client(base_url=ideogram_emulator.url, headers=headers, trust_env=False) as http:
        yield EmulatorClient(ideogram_emulator, http)
