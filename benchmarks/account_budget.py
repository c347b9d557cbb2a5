"""
The proof of a budget: eight processes that race for a cap of 10.00 USD, and are killed with SIGKILL meanwhile.

`python -m benchmarks.account_budget --minutes 10` runs as many seeds as end in that time, at most `--seeds`, and writes
`benchmarks/results/account-budget.md`. `tests.support.account_process` says what the processes do.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import report
from tests.support.account_process import Racer, Vendor, race, used_usd, work
from tests.support.folder_store import FolderStore

PROCESSES, CAP, KILLS = 8, 10.0, 12
#: Races at once: they wait for dead processes' holds most of the time.
AT_ONCE = 8
BUCKET = "account"


@dataclass(frozen=True)
class Forked:
    """A process that starts with the modules that this one has imported."""

    pid: int

    def wait(self) -> int:
        """Wait for its end, and return its exit code, negative after a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@dataclass(frozen=True)
class Result:
    """What a seed charged, and what its budget counts as charged or reserved, in USD."""

    charged: float
    used: float


def run_seed(seed: int) -> Result:
    """Run a race in a folder of its own."""
    with TemporaryDirectory() as folder:
        return _race_in(Path(folder), seed)


def _race_in(folder: Path, seed: int) -> Result:
    charges = folder / "charges"
    charges.touch()
    objects: Any = FolderStore(folder)

    def start(name: str, own_seed: str) -> Forked:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work(Racer(objects, BUCKET, Vendor(charges), name, CAP), own_seed)
                code = 0
            finally:
                os._exit(code)
        return Forked(pid)

    race(start, charges, seed, PROCESSES, KILLS)
    return Result(sum(Vendor(charges).costs().values()), used_usd(objects, BUCKET))


def main() -> None:
    """Run the seeds, and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=200)
    arguments = parser.parse_args()
    about, until, results = report.machine(), time.monotonic() + 60 * arguments.minutes, list[Result]()
    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("fork")) as pool:
        while len(results) < arguments.seeds and time.monotonic() < until:
            first = len(results) + 1
            results += pool.map(run_seed, range(first, min(first + AT_ONCE, arguments.seeds + 1)))
            print(f"{len(results)} seeds, the last one: {results[-1]}", flush=True)
    charged, used = [result.charged for result in results], [result.used for result in results]
    page = report.table(
        ("", "least", "median", "most"),
        [
            [name, *(f"{value:.2f} USD" for value in (min(values), statistics.median(values), max(values)))]
            for name, values in (("charged by the vendor", charged), ("charged or reserved in the budget", used))
        ],
    )
    above = sum(result.charged > CAP + 1e-9 or result.used > CAP + 1e-9 for result in results)
    unused = sum(result.used < 0.98 * CAP for result in results)
    text = (
        f"{about} {len(results)} seeds; in each {PROCESSES} processes race for a cap of {CAP:.2f} USD at 0.05 USD an "
        f"image, and {KILLS} are killed with SIGKILL at random moments and replaced. A tenth of the submits is "
        "refused, a tenth of the requests fails, 3 % have no response, and a new process reattaches to the requests of "
        "the killed one. An amount of which it is unknown whether it was charged stays reserved. The store is a folder "
        "with atomic conditional writes.\n"
    )
    summary = (
        f"Seeds in which more than the cap was charged or reserved: {above}. Seeds in which less than 98 % of it could "
        f"be used: {unused}.\n"
    )
    report.write("account-budget", "The budget of an account under kill -9", text, page, summary)
    print(page, summary)


if __name__ == "__main__":
    main()
