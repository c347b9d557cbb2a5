"""
Fixtures for tests against the emulator, there for every test once the extra ``emulator`` is installed.

Loading this module costs nothing; what a fixture needs is imported when it is used.
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
    Run a fresh local Segmind for the test, whose jobs take 0.2 seconds.

    It sets nothing in the environment; use ``ideogram_connection`` for that. What a DAG's test may look like::

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
    """Set the default Airflow connection to ``ideogram_emulator`` in the environment, and give its id."""
    monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", ideogram_emulator.connection)
    return "ideogram_default"
