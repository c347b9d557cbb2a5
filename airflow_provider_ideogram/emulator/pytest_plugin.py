"""
Pytest fixtures for tests against the emulator. They are available once the extra ``emulator`` is installed.

This module imports the emulator only when a fixture is used, because pytest loads it in every run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_ideogram.emulator.running import RunningEmulator


@pytest.fixture
def ideogram_emulator() -> Iterator[RunningEmulator]:
    """
    Run a new emulator for the test. Its jobs take 0.2 seconds.

    It does not change the environment; ``ideogram_connection`` does. A test of a DAG::

        def test_my_dag_pays_once(ideogram_emulator, ideogram_connection):
            ideogram_emulator.fault("status", "error", status=503, times=2)
            my_dag.test()
            [charge] = ideogram_emulator.charges()
            assert charge.inputs["prompt"] == "a lighthouse"
            assert stored_bytes() == ideogram_emulator.image_bytes(charge.request_id)
    """
    from airflow_provider_ideogram.emulator.running import run_emulator
    from airflow_provider_ideogram.emulator.settings import EmulatorSettings

    with run_emulator(EmulatorSettings(queue_seconds=0.05, job_seconds=0.15)) as emulator:
        yield emulator


@pytest.fixture
def ideogram_connection(ideogram_emulator: RunningEmulator, monkeypatch: pytest.MonkeyPatch) -> str:
    """Point the connection ``ideogram_default`` to the emulator, by environment variable, and return its id."""
    monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", ideogram_emulator.connection)
    return "ideogram_default"
