"""
The contention of an account's state: 64 processes that take slots of one rate limit from a local S3 server.

`python -m benchmarks.account_contention` writes `benchmarks/results/account-contention.md`. Each S3 call takes 30 ms
longer. The 64 are threads of four processes, which share nothing but the S3 server.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import report

LIMITS = (50, 250, 1000)
PROCESSES, THREADS = 4, 16
SECONDS = 120.0
LATENCY = 0.030
BUCKET = "account"
#: The programs that `make s3-stores` and `make bench-account` install.
BINARIES = Path(__file__).parents[1] / ".s3-stores" / "bin"


@dataclass(frozen=True)
class Reserved:
    """
    A slot that was taken.

    :param at: The time of the slot.
    :param calls: The calls of S3 that it took.
    :param seconds: How long it took until it was known.
    """

    at: float
    calls: int
    seconds: float


class _Counted:
    """An S3 client with a latency, which counts its calls."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in ("get_object", "put_object"):
            return method

        def call(**arguments: Any) -> Any:
            self.calls += 1
            time.sleep(LATENCY)
            return method(**arguments)

        return call


def _take_slots(s3: Any, limit: int, until: float, name: str, taken: list[Reserved]) -> None:
    """Take slots one after another, each in its time; wait as a task does that has no turn."""
    from airflow_provider_ideogram.account.account import Account, SubmittingTask
    from airflow_provider_ideogram.account.store import AccountContended
    from airflow_provider_ideogram.hooks.connection import ConnectionSettings
    from airflow_provider_ideogram.storage.objects import ObjectStore

    client = _Counted(s3)
    settings = ConnectionSettings("a-key-of-tests", requests_per_minute=limit)
    turn = None
    while time.time() < until:
        account = Account(
            ObjectStore(client), f"s3://{BUCKET}/{limit}/", "conn", settings, SubmittingTask("dag", name, "task")
        )
        before, started = client.calls, time.perf_counter()
        try:
            slots, turn = account.take_slots(1, turn)
        except AccountContended:  # a task would be deferred
            continue
        if turn is not None:
            _await_call(turn, s3, until)
            continue
        taken.append(Reserved(slots[0].at, client.calls - before, time.perf_counter() - started))
        time.sleep(max(0.0, slots[0].at - time.time()))


def _await_call(turn: Any, s3: Any, until: float) -> None:
    """Wait until the ticket is called, by one read a second."""
    from airflow_provider_ideogram.account.limiter import AccountLimiter
    from airflow_provider_ideogram.account.store import AccountStore
    from airflow_provider_ideogram.storage.objects import ObjectStore

    store = AccountStore(ObjectStore(s3), turn.bucket)
    while time.time() < until:
        limiter = store.read(turn.key, AccountLimiter.from_json) or AccountLimiter()
        limiter.advance(time.time())
        if limiter.turns.is_called(turn.ticket):
            return
        time.sleep(1.0)


def _process(endpoint: str, limit: int, until: float, number: int, results: Any) -> None:
    from dev.s3_server import S3Server

    s3, taken = S3Server(endpoint).client(), list[Reserved]()
    threads = [
        threading.Thread(target=_take_slots, args=(s3, limit, until, f"{number}-{thread}", taken))
        for thread in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(taken)


@contextmanager
def _server() -> Iterator[str]:
    from dev.processes import Processes
    from dev.s3_stores import Servers

    with TemporaryDirectory() as logs, TemporaryDirectory() as data, Processes(Path(logs)) as processes:
        server = Servers(processes, BINARIES, Path(data)).seaweedfs()
        server.client().create_bucket(Bucket=BUCKET)
        yield server.endpoint


def measure(endpoint: str, limit: int) -> list[str]:
    """Return the row of a limit."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    start = time.time() + 5.0
    until = start + SECONDS
    workers = [context.Process(target=_process, args=(endpoint, limit, until, n, results)) for n in range(PROCESSES)]
    for worker in workers:
        worker.start()
    taken = [slot for _ in workers for slot in results.get()]
    for worker in workers:
        worker.join()
    times = sorted(slot.at for slot in taken)
    steady = [at for at in times if until - 60 <= at < until]
    most = max(sum(1 for at in times[first:] if at < begin + 60) for first, begin in enumerate(times))
    calls = sorted(slot.calls for slot in taken)
    return [
        f"{limit:,}",
        str(len(taken)),
        f"{100 * len(steady) / limit:.0f} %",
        str(most),
        f"{statistics.median(calls):g}",
        str(calls[int(0.95 * len(calls))]),
        f"{statistics.median(slot.seconds for slot in taken):.2f}",
    ]


def main() -> None:
    """Measure, and print and write the table."""
    limits = [int(limit) for limit in sys.argv[1:]] or list(LIMITS)
    with _server() as endpoint:
        rows = [measure(endpoint, limit) for limit in limits]
    head = (
        "limit a minute",
        "slots taken",
        "limit used in the last minute",
        "most in a minute",
        "S3 calls a slot, median",
        "95 %",
        "seconds, median",
    )
    about = (
        f"{report.machine()} {PROCESSES * THREADS} takers in {PROCESSES} processes for {SECONDS:.0f} s, a local S3 "
        f"server (SeaweedFS) with {1000 * LATENCY:.0f} ms added to each call. A limit above 100 is divided among "
        "several objects. A taker that waits for its turn reads the state once a second; these reads are not counted.\n"
    )
    report.write("account-contention", "Contention of an account's rate limit", about, report.table(head, rows))
    print(report.table(head, rows))


if __name__ == "__main__":
    main()
