"""
A worker's process is killed at each named point, and the next attempt ends the job without paying again.

The slice of the task that dies runs in a forked child, which sends itself SIGKILL at the point: as with ``kill -9``
nothing of it runs after that, no handler, no ``finally``, no call of S3 or of the API. What it had told Airflow dies
with it here, which is what a new attempt finds anyway: Airflow deletes the XComs when one starts.
"""

from __future__ import annotations

import os
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
from airflow_provider_ideogram.jobs.reconciliation import HISTORY_LAG, RETRY_SECONDS
from airflow_provider_ideogram.operators.image import IdeogramGenerateImageOperator

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from tests.integration.conftest import Clock
    from tests.support.task_runner import Slice, TaskRun, TaskRunner

    Generate = Callable[..., IdeogramGenerateImageOperator]

KEY = "images/lighthouse.png"
#: A child that does not die at its point is ended by this.
CHILD_SECONDS = 60


def _die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _entering(owner: Any, name: str) -> AbstractContextManager[Any]:
    return mock.patch.object(owner, name, _die)


def _leaving(owner: Any, name: str) -> AbstractContextManager[Any]:
    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        _die()

    return mock.patch.object(owner, name, call)


def _http(method: str, path: str, *, answered: bool) -> AbstractContextManager[Any]:
    """Die where a request is about to be sent, or where its answer begins to come."""
    send = httpx.HTTPTransport.handle_request

    def handle(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        if request.method != method or not request.url.path.startswith(path):
            return send(transport, request)
        if answered:
            send(transport, request)
        return _die()

    return mock.patch.object(httpx.HTTPTransport, "handle_request", handle)


def _upload() -> AbstractContextManager[Any]:
    """Die when half of the image is on its way to S3."""
    send = botocore.httpsession.URLLib3Session.send

    class Half:
        def __init__(self, body: Any) -> None:
            self._body = body

        def read(self, size: int = -1) -> bytes:
            half: bytes = self._body.read()
            self.read = _die  # type: ignore[method-assign]
            return half[: len(half) // 2]

    def cut(session: Any, request: Any) -> Any:
        if request.method == "PUT" and request.url.partition("?")[0].endswith(f"/{KEY}"):
            request.body = Half(request.body)
        return send(session, request)

    return mock.patch.object(botocore.httpsession.URLLib3Session, "send", cut)


@dataclass(frozen=True)
class Point:
    """
    Where the worker dies.

    :param install: Lets the process die there.
    :param charged: What was paid by then.
    :param after_deferral: Whether it is in the slice that fetches the image.
    """

    install: Callable[[], AbstractContextManager[Any]]
    charged: int = 1
    after_deferral: bool = False


UNPAID = {
    "before the intent": Point(lambda: _entering(Ledger, "write_intent"), charged=0),
}
UNSENT = {
    "between intent and POST": Point(lambda: _entering(IdeogramHook, "submit"), charged=0),
    "inside the POST, before the server has it": Point(lambda: _http("POST", "/v2/", answered=False), charged=0),
}
ACCEPTED = {
    "inside the POST, after the server accepted": Point(lambda: _http("POST", "/v2/", answered=True)),
    "between POST and record": Point(lambda: _entering(Ledger, "record_request")),
}
KNOWN = {
    "after the record": Point(lambda: _leaving(Ledger, "record_request")),
    "before deferring": Point(lambda: _entering(IdeogramGenerateImageOperator, "defer")),
    "while waiting on the worker": Point(lambda: _entering(completion, "look")),
    "before the download": Point(lambda: _http("GET", "/images/", answered=False), after_deferral=True),
    "during download": Point(lambda: _http("GET", "/images/", answered=True), after_deferral=True),
    "during upload": Point(_upload, after_deferral=True),
    "after upload, before the record's removal": Point(lambda: _entering(Ledger, "delete"), after_deferral=True),
}
GONE = Point(lambda: _leaving(Ledger, "delete"), after_deferral=True)
#: Points that only one of the two ways of waiting has.
ONLY = {"before deferring": True, "while waiting on the worker": False}


def _cases(*groups: dict[str, Point]) -> Any:
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
    """Run a slice in a forked process that is to die, and give its id."""
    with warnings.catch_warnings():
        # From Python 3.12 on forking beside threads warns: those here are servers that wait for their next request.
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


@dataclass
class World:
    """What the tests compare: the vendor's books, the bucket, and what the task says."""

    emulator: RunningEmulator
    clock: Clock
    s3: S3Client
    bucket: str

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.emulator.advance(seconds)

    def charged(self) -> int:
        return self.emulator.stats().accepted

    def to_end(self, run: TaskRun, result: Slice) -> Slice:
        """Run the attempt to its end, with the time passing that it waits for."""
        while result.state == "deferred":
            assert run.deferral is not None
            if run.deferral["next_method"] == "submit_again":
                self.later(RETRY_SECONDS)
            result = run.resume(run.fire())
        return result

    def keys(self) -> list[str]:
        return [item["Key"] for item in self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])]

    def assert_one_image(self, run: TaskRun, result: Slice, *, cost: float = 0.05) -> None:
        """One charge, its image in S3 byte by byte, an empty ledger, and an XCom that says so."""
        assert result.state == "success", result.log_text
        [charge] = self.emulator.requests()
        assert self.keys() == [KEY]
        stored = self.s3.get_object(Bucket=self.bucket, Key=KEY)["Body"].read()
        assert stored == self.emulator.image_bytes(charge.request_id)
        xcom = run.xcom()
        assert (xcom["request_id"], xcom["seed"]) == (charge.request_id, charge.inputs["seed"])
        assert (xcom["cost_usd"], xcom["reused"], xcom["size_bytes"]) == (cost, cost == 0, len(stored))


