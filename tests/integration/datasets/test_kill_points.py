"""Workers that are killed at any request: nothing is paid twice, and no image is lost."""

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

from airflow_provider_ideogram.datasets import runner
from tests.integration.datasets.results import PREFIX, ROWS, Make, assert_results_agree

if TYPE_CHECKING:
    from tests.support.task_runner import Slice, TaskRunner
    from tests.support.world import World


@contextmanager
def _dying_at(number: int, when: str) -> Iterator[None]:
    """Let this process kill itself at its n-th request to S3 or the API, before it is sent or after its response."""
    requests = itertools.count()

    def counted(send: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            mine = next(requests) == number
            if mine and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            answer = send(*args)
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return call

    with (
        mock.patch.object(
            botocore.httpsession.URLLib3Session, "send", counted(botocore.httpsession.URLLib3Session.send)
        ),
        mock.patch.object(httpx.HTTPTransport, "handle_request", counted(httpx.HTTPTransport.handle_request)),
    ):
        yield


def kill(run_slice: Callable[[], Slice], number: int, when: str) -> bool:
    """Run a slice in a child that dies at its n-th request, or when it is done; return whether it died before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside the servers' threads, from 3.12 on
        pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            with _dying_at(number, when):
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
def test_worker_that_is_killed_costs_nothing_and_loses_nothing(
    slice_: str, number: int, when: str, make: Make, task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(make(max_in_flight=3, on_unknown_submit="resubmit"))
    act: Callable[[], Slice] = run.execute
    for _ in range({"first": 0, "second": 1, "last": 2}[slice_]):
        assert act().state == "deferred"
        act = partial(run.resume, run.fire())

    kill(act, number, when)
    world.pass_time(1)
    result = world.to_end(run, run.retry())

    assert_results_agree(world, run, result)
    assert world.accepted == len(ROWS)


def test_workers_that_are_killed_one_after_the_other(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(max_in_flight=3, on_unknown_submit="resubmit", retries=9))
    act: Callable[[], Slice] = run.execute
    died = 0
    for number in (33, 12, 20, 9, 5):
        died += kill(act, number, "after")
        world.pass_time(2)
        result = run.retry()
        if result.state != "deferred":
            break
        act = partial(run.resume, run.fire())

    assert_results_agree(world, run, world.to_end(run, run.retry()))
    assert died > 0
    assert world.accepted == len(ROWS)


def test_worker_that_died_after_storing_and_was_away_for_hours(
    make: Make, task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(make(max_in_flight=5))
    run.execute()
    event = run.fire()
    with mock.patch.object(runner, "copy_images", side_effect=SystemExit):  # the state of the slice is not written
        run.resume(event)
    assert len(world.object_keys(PREFIX)) == 5
    world.pass_time(7200)

    xcom = assert_results_agree(world, run, world.to_end(run, run.retry()))

    assert (world.accepted, xcom["generated"], xcom["cost_usd"]) == (5, 5, 0.25)
