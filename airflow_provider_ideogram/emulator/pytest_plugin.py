"""
Pytest fixtures for tests against the emulator, and its section in the report of a failed test.

They are available once the extra ``emulator`` is installed. This module imports the
emulator only when a fixture is used, because pytest loads it in every run.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from datetime import datetime

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
def ideogram_connection(ideogram_emulator: RunningEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """
    Point the connection ``ideogram_default`` to the emulator, by environment variable, and return its id.

    ``dag.test()`` retries tasks without waiting for their ``retry_delay``, and ends when it is interrupted.
    """
    monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", ideogram_emulator.connection)
    with _retries_at_once(monkeypatch):
        yield "ideogram_default"


@contextmanager
def _retries_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let ``dag.test()`` retry a task at once; after an interruption, which Airflow takes for an error, let it end."""
    from airflow.models.taskinstance import TaskInstance

    interrupted = threading.Event()
    previous = signal.getsignal(signal.SIGINT)

    def interrupt(*_: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    def next_retry_datetime(ti: TaskInstance) -> datetime | None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        return ti.end_date

    monkeypatch.setattr(TaskInstance, "next_retry_datetime", next_retry_datetime)
    is_main_thread = threading.current_thread() is threading.main_thread()
    if is_main_thread:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if is_main_thread:
            signal.signal(signal.SIGINT, previous)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the emulator counted to the report of a failed test."""
    report = yield
    emulator: RunningEmulator | None = getattr(item, "funcargs", {}).get("ideogram_emulator")
    if report.when == "call" and report.failed and emulator is not None:
        report.sections.append(("Ideogram emulator", emulator.summary()))
    return report
