"""
Processes that race for a budget, and are killed meanwhile.

Each does what a task does: it reserves, writes a record, submits, settles and deletes the record; some requests are
refused, some fail, some have no response. A process that replaces a killed one reattaches to the records that it finds.
Each charge of the simulated vendor is a line in a file, written before the settlement.

`python -m tests.support.account_process ENDPOINT BUCKET CHARGES PROCESS SEED CAP` is one process. It ends when the
budget refuses twice, with the time between that a dead process's hold takes to be released.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from unittest import mock

from airflow_provider_ideogram.account import admission, budget
from airflow_provider_ideogram.account.account import Account, SubmittingTask
from airflow_provider_ideogram.account.admission import AccountAdmission
from airflow_provider_ideogram.account.budget import DayBudget
from airflow_provider_ideogram.account.reservations import Settlement, settle
from airflow_provider_ideogram.account.store import AccountContended, AccountStore
from airflow_provider_ideogram.exceptions import IdeogramBudgetReached, IdeogramRateLimited
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from airflow_provider_ideogram.storage.objects import ObjectStore
from dev.s3_server import S3Server

#: Seconds in place of a minute, and of half a minute, in the same relation.
HOLD_SECONDS, FRESH_SECONDS = 4.0, 2.0
MODEL = "ideogram-2a-txt-2-img"
PRICE = 0.05


class Process(Protocol):
    """A process of a race."""

    @property
    def pid(self) -> int:
        """The id of the process."""

    def wait(self) -> int:
        """Wait for its end, and return its exit code, negative after a signal."""


@dataclass(frozen=True)
class Vendor:
    """
    The charges of the simulated vendor.

    :param charges: The file with a line for each accepted request: its cost and its reservation.
    """

    charges: Path

    def accept(self, reservation: str, cost: float) -> None:
        """Accept a request; the write is short, so that lines of several processes stay whole."""
        with self.charges.open("a") as file:
            file.write(f"{cost} {reservation}\n")

    def costs(self) -> dict[str, float]:
        """Return the cost of each accepted request by its reservation."""
        lines = (line.split() for line in self.charges.read_text().splitlines())
        return {reservation: float(cost) for cost, reservation in lines}


@dataclass(frozen=True)
class Racer:
    """
    One process of a race.

    :param objects: The S3 layer.
    :param bucket: The bucket.
    :param vendor: The vendor.
    :param name: The task that the process, or the killed one before it, works for.
    :param cap: The budget of the day in USD.
    """

    objects: ObjectStore
    bucket: str
    vendor: Vendor
    name: str
    cap: float

    def work(self, rng: random.Random) -> None:
        """Work until the budget is used up."""
        self._reattach()
        refused = 0
        while refused < 2:
            try:
                self._attempt(rng)
                refused = 0
            except IdeogramBudgetReached:
                refused += 1
                time.sleep(HOLD_SECONDS)
            except (IdeogramRateLimited, AccountContended):
                continue  # it was held up: nothing was submitted

    def _reattach(self) -> None:
        """Settle the requests of a killed process; a record without a request stays an unknown submit."""
        costs = self.vendor.costs()
        for item in list(self.objects.list(self.bucket, f"_ideogram/{self.name}-")):
            if stored := self.objects.get(self.bucket, item.key):
                reservation = json.loads(stored.body)["reservation"]
                if reservation in costs:
                    self._end(item.key, reservation, costs[reservation])

    def _attempt(self, rng: random.Random) -> None:
        settings = ConnectionSettings("a-key-of-tests", max_cost_usd_per_day=self.cap)
        account = Account(
            self.objects, f"s3://{self.bucket}/", "conn", settings, SubmittingTask("dag", "run", self.name)
        )
        admitted, record = AccountAdmission(account), f"_ideogram/{self.name}-{uuid.uuid4().hex}.json"
        reservation = admitted.admit(MODEL, f"s3://{self.bucket}/{record}")
        self.objects.put(self.bucket, record, json.dumps({"reservation": reservation}).encode(), if_missing=True)
        try:
            admitted.check()
            is_refused = rng.random() < 0.1
        except IdeogramRateLimited:
            is_refused = True
        if is_refused:
            self.objects.delete(self.bucket, record)
            admitted.cancel(reservation)
            return
        cost = 0.0 if rng.random() < 0.1 else PRICE
        self.vendor.accept(reservation, cost)
        if rng.random() >= 0.03:  # else the response is lost, and nothing finds the request
            self._end(record, reservation, cost)

    def _end(self, record: str, reservation: str, cost: float) -> None:
        if settle(self.objects, [Settlement(reservation, cost, failed=not cost)]):
            self.objects.delete(self.bucket, record)


def work(racer: Racer, seed: str) -> None:
    """Be one process of a race, with short times."""
    with (
        mock.patch.object(budget, "HOLD_SECONDS", HOLD_SECONDS),
        mock.patch.object(admission, "FRESH_SECONDS", FRESH_SECONDS),
    ):
        racer.work(random.Random(seed))


def race(start: Callable[[str, str], Process], charges: Path, seed: int, processes: int, kills: int) -> None:
    """
    Start processes, kill some of them, each after a few more charges, and replace them; wait for the end.

    :param start: Starts a process of a name and a seed.
    :raises RuntimeError: If a process that was not killed ends with an error.
    """
    rng = random.Random(seed)
    running = [start(f"p{number}", f"{seed}/{number}") for number in range(processes)]
    for kill in range(kills):
        wanted = len(charges.read_text().splitlines()) + rng.randrange(1, 12)
        give_up_at = time.monotonic() + 30
        while len(charges.read_text().splitlines()) < wanted and time.monotonic() < give_up_at:
            time.sleep(0.02)
        victim = rng.randrange(processes)
        with suppress(ProcessLookupError):
            os.kill(running[victim].pid, signal.SIGKILL)
        running[victim].wait()
        running[victim] = start(f"p{victim}", f"{seed}/{victim}/{kill}")
    codes = [process.wait() for process in running]
    if any(codes):
        raise RuntimeError(f"the processes of seed {seed} ended with {codes}")


def used_usd(objects: ObjectStore, bucket: str) -> float:
    """Return what the objects of all days count as charged or reserved."""
    store = AccountStore(objects, bucket)
    days = [store.read(item.key, DayBudget.from_json) for item in objects.list(bucket, "_account/conn/20")]
    return sum(day.used_micros for day in days if day) / 1_000_000


def main() -> None:
    """Work as the arguments say."""
    endpoint, bucket, charges, process, seed, cap = sys.argv[1:]
    objects = ObjectStore(S3Server(endpoint).client())
    work(Racer(objects, bucket, Vendor(Path(charges)), process, float(cap)), seed)


if __name__ == "__main__":
    main()
