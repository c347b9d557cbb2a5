from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from airflow_provider_ideogram.ui.gate import MAX_REQUESTS, SECURITY_HEADERS, WORK, Gate
from airflow_provider_ideogram.ui.work import THREADS, BrowserGone, Busy, LimitReached, Work


class BlockedApp:
    """Blocks a thread of the gallery for each request, until it is released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.begun = 0
        self.works: list[Work] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        work = scope[WORK]
        self.works.append(work)
        await work.in_thread(self._block)
        await PlainTextResponse("done")(scope, receive, send)

    def _block(self) -> None:
        self.begun += 1
        assert self.release.wait(30)


@pytest.fixture
def blocked() -> Iterator[BlockedApp]:
    app = BlockedApp()
    yield app
    app.release.set()


def _client(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://gallery.example")


async def _until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # a thread can't set an event of asyncio
            await asyncio.sleep(0)


async def test_requests_beyond_the_queue_are_refused_at_once(blocked: BlockedApp) -> None:
    async with _client(Gate(blocked)) as client:
        admitted = [asyncio.create_task(client.get("/")) for _ in range(MAX_REQUESTS)]
        await _until(lambda: len(blocked.works) == MAX_REQUESTS and blocked.begun == THREADS)
        refused = await client.get("/")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
        assert refused.headers["Content-Security-Policy"]
        assert blocked.begun == THREADS
        blocked.release.set()
        assert {answer.status_code for answer in await asyncio.gather(*admitted)} == {200}
        assert (await client.get("/")).status_code == 200


async def test_threads_of_others_stay_free(blocked: BlockedApp) -> None:
    async with _client(Gate(blocked)) as client:
        admitted = [asyncio.create_task(client.get("/")) for _ in range(MAX_REQUESTS)]
        await _until(lambda: blocked.begun == THREADS)
        assert await asyncio.to_thread(lambda: "free") == "free"
        blocked.release.set()
        await asyncio.gather(*admitted)


async def test_work_ends_when_the_browser_has_gone(blocked: BlockedApp) -> None:
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    application = Gate(blocked)
    scopes = [{"type": "http", "path": "/", "method": "GET"} for _ in range(THREADS + 3)]
    requests = [asyncio.create_task(application(scope, receive, None)) for scope in scopes]  # type: ignore[arg-type]
    await _until(lambda: blocked.begun == THREADS and len(blocked.works) == len(scopes))
    gone.set()
    await asyncio.gather(*requests)
    assert application._requests == 0
    for work in blocked.works:
        with pytest.raises(BrowserGone):
            work.spend()
    blocked.release.set()
    # What waited for a thread never begins.
    await Work().in_thread(lambda: None)
    assert blocked.begun == THREADS


async def test_wait_for_a_thread_ends(blocked: BlockedApp) -> None:
    waiting = [asyncio.create_task(Work().in_thread(blocked._block)) for _ in range(THREADS)]
    await _until(lambda: blocked.begun == THREADS)
    late = asyncio.create_task(Work(seconds=0).in_thread(lambda: None))
    await asyncio.sleep(0)
    blocked.release.set()
    with pytest.raises(Busy):
        await late
    await asyncio.gather(*waiting)


async def test_error_of_the_application_goes_on_to_the_server() -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    application = Gate(fail)
    with pytest.raises(ZeroDivisionError):
        await application({"type": "http", "path": "/", "method": "GET"}, asyncio.Event().wait, None)  # type: ignore[arg-type]
    assert application._requests == 0


async def test_application_receives_an_empty_body_and_the_end() -> None:
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.extend([await receive(), await receive()])

    messages = iter([{"type": "http.request", "body": b"x" * 99, "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    application = Gate(app)
    scope = {"type": "http", "path": "/", "method": "GET"}
    await application(scope, receive, None)  # type: ignore[arg-type]
    assert [message["type"] for message in received] == ["http.request", "http.disconnect"]
    assert received[0]["body"] == b""


async def test_body_that_is_too_slow_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_ideogram.ui.gate.BODY_SECONDS", 0.0)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/", "method": "POST"}
    await Gate(None)(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]
    assert (sent[0]["status"], sent[1]["body"]) == (408, b"The request takes too long to arrive.")


async def test_nul_in_the_path_is_not_found() -> None:
    async with _client(Gate(None)) as client:  # type: ignore[arg-type]
        answer = await client.get("/dags/a%00b")
    assert answer.status_code == 404
    assert set(SECURITY_HEADERS) <= {name.title() for name in answer.headers}


def test_limits_of_a_request() -> None:
    work = Work(seconds=60, max_bytes=10)
    work.spend(10)
    with pytest.raises(LimitReached, match="too much"):
        work.spend(1)
    with pytest.raises(LimitReached, match="too long"):
        Work(seconds=0).spend()
    work.start_stream(3)
    work.spend(3)
