"""
What it costs to wait for many jobs in one process.

Each case runs in a process of its own, as a triggerer would: one event loop, one task for each job, each job asked
about at the same interval, all against the same server. `python -m benchmarks.polls CASE JOBS INTERVAL URL SEED` prints
what was measured as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from benchmarks.status_server import status_server

#: Jobs and the seconds between two polls of each.
LOADS = {100: 1.0, 1_000: 4.0, 5_000: 10.0, 10_000: 20.0}
#: Polls a second that other loads are asked for.
_POLLS_PER_SECOND = 500
#: Loads above this are only for those that bear it.
EVERYBODYS_LOAD = 1_000
OURS, FLOOR, NOTHING = "this provider's trigger", "aiohttp alone, one session", "a trigger that only sleeps"
QUEUE = "this provider's trigger, queue of polls"
#: Seconds that are measured at least.
_MEASURED_SECONDS = 8.0
#: Seconds between two looks at how late the loop is.
_TICK = 0.05
#: What a client that does not keep up is given before it is ended.
_PATIENCE = 20.0

if TYPE_CHECKING:
    import httpx

Wait = Callable[[], Awaitable[None]]
MakeWait = Callable[[str, float, AsyncExitStack], Wait]


def ours(url: str, interval: float, _stack: AsyncExitStack) -> Wait:
    from airflow_provider_ideogram.triggers import IdeogramTrigger

    os.environ["AIRFLOW_CONN_IDEOGRAM_DEFAULT"] = json.dumps(
        {"conn_type": "ideogram", "password": "SG_benchmark", "host": url}
    )

    async def wait() -> None:
        now = time.time()
        trigger = IdeogramTrigger(requests={"r-1": now - interval}, deadline=now + 3600, poll_interval=interval)
        await _first_event(trigger)

    return wait


def queue(url: str, interval: float, stack: AsyncExitStack) -> Wait:
    """Wait as `ours` does, with a queue of polls in place of the package's coroutine per job."""
    from airflow_provider_ideogram.hooks import shared_client
    from benchmarks.poll_queue import PollQueue

    shared_client.Poller = PollQueue  # type: ignore[attr-defined]
    return ours(url, interval, stack)


def sleeping(_url: str, interval: float, _stack: AsyncExitStack) -> Wait:
    from airflow.triggers.base import BaseTrigger

    class SleepingTrigger(BaseTrigger):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]

        def serialize(self) -> tuple[str, dict[str, Any]]:
            return "", {}

        async def run(self) -> Any:
            while True:  # noqa: ASYNC110 - there is nothing to wait for
                await asyncio.sleep(interval)
            yield

    async def wait() -> None:
        await _first_event(SleepingTrigger())

    return wait


def aiohttp_alone(url: str, interval: float, stack: AsyncExitStack) -> Wait:
    import aiohttp

    session = aiohttp.ClientSession()
    stack.push_async_callback(session.close)

    async def wait() -> None:
        while True:
            await asyncio.sleep(interval)
            async with session.get(f"{url}/v2/requests/r-1/status", headers={"x-api-key": "k"}) as response:
                json.loads(await response.read())

    return wait


def httpx_shared(url: str, interval: float, stack: AsyncExitStack) -> Wait:
    import httpx

    return _ask_by(httpx.AsyncClient(timeout=30), url, interval, stack)


def httpx_over_aiohttp(url: str, interval: float, stack: AsyncExitStack) -> Wait:
    from httpx_aiohttp import HttpxAiohttpClient

    return _ask_by(HttpxAiohttpClient(timeout=30), url, interval, stack)


def _ask_by(client: httpx.AsyncClient, url: str, interval: float, stack: AsyncExitStack) -> Wait:
    import httpx

    stack.push_async_callback(client.aclose)

    async def wait() -> None:
        while True:
            await asyncio.sleep(interval)
            with suppress(httpx.HTTPError):
                (await client.get(f"{url}/v2/requests/r-1/status", headers={"x-api-key": "k"})).json()

    return wait


def httpx_each(url: str, interval: float, _stack: AsyncExitStack) -> Wait:
    import httpx

    async def wait() -> None:
        while True:
            await asyncio.sleep(interval)
            with suppress(httpx.HTTPError):
                async with httpx.AsyncClient(timeout=30) as client:
                    (await client.get(f"{url}/v2/requests/r-1/status", headers={"x-api-key": "k"})).json()

    return wait


def http_provider(url: str, interval: float, _stack: AsyncExitStack) -> Wait:
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    os.environ["AIRFLOW_CONN_HTTP_DEFAULT"] = json.dumps({"conn_type": "http", "host": url})

    async def wait() -> None:
        await _first_event(HttpSensorTrigger(endpoint="not-yet/r-1", poke_interval=interval))

    return wait


def openai_provider(url: str, interval: float, _stack: AsyncExitStack) -> Wait:
    from airflow.providers.openai.triggers.openai import OpenAIBatchTrigger

    os.environ["AIRFLOW_CONN_OPENAI_DEFAULT"] = json.dumps(
        {"conn_type": "openai", "password": "k", "host": f"{url}/v1"}
    )

    async def wait() -> None:
        await _first_event(OpenAIBatchTrigger("openai_default", "b-1", interval, timeout=3600))

    return wait


