"""
The vendor in memory: the emulator's account behind the package's own client, without sockets.

Invariant: a job's end is decided when it is accepted, and only the clock changes its state afterwards, as at the
emulator.
"""

from __future__ import annotations

import functools
import json
import math
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from typing_extensions import override

from airflow_provider_ideogram.api.calls import Call
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.api.retry_flow import RequestNotSent, ResponseNotReceived
from airflow_provider_ideogram.emulator.account import Account
from airflow_provider_ideogram.emulator.errors import ApiError
from airflow_provider_ideogram.emulator.faults import Faults as EmulatorFaults
from airflow_provider_ideogram.emulator.history import history_row, page_of_history
from airflow_provider_ideogram.emulator.jobs import Job, Outcome
from airflow_provider_ideogram.emulator.rate_limit import reset_headers
from airflow_provider_ideogram.emulator.settings import EmulatorSettings
from airflow_provider_ideogram.hooks import download
from airflow_provider_ideogram.hooks.client import SegmindClient
from airflow_provider_ideogram.hooks.connection import DEFAULT_HISTORY_URL, ConnectionSettings
from airflow_provider_ideogram.hooks.image import SpooledImage
from tests.simulation.servers import NotCarriedOut, ResponseLost, Servers

API_KEY = "key-of-the-simulation"
_IMAGES = "https://images.segmind.com/"
_JOB_PATH = re.compile(r"/v2/requests/([^/]+)(/status)?")
_FAILED_TEXT = "Inference failed: the worker ran out of memory"
_BLOCKED_TEXT = "Request blocked by the RAI safety filter: the prompt violates the content policy"
_SLOW_JOBS = (60.0, 400.0, 900.0, 4000.0)
#: What a gateway answers for a request that it did not, or did, pass on.
_GATEWAY = (500, 502, 503, 504, 520, 524)
_REFUSALS = (
    (401, "invalid_api_key"),
    (402, "Insufficient credits"),
    (403, "This key may not use the model"),
    (406, "Team spend limit reached"),
    (410, "This model is retired"),
)


class _Outcomes(EmulatorFaults):
    """How jobs end."""

    def __init__(self, servers: Servers) -> None:
        super().__init__()
        self._servers = servers

    @override
    def outcome(self, prompt: str) -> Outcome:
        """Draw how an accepted job ends."""
        faults, rng = self._servers.faults, self._servers.kernel.rng
        error = _BLOCKED_TEXT if faults.happens("job blocked") else None
        error = _FAILED_TEXT if error is None and faults.happens("job failed") else error
        seconds = rng.uniform(5.0, rng.choice(_SLOW_JOBS)) if faults.happens("job slow") else rng.uniform(8.0, 16.0)
        return Outcome(error=error, seconds=seconds)


class _Account(Account):
    """The account, whose history shows each request after a delay of its own."""

    def __init__(self, settings: EmulatorSettings, servers: Servers) -> None:
        self._servers = servers
        self.visible_at: dict[str, float] = {}
        super().__init__(settings)
        self.clock = SimpleNamespace(now=lambda: servers.kernel.now)  # type: ignore[assignment]
        self.faults = _Outcomes(servers)

    @override
    def accept(self, model: str, inputs: dict[str, Any], synchronous: bool) -> Job:
        """Accept a job."""
        job = super().accept(model, inputs, synchronous)
        self.visible_at[job.request_id] = job.submitted_at + self._servers.faults.history_lag()
        return job

    @override
    def is_in_history(self, job: Job) -> bool:
        """Return whether the history shows a job."""
        is_shown = self.visible_at[job.request_id] <= self.now()
        if not is_shown:
            self._servers.count("history: does not show a request yet")
        return is_shown