@pytest.fixture
def world(ideogram_emulator: RunningEmulator, clock: Clock, s3: S3Client, s3_bucket: str) -> World:
    return World(ideogram_emulator, clock, s3, s3_bucket)


@pytest.fixture
def dead_run(generate: Generate, task_runner: TaskRunner, world: World) -> Callable[..., TaskRun]:
    """Make a task instance whose first attempt was killed at the point."""

    def make(point: Point, deferrable: bool, **arguments: Any) -> TaskRun:
        run = task_runner(generate(deferrable=deferrable, retries=3, **arguments))
        if deferrable and point.after_deferral:
            assert run.execute().state == "deferred"
            event = run.fire()
            _kill(lambda: run.resume(event), point)
        else:
            _kill(run.execute, point)
        assert world.charged() == point.charged
        return run

    return make


@_cases(UNPAID, ACCEPTED, KNOWN)
def test_the_next_attempt_ends_the_job_and_pays_nothing_more(
    point: Point, deferrable: bool, dead_run: Callable[..., TaskRun], world: World
) -> None:
    run = dead_run(point, deferrable)

    result = world.to_end(run, run.retry())

    world.assert_one_image(run, result)
    assert world.emulator.stats().calls["submit"] == 1


@_cases(ACCEPTED)
def test_nothing_is_submitted_by_an_attempt_that_comes_minutes_later(
    point: Point, deferrable: bool, dead_run: Callable[..., TaskRun], world: World
) -> None:
    run = dead_run(point, deferrable)
    world.later(300)

    result = world.to_end(run, run.retry())

    world.assert_one_image(run, result)
    assert world.emulator.stats().calls["submit"] == 1


@pytest.mark.parametrize("deferrable", [True, False])
def test_three_attempts_die_one_after_the_other(
    deferrable: bool, dead_run: Callable[..., TaskRun], world: World
) -> None:
    run = dead_run(KNOWN["after the record"], deferrable)
    world.later(1)
    for name in ("during download", "during upload"):
        _kill(run.retry, KNOWN[name])

    result = world.to_end(run, run.retry())

    world.assert_one_image(run, result)


