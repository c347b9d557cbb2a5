"""
A virtual clock, and routines that run on it one at a time.

Invariant: routines change over only in :meth:`Kernel.sleep` and :meth:`Kernel.wait`, and which one runs next depends on
the seed alone. A routine of a killed process raises :class:`Killed` wherever it would run on, so that its ``finally``
blocks can't reach the world either.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from greenlet import getcurrent, greenlet

#: When each simulation begins, in seconds since the epoch.
EPOCH = 1_800_000_000.0
#: Lines of a trace after which a simulation counts as endless; a hundred are usual.
MAX_STEPS = 20_000


class Killed(BaseException):
    """The process of the routine was killed."""


@dataclass(eq=False, slots=True)
class Process:
    """
    A process of Airflow.

    :param name: Its name in the trace.
    :param task: The task instance that it runs, None for a process of Airflow itself.
    :param is_orphan: Whether Airflow has failed its task, and ignores its result.
    :param is_alive: Whether it was not killed.
    """

    name: str
    task: Any = None
    is_orphan: bool = False
    is_alive: bool = True
    #: Airflow's context of the task.
    context: Any = None

    def check(self) -> None:
        """Raise Killed if the process was killed."""
        if not self.is_alive:
            raise Killed


class Routine(greenlet):
    """
    A thread of a process.

    :param process: The process.
    :param work: What it does.
    """

    def __init__(self, process: Process, work: Callable[[], None]) -> None:
        super().__init__(work)
        self.process = process
        #: Which wake-up is awaited: earlier ones are void.
        self.wake = 0
        #: What the checks note about the item in work; see :mod:`tests.simulation.oracle`.
        self.notes: dict[str, Any] = {}


@dataclass(eq=False, slots=True)
class Signal:
    """An event that happens once, with a value."""

    is_fired: bool = False
    value: Any = None
    waiting: list[tuple[Routine, int]] = field(default_factory=list)


class Kernel:
    """
    The clock and the scheduler of one simulation.

    :param seed: Decides everything.
    """

    def __init__(self, seed: str) -> None:
        self.rng = Random(seed)
        self.now = EPOCH
        self.trace: list[str] = []
        self._queue: list[tuple[float, int, Routine, int]] = []
        self._scheduled = 0
        self._hub = getcurrent()
        self._is_over = False

    @property
    def routine(self) -> Routine:
        """The routine that runs now."""
        current = getcurrent()
        assert isinstance(current, Routine)
        return current

    @property
    def process(self) -> Process:
        """The process that runs now."""
        return self.routine.process

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.now - EPOCH:12.3f} {self.process.name:10} {text}")

    @property
    def digest(self) -> str:
        """A digest of the trace."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()

    def spawn(self, process: Process, work: Callable[[], Any]) -> Signal:
        """Start a routine; the signal has the value that its work returns, None if the process is killed before."""
        ended = Signal()

        def run() -> None:
            value = None
            try:
                process.check()
                value = work()
            except Killed:
                pass
            finally:
                self.fire(ended, value)

        routine = Routine(process, run)
        routine.parent = self._hub
        self._schedule(routine, self.now)
        return ended

    def run(self) -> bool:
        """
        Run all routines to their ends; what one raises ends the simulation.

        :return: Whether they ended within MAX_STEPS lines of the trace.
        """
        while self._queue:
            if len(self.trace) > MAX_STEPS:
                self._is_over = True
                return False
            at, _, routine, wake = heapq.heappop(self._queue)
            if wake == routine.wake and not routine.dead:
                self.now = at
                routine.switch()
        return True

    def sleep(self, seconds: float) -> None:
        """Let time pass for the current routine."""
        routine = self.routine
        self._check(routine)
        self._schedule(routine, self.now + max(seconds, 0.0))
        self._hub.switch()
        self._check(routine)

    def wait(self, signal: Signal, timeout: float | None = None) -> bool:
        """Wait for a signal; return whether it came within the timeout, in seconds."""
        routine = self.routine
        self._check(routine)
        if not signal.is_fired:
            routine.wake += 1
            signal.waiting.append((routine, routine.wake))
            if timeout is not None:
                self._push(routine, self.now + max(timeout, 0.0))
            self._hub.switch()
        self._check(routine)
        return signal.is_fired

    def fire(self, signal: Signal, value: Any = None) -> None:
        """Set the signal, and wake the routines that wait for it."""
        if signal.is_fired:
            return
        signal.is_fired, signal.value = True, value
        for routine, wake in signal.waiting:
            if routine.wake == wake:
                self._schedule(routine, self.now)

    def _check(self, routine: Routine) -> None:
        """Raise Killed if the routine must not run on."""
        if self._is_over:
            raise Killed
        routine.process.check()

    def _schedule(self, routine: Routine, at: float) -> None:
        routine.wake += 1
        self._push(routine, at)

    def _push(self, routine: Routine, at: float) -> None:
        self._scheduled += 1
        heapq.heappush(self._queue, (at, self._scheduled, routine, routine.wake))
