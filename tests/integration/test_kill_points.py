"""
A worker's process is killed at each named point, and the next attempt stores the image without paying again.

The slice that is killed runs in a forked child, which sends itself SIGKILL at the point. As with ``kill -9``, no
handler, no ``finally`` and no further call runs. Its XComs are lost with it. That changes nothing for the next attempt,
because Airflow deletes all XComs when one starts.
"""

from __future__ import annotations

import os
import re
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

import botocore.httpsession
import httpx
import pytest

from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
from airflow_provider_ideogram.jobs import completion
from airflow_provider_ideogram.jobs.ledger import Ledger
from airflow_provider_ideogram.jobs.reconciliation import HISTORY_LAG
from airflow_provider_ideogram.operators.image import IdeogramGenerateImageOperator
from tests.support.world import KEY, RECORD_KEY, assert_error, assert_succeeded

if TYPE_CHECKING:
    from tests.support.task_runner import Slice, TaskRun
    from tests.support.world import ImageTask, World

    KilledTask = Callable[..., TaskRun]

#: Seconds after which a child that does not reach its point is ended.
CHILD_SECONDS = 60


def _kill_self(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _entering(owner: Any, name: str) -> AbstractContextManager[Any]:
    return mock.patch.object(owner, name, _kill_self)


def _leaving(owner: Any, name: str) -> AbstractContextManager[Any]:
    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        _kill_self()

    return mock.patch.object(owner, name, call)


def _http(method: str, path: str, *, after_response: bool) -> AbstractContextManager[Any]:
    """Kill the process before a request is sent, or when its response begins."""
    send = httpx.HTTPTransport.handle_request

    def handle(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        if request.method != method or not request.url.path.startswith(path):
            return send(transport, request)
        if after_response:
            send(transport, request)
        _kill_self()
        raise AssertionError("the process was not killed")

    return mock.patch.object(httpx.HTTPTransport, "handle_request", handle)


def _upload() -> AbstractContextManager[Any]:
    """Kill the process when half of the image is sent to S3."""
    send = botocore.httpsession.URLLib3Session.send

    class Half:
        def __init__(self, body: Any) -> None:
            self._body = body

        def read(self, size: int = -1) -> bytes:
            half: bytes = self._body.read()
            self.read = _kill_self  # type: ignore[method-assign]
            return half[: len(half) // 2]

    def cut(session: Any, request: Any) -> Any:
        if request.method == "PUT" and request.url.partition("?")[0].endswith(f"/{KEY}"):
            request.body = Half(request.body)
        return send(session, request)

    return mock.patch.object(botocore.httpsession.URLLib3Session, "send", cut)


@dataclass(frozen=True)
class Point:
    """
    Where the worker's process is killed.

    :param install: Patches the code so that the process kills itself there.
    :param accepted: The requests that the vendor has accepted by then.
    :param after_deferral: Whether the point is in the slice that fetches the image.
    """

    install: Callable[[], AbstractContextManager[Any]]
    accepted: int = 1
    after_deferral: bool = False


UNPAID = {
    "before the intent": Point(lambda: _entering(Ledger, "write_intent"), accepted=0),
}
UNSENT = {
    "between intent and POST": Point(lambda: _entering(IdeogramHook, "submit"), accepted=0),
    "inside the POST, before the server has it": Point(lambda: _http("POST", "/v2/", after_response=False), accepted=0),
}
ACCEPTED = {
    "inside the POST, after the server accepted": Point(lambda: _http("POST", "/v2/", after_response=True)),
    "between POST and record": Point(lambda: _entering(Ledger, "record_request")),
}
KNOWN = {
    "after the record": Point(lambda: _leaving(Ledger, "record_request")),
    "before deferring": Point(lambda: _entering(IdeogramGenerateImageOperator, "defer")),
    "while waiting on the worker": Point(lambda: _entering(completion, "poll_once")),
    "before the download": Point(lambda: _http("GET", "/images/", after_response=False), after_deferral=True),
    "during download": Point(lambda: _http("GET", "/images/", after_response=True), after_deferral=True),
    "during upload": Point(_upload, after_deferral=True),
    "after upload, before the record's removal": Point(lambda: _entering(Ledger, "delete"), after_deferral=True),
}
GONE = Point(lambda: _leaving(Ledger, "delete"), after_deferral=True)
#: Points that only one of the two ways of waiting has.
ONLY = {"before deferring": True, "while waiting on the worker": False}


def _cases(*groups: dict[str, Point]) -> pytest.MarkDecorator:
    cases = [
        pytest.param(point, deferrable, id=f"{name}, {'deferred' if deferrable else 'on the worker'}")
        for group in groups
        for name, point in group.items()
        for deferrable in (True, False)
        if ONLY.get(name, deferrable) is deferrable
    ]
    return pytest.mark.parametrize(("point", "deferrable"), cases)


@contextmanager
def _child(run_slice: Callable[[], Slice], install: Callable[[], AbstractContextManager[Any]]) -> Iterator[int]:
    """Run a slice in a forked process that is to be killed, and yield its process id."""
    with warnings.catch_warnings():
        # Python 3.12 and newer warn of a fork beside threads. The threads here are servers that wait for requests.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(CHILD_SECONDS)
            with install():
                result = run_slice()
            os.write(2, f"not killed, but {result}\n".encode())
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(1)
    yield pid
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), f"the child ended with {status}"
    assert os.WTERMSIG(status) == signal.SIGKILL


def _kill(run_slice: Callable[[], Slice], point: Point) -> None:
    with _child(run_slice, point.install):
        pass


def _assert_one_image(world: World, run: TaskRun, result: Slice, *, cost: float = 0.05) -> None:
    """Check one request, its image in S3 byte by byte, an empty ledger, and an XCom that agrees with them."""
    assert_succeeded(result)
    [request] = world.emulator.requests()
    assert world.object_keys() == [KEY]
    stored = world.stored()
    assert stored == world.emulator.image_bytes(request.request_id)
    xcom = run.xcom()
    assert (xcom["request_id"], xcom["seed"]) == (request.request_id, request.inputs["seed"])
    assert (xcom["cost_usd"], xcom["reused"], xcom["size_bytes"]) == (cost, cost == 0, len(stored))


@pytest.fixture
def killed_task(image_task: ImageTask, world: World) -> KilledTask:
    """Make a task instance whose first attempt was killed at the point."""

    def make(point: Point, deferrable: bool, **arguments: Any) -> TaskRun:
        run = image_task(deferrable=deferrable, retries=3, **arguments)
        if deferrable and point.after_deferral:
            assert run.execute().state == "deferred"
            event = run.fire()
            _kill(lambda: run.resume(event), point)
        else:
            _kill(run.execute, point)
        assert world.accepted == point.accepted
        return run

    return make


@_cases(UNPAID, ACCEPTED, KNOWN)
def test_next_attempt_stores_the_image_without_a_new_submit(
    point: Point, deferrable: bool, killed_task: KilledTask, world: World
) -> None:
    run = killed_task(point, deferrable)

    result = world.to_end(run, run.retry())

    _assert_one_image(world, run, result)
    assert world.submits == 1


@_cases(ACCEPTED)
def test_attempt_minutes_later_submits_nothing(
    point: Point, deferrable: bool, killed_task: KilledTask, world: World
) -> None:
    run = killed_task(point, deferrable)
    world.pass_time(300)

    result = world.to_end(run, run.retry())

    _assert_one_image(world, run, result)
    assert world.submits == 1


@pytest.mark.parametrize("deferrable", [True, False])
def test_three_attempts_are_killed_one_after_the_other(deferrable: bool, killed_task: KilledTask, world: World) -> None:
    run = killed_task(KNOWN["after the record"], deferrable)
    world.pass_time(1)
    for name in ("during download", "during upload"):
        _kill(run.retry, KNOWN[name])

    result = world.to_end(run, run.retry())

    _assert_one_image(world, run, result)


@_cases(UNSENT)
class TestUnsent:
    """The worker was killed before the server had the request: the submit is unknown, and is not repeated unasked."""

    def test_clear_submits_one_request(
        self, point: Point, deferrable: bool, killed_task: KilledTask, world: World
    ) -> None:
        run = killed_task(point, deferrable)
        world.pass_time(HISTORY_LAG)

        for _ in range(2):
            result = run.retry()
            assert result.state == "up_for_retry"
            assert_error(result, "may have been accepted, and is charged if it completes", "Clear the task")
            assert (world.accepted, world.object_keys()) == (0, [RECORD_KEY])
        result = world.to_end(run, run.clear())

        assert "A person cleared the task" in run.log_text
        _assert_one_image(world, run, result)

    def test_resubmit_needs_no_person(
        self, point: Point, deferrable: bool, killed_task: KilledTask, world: World
    ) -> None:
        run = killed_task(point, deferrable, on_unknown_submit="resubmit")

        result = world.to_end(run, run.retry())

        assert "on_unknown_submit is 'resubmit'" in run.log_text
        _assert_one_image(world, run, result)


@pytest.mark.parametrize("deferrable", [True, False])
def test_stored_image_without_a_record_is_the_tasks_own(
    deferrable: bool, killed_task: KilledTask, world: World
) -> None:
    run = killed_task(GONE, deferrable)

    result = world.to_end(run, run.retry())

    _assert_one_image(world, run, result)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("deferrable", [True, False])
def test_killed_while_the_server_handles_the_submit(
    when: str, deferrable: bool, image_task: ImageTask, world: World
) -> None:
    """``before``: the request is accepted after the worker that sent it was killed."""
    world.emulator.fault("submit", "slow", when=when, seconds=2.0 if when == "before" else CHILD_SECONDS)
    run = image_task(deferrable=deferrable, retries=3)

    with _child(run.execute, mock.MagicMock) as pid:
        # The fault applies once the server has read the whole request.
        _await(lambda: world.emulator.stats().faults.get("submit:slow") if when == "before" else world.accepted)
        os.kill(pid, signal.SIGKILL)
    _await(lambda: world.accepted)
    result = world.to_end(run, run.retry())

    _assert_one_image(world, run, result)
    assert world.submits == 1


def _await(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + CHILD_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_retry_reattaches_after_the_triggerer_was_killed(image_task: ImageTask, world: World) -> None:
    run = image_task(retries=1)
    assert run.execute().state == "deferred"

    result = world.to_end(run, run.retry())

    _assert_one_image(world, run, result)
    assert "Reattached to request" in run.log_text


def test_another_run_stores_the_image_of_a_killed_one(
    image_task: ImageTask, killed_task: KilledTask, world: World
) -> None:
    killed_task(KNOWN["during upload"], True)
    other = image_task("another_run")

    result = world.to_end(other, other.execute())

    _assert_one_image(world, other, result, cost=0.0)


@pytest.mark.parametrize("point", [ACCEPTED["between POST and record"], KNOWN["after the record"]])
def test_request_below_a_prefix_is_found_by_its_own_task(point: Point, killed_task: KilledTask, world: World) -> None:
    run = killed_task(point, True, s3_key="images/")

    result = world.to_end(run, run.retry())

    assert_succeeded(result)
    [request] = world.emulator.requests()
    [key] = world.object_keys()
    assert re.fullmatch(rf"images/[0-9a-f]{{8}}-{request.request_id}\.png", key)
    assert run.xcom()["cost_usd"] == 0.05


@_cases({name: KNOWN[name] for name in ONLY})
def test_without_a_ledger_the_next_attempt_submits_again(
    point: Point, deferrable: bool, killed_task: KilledTask, world: World
) -> None:
    run = killed_task(point, deferrable, durable=False)

    assert_succeeded(world.to_end(run, run.retry()))

    assert world.accepted == 2
    assert world.object_keys() == [KEY]
