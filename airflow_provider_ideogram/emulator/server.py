"""
The HTTP server.

Invariant: handlers only translate between HTTP and the :class:`Account`. None waits for a job, except the synchronous
endpoint's.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from aiohttp import web

from airflow_provider_ideogram.emulator import admin
from airflow_provider_ideogram.emulator.account import Account
from airflow_provider_ideogram.emulator.delivery import deliver
from airflow_provider_ideogram.emulator.drawing import draw, picture_of
from airflow_provider_ideogram.emulator.errors import ApiError
from airflow_provider_ideogram.emulator.history import (
    GENERATIONS_PATH,
    HISTORY_PATH,
    OutputUrl,
    history_row,
    page_of_generations,
    page_of_history,
)
from airflow_provider_ideogram.emulator.jobs import Job
from airflow_provider_ideogram.emulator.results import FORMS_WITH_BYTES, RAW, URL, URL_LIST, image_fields
from airflow_provider_ideogram.emulator.validation import check_content_type, read_inputs

#: Interval at which the synchronous endpoint reads the clock, which a test can advance.
_TICK_SECONDS = 0.25
#: Synchronous calls and endless responses are aborted this long after the server was told to stop.
_SHUTDOWN_SECONDS = 0.1
_FAILED_STATUS = 422
#: Bytes of an error's body that are kept.
_MAX_NOTED = 200
_Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
_POLLS = ("status", "result")
#: The name of an image file: request id, number of the output unless it is the first, and extension.
_FILE_NAME = re.compile(r"([^_.]+)(?:_([1-9]\d{0,3}))?\.(\w+)")


class Api:
    """
    The request handlers of the API.

    :param account: The emulated account.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        # Images are drawn outside the event loop. One thread leaves the other cores to the code under test.
        self._drawing = ThreadPoolExecutor(1, "drawing")

    def application(self) -> web.Application:
        """Return the application that serves the API and the admin calls."""
        app = web.Application(middlewares=[self._note_errors, _error_responses])
        app.router.add_post("/v2/{model}", self.submit)
        app.router.add_get("/v2/requests/{request_id}/status", self.status)
        app.router.add_get("/v2/requests/{request_id}", self.result)
        app.router.add_get("/v1/get-user-credits", self.credits)
        app.router.add_get("/v1/requests/{request_id}", self.result)
        app.router.add_post("/v1/{model}", self.generate)
        app.router.add_get(HISTORY_PATH, self.history)
        app.router.add_get(HISTORY_PATH + "/{request_id}", self.history_of_one)
        app.router.add_get(GENERATIONS_PATH, self.generations)
        app.router.add_get("/images/{name}", self.image)
        admin.add_routes(app, self._account)
        return app

    @web.middleware
    async def _note_errors(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Keep the last error response of the API for the report of a failed test."""
        response = await handler(request)
        if response.status >= 400 and isinstance(response, web.Response) and not request.path.startswith("/_"):
            text = bytes(response.body or b"")[:_MAX_NOTED].decode("utf-8", "replace")  # type: ignore[arg-type]
            self._account.last_error = f"{request.method} {request.path}: HTTP {response.status} {text}"
        return response

    def close(self) -> None:
        """Stop the thread that draws images."""
        self._drawing.shutdown()

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """Accept a job and answer with its id."""
        self._begin_call(request, "submit")
        inputs = await _read_inputs(request)

        async def execute() -> web.Response:
            job = self._account.accept(request.match_info["model"], inputs, synchronous=False)
            job_url = f"{_origin(request)}/v2/requests/{job.request_id}"
            body = {
                "request_id": job.request_id,
                "status": "QUEUED",
                "status_url": f"{job_url}/status",
                "response_url": job_url,
                "poll_url": f"{_origin(request)}/v1/requests/{job.request_id}",
            }
            return _json(body)

        return await self._deliver(request, "submit", _prompt(inputs), execute)

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """Accept a job, wait until it is done, and answer with the image unless a fault orders another form."""
        self._begin_call(request, "generate")
        inputs = await _read_inputs(request)

        async def execute() -> web.Response:
            job = self._account.accept(request.match_info["model"], inputs, synchronous=True)
            while (seconds := job.done_at - self._account.now()) > 0:  # noqa: ASYNC110 - the clock can be advanced
                await asyncio.sleep(min(seconds, _TICK_SECONDS))
            response = await self._result(request, job, job.outcome.form or RAW)
            response.headers.update(_synchronous_headers(job))
            return response

        return await self._deliver(request, "submit", _prompt(inputs), execute)

    async def status(self, request: web.Request) -> web.StreamResponse:
        """Answer with a job's state."""
        self._begin_call(request, "status")
        job = self._account.job(request.match_info["request_id"])

        async def execute() -> web.Response:
            job.status_calls += 1
            body = self._status_body(job)
            return _json(body, _FAILED_STATUS if body["status"] == "FAILED" else 200)

        return await self._deliver(request, "status", job.prompt, execute)

    async def result(self, request: web.Request) -> web.StreamResponse:
        """Answer with a job's result, or with its state if it is not COMPLETED."""
        self._begin_call(request, "result")
        job = self._account.job(request.match_info["request_id"])

        async def execute() -> web.Response:
            return await self._result(request, job, job.outcome.form or (URL if job.outputs == 1 else URL_LIST))

        return await self._deliver(request, "result", job.prompt, execute)

    async def credits(self, request: web.Request) -> web.StreamResponse:
        """Answer with the balance."""
        self._begin_call(request, "credits")

        async def execute() -> web.Response:
            return _json({"credits": self._account.credits(), "free-credits": 0.0})

        return await self._deliver(request, "credits", "", execute)

    async def history(self, request: web.Request) -> web.StreamResponse:
        """Answer with a page of the account's requests."""
        self._begin_call(request, "history")

        async def execute() -> web.Response:
            now = self._account.now()
            return _json(page_of_history(self._account.history(), request.query, now, _image_url_of(request)))

        return await self._deliver(request, "history", "", execute)

    async def history_of_one(self, request: web.Request) -> web.StreamResponse:
        """Answer with one request of the history, of any age."""
        self._begin_call(request, "history")

        async def execute() -> web.Response:
            job = self._account.history_job(request.match_info["request_id"])
            return _json(history_row(job, self._account.now(), _image_url_of(request)))

        return await self._deliver(request, "history", "", execute)

    async def generations(self, request: web.Request) -> web.StreamResponse:
        """Answer with a page of the outputs."""
        self._begin_call(request, "history")

        async def execute() -> web.Response:
            account = self._account
            return _json(
                page_of_generations(
                    account.jobs(), request.query, account.now(), _image_url_of(request), account.is_in_history
                )
            )

        return await self._deliver(request, "history", "", execute)

    async def image(self, request: web.Request) -> web.StreamResponse:
        """Answer with a job's image. No API key is needed; one that is sent is counted as a leak."""
        self._account.calls["image"] += 1
        if "x-api-key" in request.headers:
            self._account.key_leaks += 1
        name = _FILE_NAME.fullmatch(request.match_info["name"])
        if name is None:
            raise ApiError(404, "file not found")
        job, output = self._account.job_with_file(name[1]), int(name[2] or 0)
        if output >= job.outputs or name[3] != job.image_format:
            raise ApiError(404, "file not found")

        async def execute() -> web.Response:
            return _image(job, await self._draw(job, output))

        return await self._deliver(request, "image", job.prompt, execute)

    def _begin_call(self, request: web.Request, operation: str) -> None:
        """Count a call, and check its API key and, for a poll, the rate limit."""
        self._account.calls[operation] += 1
        self._account.authenticate(request.headers.get("x-api-key"))
        if operation in _POLLS:
            self._account.count_poll()

    async def _deliver(
        self, request: web.Request, operation: str, prompt: str, execute: Callable[[], Awaitable[web.Response]]
    ) -> web.StreamResponse:
        try:
            fault = self._account.faults.trigger(operation, prompt)
        except ValueError as error:
            raise ApiError(400, f"prompt: {error}") from error
        return await deliver(request, fault, execute)

    def _status_body(self, job: Job) -> dict[str, Any]:
        now = self._account.now()
        state = job.state(now)
        body: dict[str, Any] = {"request_id": job.request_id, "status": state}
        if now >= job.done_at:
            job.first_seen_done_at = job.first_seen_done_at or now
            body["metrics"] = job.metrics()
        if state == "FAILED":
            body["error"] = job.outcome.error
        return body

    async def _result(self, request: web.Request, job: Job, form: str) -> web.Response:
        body = self._status_body(job)
        if body["status"] == "FAILED":
            return _json(body, _FAILED_STATUS)
        if body["status"] != "COMPLETED":
            return _json(body, 202)
        image = await self._draw(job) if form in FORMS_WITH_BYTES else b""
        if form == RAW:
            return _image(job, image)
        urls = [_image_url_of(request)(job, output) for output in range(job.outputs)]
        return _json(body | image_fields(form, urls, job.image_format, image))

    async def _draw(self, job: Job, output: int = 0) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._drawing, draw, picture_of(job, output))


