"""
Three designs of waiting for an account's rate limit, simulated on the same workloads.

`python -m benchmarks.account_queues` writes `benchmarks/results/account-queues.md`. Times are simulated: a task
arrives 2 to 8 s after it is resumed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from airflow_provider_ideogram.account.turns import Ticket
from airflow_provider_ideogram.api.back_off import submit_delay
from airflow_provider_ideogram.api.rate_limiter import RateLimiter
from benchmarks import report
from dev.run_info import run_info
from tests.support.queueing import START, Queueing, Task

RATE = 50
PACE_SECONDS = 4.0


@dataclass
class ReturnAtShare(Queueing):
    """
    A slot is taken at most a few seconds ahead; a task without one returns at a time that follows from its run's share.

    :param back_at: When the last waiting task of each run returns.
    """

    limit: RateLimiter = field(default_factory=partial(RateLimiter.of_limit, RATE, START))
    back_at: dict[str, float] = field(default_factory=dict)

    def _ask(self, task: Task, at: float, ticket: Ticket | None) -> None:
        self.slices[task] = self.slices.get(task, 0) + 1
        if self.gone(task, at):
            return
        slot = self.limit.times(1, START + at)[0] - START
        is_first = ticket is None and self.back_at.get(task.flow, 0.0) > at
        if slot <= at + PACE_SECONDS and not is_first:
            self.limit.on_sent([START + slot])
            self.submitted[task] = slot
            return
        runs = {flow for flow, back_at in self.back_at.items() if back_at > at} | {task.flow}
        self.back_at[task.flow] = max(self.back_at.get(task.flow, 0.0), slot - PACE_SECONDS, at) + len(runs) * 60 / RATE
        self._push(self.back_at[task.flow] + self._random.uniform(*self.latency), task, Ticket(task.flow, 0, 0))

    def _read(self, at: float) -> None:
        """Nothing is read: a waiting task has its time."""


@dataclass
class OnlyRetries(Queueing):
    """Each task submits, and again when the 429 says so; after an hour it fails."""

    accepted: list[float] = field(default_factory=list)
    since: dict[Task, float] = field(default_factory=dict)
    never_submitted: int = 0

    def _ask(self, task: Task, at: float, ticket: Ticket | None) -> None:  # noqa: ARG002
        self.slices[task] = self.slices.get(task, 0) + 1
        if self.gone(task, at):
            return
        self.accepted = [one for one in self.accepted if one > at - 60]
        if len(self.accepted) < RATE:
            self.accepted.append(at)
            self.submitted[task] = at
            return
        delay = submit_delay(self.accepted[0] + 60 - at, self._random)
        if at + delay > self.since.setdefault(task, at) + 3600:
            self.never_submitted += 1
        else:
            self._push(at + delay + self._random.uniform(*self.latency), task, None)

    def _read(self, at: float) -> None:
        """Nothing is read: a waiting task has its time."""


DESIGNS: dict[str, Callable[..., Queueing]] = {
    "each task retries after a 429": OnlyRetries,
    "each task has a fixed time to return": ReturnAtShare,
    "tickets (the package's design)": Queueing,
}


def _backlog(queueing: Queueing) -> None:
    queueing.add("run", 1000)


def _two_runs(queueing: Queueing) -> None:
    queueing.add("run", 1000)
    queueing.add("second", 500, start=60)


def _single(queueing: Queueing) -> None:
    queueing.add("run", 3000)
    queueing.add("single", 1, start=600)


def _killed(task: Task, at: float) -> bool:
    return at > 180 and task.flow == "second"


def _half_gone(task: Task, at: float) -> bool:
    return at > 180 and task.number % 2 == 1


def _never(task: Task, at: float) -> bool:  # noqa: ARG001
    return False


CASES: dict[str, tuple[Callable[[Queueing], None], Callable[[Task, float], bool]]] = {
    "1,000 images of one run": (_backlog, _never),
    "1,000 images, and 500 of another run a minute later": (_two_runs, _never),
    "the same; the second run is ended after 3 minutes": (_two_runs, _killed),
    "1,000 images, of which half are ended after 3 minutes": (_backlog, _half_gone),
    "3,000 images, and a single one of another run after 10 minutes": (_single, _never),
}


def measure(seed: int) -> list[list[str]]:
    """Return the rows of the table."""
    rows = []
    for case, (fill, gone) in CASES.items():
        for name, design in DESIGNS.items():
            queueing = design(RATE, seed=seed, gone=gone)
            fill(queueing)
            queueing.run(until=4 * 3600)
            ended = max(queueing.submitted.values())
            single = queueing.submitted.get(Task("single", 0))
            submits = sum(queueing.slices.values()) if isinstance(queueing, OnlyRetries) else len(queueing.submitted)
            rows.append(
                [
                    f"{case}: {name}",
                    str(len(queueing.submitted)),
                    f"{queueing.mean_slices():.2f}",
                    f"{submits / len(queueing.submitted):.2f}",
                    f"{100 * len(queueing.submitted) / (RATE * ended / 60):.0f} %",
                    "" if single is None else f"{single - 600:.0f} s",
                    str(getattr(queueing, "never_submitted", 0)),
                ]
            )
    return rows


def main() -> None:
    """Simulate, and print and write the table."""
    seed = 1
    head = (
        "",
        "images",
        "slices per image",
        "submits per image",
        "limit used",
        "wait of the single image",
        "never submitted",
    )
    about = (
        f"{run_info()}. {RATE} submits a minute, in simulated time. A slice is a stay on a worker; each image has one "
        "more, which stores it. The limit used is counted until the last submit. With a fixed time to return, the "
        "slots of tasks that disappear are not used; with tickets, tasks that still wait are resumed to take them. "
        f"Seed {seed}.\n"
    )
    rows = measure(seed)
    report.write("account-queues", "Waiting for an account's rate limit, simulated", about, report.table(head, rows))
    print(report.table(head, rows))


if __name__ == "__main__":
    main()