@_cases(UNSENT)
class TestUnsent:
    """The worker died before the server had the request: nobody can know, and nobody pays unasked."""

    def test_a_person_who_clears_the_task_pays_once(
        self, point: Point, deferrable: bool, dead_run: Callable[..., TaskRun], world: World
    ) -> None:
        run = dead_run(point, deferrable)
        world.later(HISTORY_LAG)

        for _ in range(2):
            result = run.retry()
            assert result.state == "up_for_retry"
            assert "may have been accepted and charged" in str(result.error)
            assert "Clear the task" in str(result.error)
            assert (world.charged(), world.keys()) == (0, [f"_ideogram/{KEY}.json"])
        result = world.to_end(run, run.clear())

        assert "a person cleared the task" in run.log_text
        world.assert_one_image(run, result)

    def test_a_user_who_said_so_pays_without_a_person(
        self, point: Point, deferrable: bool, dead_run: Callable[..., TaskRun], world: World
    ) -> None:
        run = dead_run(point, deferrable, on_unknown_submit="resubmit")

        result = world.to_end(run, run.retry())

        assert "on_unknown_submit is 'resubmit'" in run.log_text
        world.assert_one_image(run, result)


@pytest.mark.parametrize("deferrable", [True, False])
def test_after_the_record_s_removal_the_image_tells_that_it_is_the_task_s_own(
    deferrable: bool, dead_run: Callable[..., TaskRun], world: World
) -> None:
    run = dead_run(GONE, deferrable)

    result = world.to_end(run, run.retry())

    world.assert_one_image(run, result)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("deferrable", [True, False])
def test_killed_while_the_server_has_the_request(
    when: str, deferrable: bool, generate: Generate, task_runner: TaskRunner, world: World
) -> None:
    """``before``: the request is accepted when the worker that sent it is dead already."""
    world.emulator.fault("submit", "slow", when=when, seconds=2.0 if when == "before" else CHILD_SECONDS)
    run = task_runner(generate(deferrable=deferrable, retries=3))

    with _child(run.execute, mock.MagicMock) as pid:
        # The fault strikes when the server has read the request whole.
        _await(lambda: world.emulator.stats().faults.get("submit:slow") if when == "before" else world.charged())
        os.kill(pid, signal.SIGKILL)
    _await(world.charged)
    result = world.to_end(run, run.retry())

    world.assert_one_image(run, result)
    assert world.emulator.stats().calls["submit"] == 1


def _await(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + CHILD_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_triggerer_dies_and_the_next_attempt_takes_the_job_up(
    generate: Generate, task_runner: TaskRunner, world: World
) -> None:
    """It has no part in the money: that its event never comes is all that its death means to the task."""
    run = task_runner(generate(retries=1))
    assert run.execute().state == "deferred"

    result = world.to_end(run, run.retry())

    world.assert_one_image(run, result)
    assert "is taken up: nothing is submitted" in run.log_text


def test_another_run_ends_what_a_dead_one_began(
    generate: Generate, task_runner: TaskRunner, dead_run: Callable[..., TaskRun], world: World
) -> None:
    dead_run(KNOWN["during upload"], True)
    other = task_runner(generate(), run_id="another_run")

    result = world.to_end(other, other.execute())

    world.assert_one_image(other, result, cost=0.0)


@pytest.mark.parametrize("point", [ACCEPTED["between POST and record"], KNOWN["after the record"]])
def test_a_prefix_s_request_is_found_by_its_own_task(
    point: Point, dead_run: Callable[..., TaskRun], world: World
) -> None:
    run = dead_run(point, True, s3_key="images/")

    result = world.to_end(run, run.retry())

    assert result.state == "success", result.log_text
    [charge] = world.emulator.requests()
    assert world.keys() == [f"images/{charge.request_id}.png"]
    assert run.xcom()["cost_usd"] == 0.05


@_cases({name: KNOWN[name] for name in ONLY})
def test_without_a_ledger_the_next_attempt_pays_again(
    point: Point, deferrable: bool, dead_run: Callable[..., TaskRun], world: World
) -> None:
    run = dead_run(point, deferrable, durable=False)

    result = world.to_end(run, run.retry())

    assert result.state == "success"
    assert world.charged() == 2
    assert world.keys() == [KEY]