class Vendor:
    """
    The API, the history and the images' host.

    :param servers: The way to them.
    :param on_accept: Called with each accepted job.
    """

    def __init__(self, servers: Servers, on_accept: Callable[[Job], None]) -> None:
        self._servers, self._on_accept = servers, on_accept
        rng = servers.kernel.rng
        settings = EmulatorSettings(
            clock_speed=0.0,
            random_seed=rng.randrange(1 << 30),
            queue_seconds=rng.choice((0.2, 3.0)),
            rate_limit=rng.choice((0, 0, 5, 60)),
        )
        self.account = _Account(settings, servers)

    def answer(self, call: Call[Any]) -> ApiResponse:
        """Send a call, and return the response."""
        service, kind, about, effect = self._route(call)
        self._servers.kernel.routine.notes.pop("submit", None)
        if self._servers.faults.happens("read refused") and service == "read":
            effect = _refuse
        try:
            status, headers, body = self._servers.exchange(service, kind, about, functools.partial(_respond, effect))
        except NotCarriedOut:
            return self._failed(service, was_sent=False)
        except ResponseLost:
            return self._failed(service, was_sent=True)
        if service == "history":
            self._servers.kernel.routine.notes["history read at"] = self._servers.kernel.now
        return _response(status, headers, body, self._servers.kernel.now)

    def _failed(self, service: str, *, was_sent: bool) -> ApiResponse:
        """Return a gateway's answer, or raise what the client sees of a broken connection."""
        kernel = self._servers.kernel
        kind = kernel.rng.random()
        notes = kernel.routine.notes
        if kind < 0.3 and not was_sent:
            raise RequestNotSent("ConnectError: refused")
        if kind < 0.6:
            raise ResponseNotReceived("ReadTimeout")
        status = kernel.rng.choice(_GATEWAY)
        if service == "submit" and "submit" in notes and status in (500, 502, 503):
            notes["submit"].is_answered_5xx = True
        return _response(status, {}, {"error": f"gateway {status}"}, kernel.now)

    def _route(self, call: Call[Any]) -> tuple[str, str, str, Callable[[], Any]]:
        """Return the server, the kind of call, what it is about, and its effect."""
        url = urlsplit(call.path)
        if call.method == "POST":
            model, body = url.path.rsplit("/", 1)[1], dict(call.body or {})
            about = f"{body['prompt']} seed {body['seed']}"
            return "submit", "submit", about, functools.partial(self._submit, model, body)
        if call.path.startswith(DEFAULT_HISTORY_URL):
            request_id = url.path.removeprefix(urlsplit(DEFAULT_HISTORY_URL).path).strip("/")
            if request_id:
                return "history", "history row", request_id[:8], functools.partial(self._history_row, request_id)
            return "history", "history", "", functools.partial(self._history, dict(parse_qsl(url.query)))
        match = _JOB_PATH.fullmatch(url.path)
        assert match is not None, call.path
        what, effect = ("status", self._status) if match[2] else ("result", self._result)
        return "read", what, match[1][:8], functools.partial(effect, match[1])

    def _submit(self, model: str, inputs: dict[str, Any]) -> dict[str, Any]:
        faults, kernel = self._servers.faults, self._servers.kernel
        if faults.happens("submit 429"):
            form = kernel.rng.choice(("iso", "epoch", "retry_after", "none"))
            raise ApiError(429, "rate_limit_exceeded", reset_headers(form, kernel.now + 30.0, kernel.now))
        if faults.happens("submit refused"):
            raise ApiError(*kernel.rng.choice(_REFUSALS))
        job = self.account.accept(model, inputs, synchronous=False)
        kernel.note(
            f"accepted {job.request_id[:8]}, ends {'badly' if job.outcome.error else 'well'} at {job.done_at:.0f}"
        )
        self._on_accept(job)
        return {"request_id": job.request_id, "status": "QUEUED"}

    def _status(self, request_id: str) -> dict[str, Any]:
        if self._servers.faults.happens("read 404"):
            raise ApiError(404, "request not found")
        self.account.count_poll()
        job, now = self.account.job(request_id), self.account.now()
        body: dict[str, Any] = {"request_id": request_id, "status": job.state(now)}
        if now >= job.done_at:
            body["metrics"] = job.metrics()
        if job.state(now) == "FAILED":
            raise ApiError(422, job.outcome.error or "", details=body)
        return body

    def _result(self, request_id: str) -> dict[str, Any]:
        body = self._status(request_id)
        return body | ({"output": _image_url(request_id)} if body["status"] == "COMPLETED" else {})

    def _history(self, query: Mapping[str, str]) -> dict[str, Any]:
        account = self.account
        return page_of_history(account.history(), query, account.now(), lambda job, _: _image_url(job.request_id))

    def _history_row(self, request_id: str) -> dict[str, Any]:
        job = self.account.history_job(request_id)
        return history_row(job, self.account.now(), lambda job, _: _image_url(job.request_id))

    def fetch(self, client: object, address: str, settings: ConnectionSettings) -> SpooledImage:
        """Download an image, in the place of the function that does it over HTTP."""
        request_id = address.removeprefix(_IMAGES).removesuffix(".png")

        def read() -> bytes:
            self.account.job_with_file(request_id)
            image = image_of(request_id)
            return image[: len(image) // 2] if self._servers.faults.happens("image truncated") else image

        try:
            status, _, body = self._servers.exchange(
                "image", "image", request_id[:8], functools.partial(_respond, read)
            )
        except (NotCarriedOut, ResponseLost):
            raise download._unavailable("the image's host did not deliver it") from None
        response: Any = SimpleNamespace(status_code=status, headers={}, iter_raw=lambda: iter([body]))
        return download._read_image(response, math.inf)


class SimulatedClient(SegmindClient):
    """
    The package's client, whose requests go to the simulated vendor.

    :param vendor: The vendor.
    :param settings: The connection's settings.
    """

    def __init__(self, vendor: Vendor, settings: ConnectionSettings) -> None:
        import random

        self._settings = settings
        self._rng = random.Random()
        self._vendor = vendor

    @override
    def _send(self, call: Call[Any]) -> ApiResponse:
        return self._vendor.answer(call)

    @override
    def close(self) -> None:
        """Do nothing: there are no connections."""


def _respond(effect: Callable[[], Any]) -> tuple[int, Mapping[str, str], Any]:
    """Return status, headers and body of an answer."""
    try:
        return 200, {}, effect()
    except ApiError as error:
        return error.status, error.headers, error.body


def _refuse() -> None:
    raise ApiError(401, "invalid_api_key")


def _response(status: int, headers: Mapping[str, str], body: Any, now: float) -> ApiResponse:
    lower_case = {name.lower(): value for name, value in headers.items()}
    return ApiResponse(status, lower_case, json.dumps(body).encode(), received_at=now)


def _image_url(request_id: str) -> str:
    return f"{_IMAGES}{request_id}.png"


def image_of(request_id: str) -> bytes:
    """Return the image of a request: a PNG of one pixel that contains the request's id."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"tEXt", b"id\0" + request_id.encode()), (b"IDAT", _PIXEL), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


_PIXEL = zlib.compress(b"\0\x80")