@asynccontextmanager
async def serve(account: Account) -> AsyncIterator[str]:
    """
    Serve an account on the host and port of its settings.

    :return: The base URL, with the actual port.
    :raises OSError: If the address cannot be bound.
    """
    api = Api(account)
    runner = web.AppRunner(api.application(), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, account.settings.host, account.settings.port).start()
        yield f"http://{account.settings.host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
        api.close()


@web.middleware
async def _error_responses(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return _json(error.body, error.status, error.headers)
    except web.HTTPMethodNotAllowed as error:
        page = f"<html><body><h1>{error.status} {error.reason}</h1></body></html>"
        headers = {"Allow": error.headers["Allow"]}
        return web.Response(text=page, status=error.status, headers=headers, content_type="text/html")
    except web.HTTPException as error:
        return _json({"error": error.reason}, error.status)


def _json(body: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=json.dumps(body).encode(), status=status, headers=headers, content_type="application/json")


def _image(job: Job, image: bytes) -> web.Response:
    return web.Response(body=image, content_type=f"image/{job.image_format}")


def _origin(request: web.Request) -> str:
    return f"{request.scheme}://{request.host}"


def _image_url_of(request: web.Request) -> OutputUrl:
    """Return the function that returns the URL of an output on the host that the client called."""
    images = f"{_origin(request)}/images"
    return lambda job, output: f"{images}/{job.request_id}{f'_{output}' if output else ''}.{job.image_format}"


async def _read_inputs(request: web.Request) -> dict[str, Any]:
    check_content_type(request.content_type)
    return read_inputs(await request.read())


def _synchronous_headers(job: Job) -> dict[str, str]:
    """Return the synchronous endpoint's headers; a FAILED job has no cost."""
    metrics = job.metrics()
    headers = {
        "x-request-id": job.request_id,
        "x-generation-time": metrics["inference_time"],
        "x-seed-value": job.seed,
        "x-cost": metrics.get("cost"),
        "x-remaining-credits": metrics.get("remaining_credits"),
    }
    return {name: str(value) for name, value in headers.items() if value is not None}


def _prompt(inputs: dict[str, Any]) -> str:
    prompt = inputs.get("prompt")
    return prompt if isinstance(prompt, str) else ""