CASES: dict[str, MakeWait] = {
    OURS: ours,
    QUEUE: queue,
    FLOOR: aiohttp_alone,
    NOTHING: sleeping,
    "httpx, one client": httpx_shared,
    "httpx over aiohttp's pool": httpx_over_aiohttp,
    "httpx, a client per poll": httpx_each,
    "http provider's HttpSensorTrigger": http_provider,
    "openai provider's OpenAIBatchTrigger": openai_provider,
}


def interval_of(jobs: int) -> float:
    """Return the seconds between two polls of each job."""
    return LOADS.get(jobs, jobs / _POLLS_PER_SECOND)


async def _first_event(trigger: Any) -> None:
    async for _ in trigger.run():
        return


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def _polls(url: str) -> int:
    def ask() -> int:
        with urllib.request.urlopen(f"{url}/count", timeout=_PATIENCE) as answer:
            return int(json.load(answer)["polls"])

    return await asyncio.to_thread(ask)


async def _watch_loop(late: list[float], late_by_own_work: list[float]) -> None:
    """Note how late the loop is: as it is, and as far as this process's work explains it, not its neighbours'."""
    while True:
        due, cpu = time.perf_counter() + _TICK, time.process_time()
        await asyncio.sleep(_TICK)
        late.append(time.perf_counter() - due)
        late_by_own_work.append(min(late[-1], time.process_time() - cpu))


async def run_case(case: str, jobs: int, interval: float, url: str, seed: int) -> dict[str, float]:
    """Wait for jobs that never end, and return what it costs once all are under way."""
    rng = random.Random(seed)
    async with AsyncExitStack() as stack:
        wait = CASES[case](url, interval, stack)

        async def later(seconds: float) -> None:
            await asyncio.sleep(seconds)
            await wait()

        warm_up = asyncio.create_task(later(0.0))  # what is loaded or looked up once does not count as memory of a job
        await asyncio.sleep(min(interval, 1.0) + 1.0)
        gc.collect()
        late: list[float] = []
        late_by_own_work: list[float] = []
        watch = asyncio.create_task(_watch_loop(late, late_by_own_work))
        before = _resident_bytes()
        tasks = []
        for _ in range(jobs):
            tasks.append(asyncio.create_task(later(rng.uniform(0.0, interval))))
            await asyncio.sleep(0)  # as the triggerer does
        await asyncio.sleep(1.2 * interval + 2.0)  # until each was asked about once
        memory = _resident_bytes() - before
        first, cpu, started = await _polls(url), time.process_time(), time.monotonic()
        await asyncio.sleep(max(interval, _MEASURED_SECONDS))
        cpu, seconds = time.process_time() - cpu, time.monotonic() - started
        polls = await _polls(url) - first
        if not polls and case != NOTHING:
            raise RuntimeError(f"{case} sent no poll")
        running = [warm_up, watch, *tasks]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    percentiles = quantiles(late, n=100)
    return {
        "polls_per_second": polls / seconds,
        "wanted_per_second": (jobs + 1) / interval,
        "cpu_ms_per_poll": 1000 * cpu / polls if polls else 0.0,
        "cpu_share": cpu / seconds,
        "late_p50_ms": 1000 * percentiles[49],
        "late_p99_ms": 1000 * percentiles[98],
        "late_max_ms": 1000 * max(late),
        "late_by_own_work_max_ms": 1000 * max(late_by_own_work),
        "kb_per_job": memory / jobs / 1000,
    }


def measure(loads: dict[int, float], seed: int) -> dict[int, dict[str, dict[str, float] | None]]:
    """Run all cases at all loads, each in a process of its own; None stands for one that did not come to its end."""
    results: dict[int, dict[str, dict[str, float] | None]] = {}
    with status_server() as url:
        for jobs, interval in loads.items():
            cases = list(CASES) if jobs <= EVERYBODYS_LOAD else [OURS, QUEUE, FLOOR, NOTHING]
            runs: dict[str, list[dict[str, float] | None]] = {case: [] for case in cases}
            for case in [*cases, OURS, QUEUE, FLOOR]:  # those whose ratio is asked for run twice, in turn
                runs[case].append(_measure_case(case, jobs, interval, url, seed))
                print(f"polls: {jobs} jobs, {case}: {runs[case][-1]}", flush=True)
            results[jobs] = {case: _less_disturbed(measured) for case, measured in runs.items()}
    return results


def _less_disturbed(runs: list[dict[str, float] | None]) -> dict[str, float] | None:
    """Return the run that the machine's other processes made least expensive."""
    return min((run for run in runs if run), key=lambda run: run["cpu_ms_per_poll"], default=None)


def _measure_case(case: str, jobs: int, interval: float, url: str, seed: int) -> dict[str, float] | None:
    command = [sys.executable, "-m", "benchmarks.polls", case, str(jobs), str(interval), url, str(seed)]
    patience = 2.2 * interval + _MEASURED_SECONDS + _PATIENCE
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                timeout=patience,
                check=True,
            )
        except subprocess.TimeoutExpired:
            return None
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main() -> None:
    case, jobs, interval, url, seed = sys.argv[1:]
    logging.disable(logging.WARNING)
    print(json.dumps(asyncio.run(run_case(case, int(jobs), float(interval), url, int(seed)))))


if __name__ == "__main__":
    main()
