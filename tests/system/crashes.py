"""
SIGKILL of task processes at named points, and shorter waits; installed by the test's DAG file.

Invariant: the provider's code does not change. Functions are wrapped in the process that has imported the DAG file, and
behave as before until one kills the process.

The constants for waits of minutes are shortened. They stay longer than what they wait for here: a submit (5 s until its
timeout) and the emulator's history (2 s late).
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
from collections.abc import Callable
from typing import IO, Any, TypedDict

import httpx
from airflow.sdk import get_current_context

from airflow_provider_ideogram.hooks.client import SegmindClient
from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
from airflow_provider_ideogram.hooks.image import ImageSpool
from airflow_provider_ideogram.jobs import reconciliation, submission
from airflow_provider_ideogram.jobs.ledger import Ledger
from airflow_provider_ideogram.operators import job
from airflow_provider_ideogram.storage.image_store import ImageStore
from tests.system.plan import KILL_POINTS, is_killed

SHORT_WAITS = {
    submission: {"SUBMIT_SECONDS": 15.0, "RETRY_SECONDS": 10.0},
    reconciliation: {"HISTORY_LAG": 20.0, "RETRY_SECONDS": 10.0},
    job: {"FETCH_RETRY_SECONDS": 5.0},
}
_SEED = int(os.environ.get("SYSTEM_TEST_SEED", "0"))
_RATE = float(os.environ.get("SYSTEM_TEST_KILL_RATE", "0"))
_KILLS_FILE = os.environ.get("SYSTEM_TEST_KILLS_FILE", "")


class Points(TypedDict, total=False):
    """The points before and after a function, and a function that calls it and has points of its own."""

    before: str
    after: str
    around: Callable[..., Any]


def install() -> None:
    """Wrap the functions at the points, once in a process."""
    for module, constants in SHORT_WAITS.items():
        for name, seconds in constants.items():
            getattr(module, name)  # fails for a constant that was renamed
            setattr(module, name, seconds)
    if getattr(Ledger.write_intent, "wrapped", False):
        return
    for (owner, name), points in wrapped_functions().items():
        _wrap(owner, name, **points)


def wrapped_functions() -> dict[tuple[type, str], Points]:
    """Return the functions that are wrapped, each with its points."""
    return {
        (Ledger, "write_intent"): {"before": KILL_POINTS[0], "after": KILL_POINTS[1]},
        (Ledger, "replace"): {"before": KILL_POINTS[0], "after": KILL_POINTS[1]},
        (SegmindClient, "_send"): {"around": _send},
        (IdeogramHook, "submit"): {"after": KILL_POINTS[4]},
        (Ledger, "record_request"): {"after": KILL_POINTS[5]},
        (job.IdeogramJobTask, "execute_complete"): {"before": KILL_POINTS[6]},
        (ImageSpool, "write"): {"after": KILL_POINTS[7]},
        (ImageStore, "put"): {"around": _put, "after": KILL_POINTS[9]},
        (Ledger, "delete"): {"after": KILL_POINTS[10]},
    }


def pass_point(point: str) -> None:
    """Kill this process if that is planned."""
    if planned(point):
        kill_self(point)


def planned(point: str) -> bool:
    """Return whether this attempt of this task is to be killed at a point."""
    return is_killed(_SEED, _RATE, _task(), point)


def kill_self(point: str) -> None:
    """Record the point, and kill this process as the system would."""
    run_id, map_index, try_number = _task()
    line = json.dumps({"point": point, "run_id": run_id, "map_index": map_index, "try_number": try_number}) + "\n"
    file = os.open(_KILLS_FILE, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(file, line.encode())
    os.kill(os.getpid(), signal.SIGKILL)


def _task() -> tuple[str, int, int]:
    ti = get_current_context()["ti"]
    return ti.run_id, ti.map_index or 0, ti.try_number


def _wrap(owner: type, name: str, before: str = "", after: str = "", around: Callable[..., Any] | None = None) -> None:
    original = getattr(owner, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if before:
            pass_point(before)
        result = around(original, *args, **kwargs) if around else original(*args, **kwargs)
        if after:
            pass_point(after)
        return result

    wrapper.wrapped = True  # type: ignore[attr-defined]
    setattr(owner, name, wrapper)


def _send(original: Callable[..., Any], client: SegmindClient, call: Any) -> Any:
    if not call.charges:
        return original(client, call)
    if planned(KILL_POINTS[2]):
        _send_half(client, call)
        kill_self(KILL_POINTS[2])
    response = original(client, call)
    pass_point(KILL_POINTS[3])
    return response


def _send_half(client: SegmindClient, call: Any) -> None:
    """Send half of a request."""
    url, body = httpx.URL(client._settings.base_url), json.dumps(call.body).encode()
    head = (
        f"POST {call.path} HTTP/1.1\r\nHost: {url.host}\r\nx-api-key: {client._settings.api_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection((url.host, url.port or 80), timeout=5)
    connection.sendall(head.encode() + body[: len(body) // 2])


def _put(original: Callable[..., Any], store: ImageStore, job: Any, image: Any, *args: Any, **kwargs: Any) -> Any:
    if planned(KILL_POINTS[8]):
        image = dataclasses.replace(image, file=_KillingFile(image.file, image.size_bytes))
    return original(store, job, image, *args, **kwargs)


class _KillingFile:
    """A file that kills its reader half-way through the second read: over http, botocore reads it first to sign it."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size + size // 2

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self._left -= len(piece)
        if self._left < 0:
            kill_self(KILL_POINTS[8])
        return piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
