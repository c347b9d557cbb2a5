"""
An emulator in a thread of this process.

Invariant: only the server's thread accesses the account. Other threads schedule a call on its event loop.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, TypeVar

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL
from airflow_provider_ideogram.emulator.account import Account, Stats
from airflow_provider_ideogram.emulator.drawing import draw, picture_of
from airflow_provider_ideogram.emulator.faults import Fault
from airflow_provider_ideogram.emulator.history import HISTORY_PATH
from airflow_provider_ideogram.emulator.jobs import AcceptedRequest
from airflow_provider_ideogram.emulator.server import serve
from airflow_provider_ideogram.emulator.settings import EmulatorSettings, check_names

T = TypeVar("T")


class RunningEmulator:
    """
    A running emulator. Its methods can be called from any thread.

    :param url: The base URL of the API.
    :param account: The emulated account.
    :param loop: The event loop of the server.
    """

    def __init__(self, url: str, account: Account, loop: asyncio.AbstractEventLoop) -> None:
        self.url = url
        self._account = account
        self._loop = loop

    @property
    def api_key(self) -> str:
        """An accepted API key."""
        return self._account.settings.keys[0]

    @property
    def history_url(self) -> str:
        """The URL of the request history."""
        return self.url + HISTORY_PATH

    @property
    def connection(self) -> str:
        """An Airflow connection to the emulator, as JSON: a value for ``AIRFLOW_CONN_IDEOGRAM_DEFAULT``."""
        return connection_to(self.url, self.api_key)

    def stats(self) -> Stats:
        """Return the counts of calls, charges and faults."""
        return self._call(self._account.stats)

    def summary(self) -> str:
        """Return what a failed test is to know, in a few lines: charges, calls, faults and the last error response."""
        stats, last_error = self._call(lambda: (self._account.stats(), self._account.last_error))
        return "\n".join(
            (
                f"{stats.accepted} requests accepted: {stats.charges} charged ({stats.charged_usd:.2f} USD), "
                f"{stats.failed} failed, {stats.jobs_in_flight} running",
                f"calls: {_counts(stats.calls)}",
                f"faults: {_counts(stats.faults)}",
                f"last error: {last_error or 'none'}",
            )
        )

    def requests(self) -> list[AcceptedRequest]:
        """Return all accepted requests in the order of submission."""
        return self._call(self._account.requests)

    def charges(self) -> list[AcceptedRequest]:
        """Return the COMPLETED requests, which were charged, in the order of submission."""
        return self._call(self._account.charges)

    def add_teammate_request(self, inputs: dict[str, Any], model: str = DEFAULT_MODEL) -> str:
        """
        Add a request of another member of the team, and return its id.

        The history list contains it, and its image can be downloaded. Status, result and the history by id answer with
        404. It changes neither the balance nor the stats.

        :param inputs: The inputs of the request.
        :param model: The model's slug.
        :raises ValueError: If the model does not exist.
        """
        return self._call(lambda: self._account.add_teammate_request(inputs, model).request_id)

    def fault(self, on: str, kind: str, **options: Any) -> None:
        """
        Queue a fault. By default it applies to the next matching call only.

        :param on: The operation, or ``job``.
        :param kind: What happens.
        :param options: Further fields of :class:`~airflow_provider_ideogram.emulator.faults.Fault`.
        :raises ValueError: If there is no such fault, or a value is not valid.
        """
        check_names(options, [field.name for field in fields(Fault)], "option of a fault")
        fault = Fault(on=on, kind=kind, **options)
        self._call(lambda: self._account.faults.add(fault))

    def clear_faults(self) -> None:
        """Remove all queued faults."""
        self._call(self._account.faults.clear)

    def configure(self, **changes: Any) -> None:
        """
        Change settings. Accepted jobs keep their price and times; ``credits`` sets the balance.

        :param changes: Fields of :class:`~airflow_provider_ideogram.emulator.settings.EmulatorSettings`.
        :raises ValueError: If a setting does not exist or is fixed, or a value is not valid.
        """
        self._call(lambda: self._account.configure(changes))

    def advance(self, seconds: float) -> None:
        """Move the emulator's clock forward: jobs finish, results expire, the rate limit's window moves on."""
        self._call(lambda: self._account.clock.advance(seconds))

    def reset(self) -> None:
        """Delete all jobs, faults and counts."""
        self._call(self._account.reset)

    def image_bytes(self, request_id: str) -> bytes:
        """
        Return the bytes of a job's image, expired or not.

        :raises KeyError: If there is no such job.
        """
        return draw(picture_of(self._call(lambda: self._account.store.jobs[request_id])))

    def _call(self, function: Callable[[], T]) -> T:
        """Call a function in the server's thread, and return its result or raise its exception."""

        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def connection_to(url: str, api_key: str) -> str:
    """Return an Airflow connection to an emulator, as JSON."""
    extra = {"history_url": url + HISTORY_PATH}
    return json.dumps({"conn_type": "ideogram", "password": api_key, "host": url, "extra": extra})


@contextmanager
def run_emulator(settings: EmulatorSettings | None = None) -> Iterator[RunningEmulator]:
    """
    Run an emulator in its own thread until the context exits.

    :param settings: The settings; by default those of the vendor, on a free port.
    :raises OSError: If the address cannot be bound.
    """
    started: Future[tuple[RunningEmulator, asyncio.Event]] = Future()
    thread = threading.Thread(
        target=lambda: asyncio.run(_serve(settings or EmulatorSettings(), started)), name="ideogram-emulator"
    )
    thread.start()
    try:
        emulator, stopped = started.result()
        try:
            yield emulator
        finally:
            emulator._loop.call_soon_threadsafe(stopped.set)
    finally:
        thread.join()


async def _serve(settings: EmulatorSettings, started: Future[tuple[RunningEmulator, asyncio.Event]]) -> None:
    account, stopped = Account(settings), asyncio.Event()
    try:
        async with serve(account) as url:
            started.set_result((RunningEmulator(url, account, asyncio.get_running_loop()), stopped))
            await stopped.wait()
    except OSError as error:
        started.set_exception(error)
