"""A simulated account: tasks that ask for slots, wait with tickets, are called and arrive, or disappear."""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from airflow_provider_ideogram.account.limiter import AccountLimiter
from airflow_provider_ideogram.account.turns import Ticket

START = 1_800_000_000.0
WINDOW = 60.0


@dataclass(frozen=True)
class Task:
    """A task that submits one image; ``flow`` is its DAG run."""

    flow: str
    number: int


@dataclass
class Queueing:
    """
    An event simulation of all tasks of an account.

    :param rate: The limit, submits per minute.
    :param latency: The seconds from a call to the task's arrival, at least and at most.
    :param gone: Whether a waiting task has disappeared at a time in seconds since the start.
    :param lateness: The seconds from a slot to its submit, at least and at most; a late one corrects its slot.
    :param reading: Seconds between two readings of the state for the waiting tasks.
    """

    rate: float
    latency: tuple[float, float] = (2.0, 8.0)
    gone: Callable[[Task, float], bool] = lambda task, at: False
    lateness: tuple[float, float] = (0.0, 0.0)
    reading: float = 2.0
    seed: int = 1
    limiter: AccountLimiter = field(default_factory=AccountLimiter)
    submitted: dict[Task, float] = field(default_factory=dict)
    slices: dict[Task, int] = field(default_factory=dict)
    largest_state: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._order = itertools.count()
        self._events: list[tuple[float, int, Task, Ticket | None]] = []
        self._waiting: dict[Task, Ticket] = {}
        self._late: list[tuple[float, float]] = []
        self.limiter.configure(self.rate, START)

    def add(self, flow: str, images: int, start: float = 0.0, spread: float = 30.0) -> None:
        """Let the tasks of a DAG run start within some seconds of a time."""
        for number in range(images):
            self._push(start + self._random.uniform(0.0, spread), Task(flow, number), None)

    def run(self, until: float = float("inf")) -> None:
        """Run until all tasks have submitted or disappeared, or until a time."""
        read_at = 0.0
        while (self._events or self._waiting) and read_at < until:
            while self._events and self._events[0][0] <= read_at:
                at, _, task, ticket = heapq.heappop(self._events)
                while self._late and self._late[0][0] <= at:
                    sent_at, slot = heapq.heappop(self._late)
                    self.limiter.correct([(slot, START + sent_at)])
                self._ask(task, at, ticket)
            self._read(read_at)
            read_at += self.reading

    def most_in_a_window(self) -> int:
        """Return the most submits of any minute."""
        times = sorted(self.submitted.values())
        return max(sum(1 for at in times[first:] if at < start + WINDOW) for first, start in enumerate(times))

    def mean_slices(self) -> float:
        """Return the worker slices of a submitted image, with the one that stores it."""
        return sum(self.slices[task] + 1 for task in self.submitted) / len(self.submitted)

    def submits_between(self, first: float, last: float) -> int:
        """Return the number of submits between two times."""
        return sum(1 for at in self.submitted.values() if first <= at < last)

    def _push(self, at: float, task: Task, ticket: Ticket | None) -> None:
        heapq.heappush(self._events, (at, next(self._order), task, ticket))

    def _ask(self, task: Task, at: float, ticket: Ticket | None) -> None:
        self.slices[task] = self.slices.get(task, 0) + 1
        answer = self.limiter.ask(task.flow, START + at, ticket=ticket)
        if isinstance(answer, Ticket):
            self._waiting[task] = answer
        else:
            self.submitted[task] = answer[0] - START + self._random.uniform(*self.lateness)
            if self.submitted[task] > answer[0] - START:
                heapq.heappush(self._late, (self.submitted[task], answer[0]))
        if next(self._order) % 100 == 0:  # the state survives its way through S3
            body = json.dumps(self.limiter.to_json())
            self.largest_state = max(self.largest_state, len(body))
            self.limiter = AccountLimiter.from_json(json.loads(body))

    def _read(self, at: float) -> None:
        """Call the waiting tasks as a reader does that does not write."""
        reader = AccountLimiter.from_json(json.loads(json.dumps(self.limiter.to_json())))
        reader.advance(START + at)
        for task, ticket in list(self._waiting.items()):
            if self.gone(task, at):
                del self._waiting[task]
            elif reader.turns.is_called(ticket):
                del self._waiting[task]
                self._push(at + self._random.uniform(*self.latency), task, ticket)
