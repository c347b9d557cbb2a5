"""
What the code under test finds around it in place of the real clock, randomness, threads, connections and networks.

Invariant: nothing that a simulation does depends on anything but its seed. The replacements apply to the running
simulation's routines only; all other code of the process finds the real things.
"""

from __future__ import annotations

import asyncio  # noqa: F401  # before time is replaced
import logging
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from random import Random
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Self
from unittest import mock

from airflow.sdk.bases.operator import ExecutorSafeguard
from greenlet import getcurrent

from airflow_provider_ideogram.api.poll_schedule import JobDurations
from airflow_provider_ideogram.datasets import plan, runner
from airflow_provider_ideogram.hooks import download, ideogram
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from airflow_provider_ideogram.operators import base
from airflow_provider_ideogram.storage import image_store, probe
from airflow_provider_ideogram.triggers import request as request_trigger
from tests.simulation.kernel import Kernel, Routine, Signal
from tests.simulation.vendor import API_KEY, SimulatedClient, Vendor

if TYPE_CHECKING:
    from tests.simulation.s3 import SimulatedS3

CONNECTION = SimpleNamespace(
    conn_id="ideogram_default", password=API_KEY, host=None, schema=None, port=None, login=None, extra=None
)
_real_time, _real_sleep, _real_uuid4 = time.time, time.sleep, uuid.uuid4
_SystemRandom = random.SystemRandom


class Running:
    """
    The running simulation.

    :param kernel: Its clock.
    :param vendor: Its vendor.
    :param s3: Its S3.
    """

    def __init__(self, kernel: Kernel, vendor: Vendor, s3: SimulatedS3) -> None:
        self.kernel, self.vendor, self.s3 = kernel, vendor, s3


_running: list[Running] = []


def _kernel() -> Kernel | None:
    """Return the kernel if one of its routines is running."""
    return _running[-1].kernel if _running and isinstance(getcurrent(), Routine) else None


def _time() -> float:
    kernel = _kernel()
    return kernel.now if kernel else _real_time()


def _sleep(seconds: float) -> None:
    kernel = _kernel()
    if kernel:
        kernel.sleep(seconds)
    else:
        _real_sleep(seconds)


def _random(*seed: Any) -> Random:
    kernel = _kernel()
    return Random(kernel.rng.random()) if kernel and not seed else Random(*seed)


def _system_random() -> Random:
    return _random() if _kernel() else _SystemRandom()


def _uuid4() -> uuid.UUID:
    kernel = _kernel()
    return uuid.UUID(int=kernel.rng.getrandbits(128), version=4) if kernel else _real_uuid4()


class SimulatedPool:
    """
    A thread pool whose threads are routines of the process that made it.

    :param max_workers: The number of threads.
    """

    def __init__(self, max_workers: int, thread_name_prefix: str = "") -> None:
        self._max_workers = max_workers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Return; map() has waited for all threads."""

    def map(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Work on all items, and return the results in the items' order."""
        kernel = _running[-1].kernel
        planned = list(enumerate(items))
        ended: dict[int, tuple[Any, Exception | None]] = {}
        left = iter(planned)

        def run() -> None:
            for number, item in left:
                kernel.routine.notes.clear()
                try:
                    ended[number] = work(item), None
                except Exception as error:
                    ended[number] = None, error

        threads = [kernel.spawn(kernel.process, run) for _ in range(min(self._max_workers, len(planned)))]
        for thread in threads:
            kernel.wait(thread)
        return (_result_of(*ended[number]) for number, _ in planned)


class SimulatedSemaphore:
    """
    A semaphore whose holders are routines.

    :param value: How many may hold it at once.
    """

    def __init__(self, value: int = 1) -> None:
        self._left = value
        self._waiting: list[Signal] = []

    def __enter__(self) -> Self:
        kernel = _running[-1].kernel
        while not self._left:
            released = Signal()
            self._waiting.append(released)
            kernel.wait(released)
        self._left -= 1
        return self

    def __exit__(self, *_: object) -> None:
        self._left += 1
        if self._waiting:
            _running[-1].kernel.fire(self._waiting.pop(0))


def _result_of(result: Any, error: Exception | None) -> Any:
    if error is not None:
        raise error
    return result


@cache
def connection_settings() -> ConnectionSettings:
    """Return the connection's settings."""
    return ConnectionSettings.of(CONNECTION, {})


class _Hook:
    """In the place of Airflow's S3 hook."""

    def __init__(self, aws_conn_id: str | None) -> None:
        self.aws_conn_id = aws_conn_id


def _s3(hook: _Hook) -> SimulatedS3:
    return _running[-1].s3


def _client(settings: ConnectionSettings) -> SimulatedClient:
    return SimulatedClient(_running[-1].vendor, settings)


@contextmanager
def replaced() -> Iterator[None]:
    """Replace what the code under test finds around it."""
    with ExitStack() as stack:
        for owner, name, value in (
            (time, "time", _time),
            (time, "monotonic", _time),
            (time, "sleep", _sleep),
            (random, "Random", _random),
            (random, "SystemRandom", _system_random),
            (uuid, "uuid4", _uuid4),
            (probe, "uuid4", _uuid4),
            (ideogram, "SegmindClient", _client),
            (ideogram.IdeogramHook, "settings", property(lambda _: connection_settings())),
            (download, "_client", lambda _: stack_of_nothing()),
            (download, "_fetch", lambda *arguments: _running[-1].vendor.fetch(*arguments)),
            (image_store, "S3Hook", _Hook),
            (image_store, "make_client", _s3),
            (base, "get_current_context", lambda: _running[-1].kernel.process.context),
            (base.IdeogramTask, "log", logging.getLogger("airflow_provider_ideogram.operators")),
            (ExecutorSafeguard, "test_mode", True),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        for real, simulated in ((ThreadPoolExecutor, SimulatedPool), (threading.Semaphore, SimulatedSemaphore)):
            for module in _modules_with(real):
                stack.enter_context(mock.patch.object(module, real.__name__, simulated))
        yield


def _modules_with(imported: type) -> list[ModuleType]:
    """Return the package's modules that have imported a class by its name; operators import most of them late."""
    assert runner.__name__ in sys.modules
    modules = [module for name, module in sys.modules.items() if name.startswith("airflow_provider_ideogram.")]
    return [module for module in modules if vars(module).get(imported.__name__) is imported]


def stack_of_nothing() -> ExitStack:
    """Return a context that does nothing."""
    return ExitStack()


@contextmanager
def running(simulation: Running, chunk_rows: int) -> Iterator[None]:
    """
    Make a simulation the running one.

    :param chunk_rows: The rows of a dataset's chunk: few, so that small datasets have several.
    """
    with (
        mock.patch.object(request_trigger, "_durations", JobDurations()),
        mock.patch.object(plan, "CHUNK_ROWS", chunk_rows),
        mock.patch.object(probe, "_conditions_of", {}),
    ):
        _running.append(simulation)
        try:
            yield
        finally:
            _running.pop()
