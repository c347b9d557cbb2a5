"""Attempts after a worker died, or after the workspace was changed."""

from __future__ import annotations

import itertools
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import botocore.httpsession
import httpx
import pytest

from airflow_provider_ideogram.datasets.workspace import Workspace
from tests.integration.datasets.world import PREFIX, ROWS

if TYPE_CHECKING:
    from tests.integration.datasets.world import Make, World
    from tests.support.task_runner import Slice, TaskRunner


def test_state_that_is_missing_or_broken_is_an_error(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(max_in_flight=2))
    run.execute()
    event = run.fire()
    [state] = [key for key in world.keys("_ideogram/") if key.endswith("state.json")]
    kept = world.s3.get_object(Bucket=world.bucket, Key=state)["Body"].read()
    world.s3.delete_object(Bucket=world.bucket, Key=state)
    assert "was deleted while the task waited" in str(run.resume(event).error)

    for broken in (b"not json", b"[]", b'{"version": 99}', kept.replace(b'"todo_chunks"', b'"chunks"')):
        world.s3.put_object(Bucket=world.bucket, Key=state, Body=broken)
        assert "can't be parsed" in str(run.retry().error)
    world.s3.delete_object(Bucket=world.bucket, Key=state)

    world.assert_stats_agree(run, world.run_to_end(run, run.clear()))
    assert world.accepted() == 5


def test_deleted_part_is_written_again_by_a_retry(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(max_in_flight=2))
    result = run.resume((run.execute(), run.fire())[1])
    [part] = [key for key in world.keys("_ideogram/") if "/part-" in key]
    world.s3.delete_object(Bucket=world.bucket, Key=part)
    result = world.run_to_end(run, result)
    assert "has no line of row" in str(result.error)

    world.assert_stats_agree(run, world.run_to_end(run, run.retry()))
    assert world.accepted() == 5


@contextmanager
def _killed_at(number: int, when: str) -> Iterator[None]:
    """Kill this process at its n-th call of S3 or the API, before it is sent or after its response."""
    calls = itertools.count()

    def counted(send: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            is_nth = next(calls) == number
            if is_nth and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            response = send(*args)
            if is_nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return response

        return call

    with (
        mock.patch.object(
            botocore.httpsession.URLLib3Session, "send", counted(botocore.httpsession.URLLib3Session.send)
        ),
        mock.patch.object(httpx.HTTPTransport, "handle_request", counted(httpx.HTTPTransport.handle_request)),
    ):
        yield


def _kill(run_slice: Callable[[], Slice], number: int, when: str) -> bool:
    """Run a slice in a child process that is killed at its n-th call; return whether the slice made so many calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside the servers' threads, from 3.12 on
        pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            with _killed_at(number, when):
                run_slice()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert not os.WIFSIGNALED(status) or os.WTERMSIG(status) == signal.SIGKILL
    return os.WIFSIGNALED(status)


KILLED = [
    ("first", 0), ("first", 7), ("first", 14), ("first", 21), ("first", 28), ("first", 35), ("first", 42),
    ("second", 1), ("second", 4), ("second", 8), ("second", 12), ("second", 16), ("second", 20), ("second", 26),
    ("last", 0), ("last", 3), ("last", 6), ("last", 9), ("last", 11), ("last", 13), ("last", 15), ("last", 99),
]  # fmt: skip


@pytest.mark.parametrize(
    ("slice_", "number", "when"), [(*point, ("before", "after")[turn % 2]) for turn, point in enumerate(KILLED)]
)
def test_killed_worker_pays_nothing_twice_and_loses_nothing(
    slice_: str, number: int, when: str, make: Make, task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(make(max_in_flight=3, on_unknown_submit="resubmit"))
    act: Callable[[], Slice] = run.execute
    for _ in range({"first": 0, "second": 1, "last": 2}[slice_]):
        assert act().state == "deferred"
        act = partial(run.resume, run.fire())

    _kill(act, number, when)
    world.advance(1)
    result = world.run_to_end(run, run.retry())

    world.assert_stats_agree(run, result)
    assert world.accepted() == len(ROWS)


def test_workers_killed_one_after_another_pay_nothing_twice(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(max_in_flight=3, on_unknown_submit="resubmit", retries=9))
    act: Callable[[], Slice] = run.execute
    kills = 0
    for number in (33, 12, 20, 9, 5):
        kills += _kill(act, number, "after")
        world.advance(2)
        result = run.retry()
        if result.state != "deferred":
            break
        act = partial(run.resume, run.fire())

    world.assert_stats_agree(run, world.run_to_end(run, run.retry()))
    assert kills > 0
    assert world.accepted() == len(ROWS)


def test_image_stored_by_a_slice_that_died_is_kept_for_hours(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(max_in_flight=5))
    run.execute()
    event = run.fire()
    with mock.patch.object(Workspace, "write", side_effect=SystemExit):  # the state of the slice is not written
        run.resume(event)
    assert len(world.keys(PREFIX)) == 5
    world.advance(7200)

    xcom = world.assert_stats_agree(run, world.run_to_end(run, run.retry()))

    assert (world.accepted(), xcom["generated"], xcom["cost_usd"]) == (5, 5, 0.25)
