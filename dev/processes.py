"""
Processes that end with the block that started them.

Each runs in its own session, so that all its child processes can be found and ended with it, and so that a terminal's
Ctrl-C reaches only the launcher, which then ends the others in order.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType

import psutil

# Airflow's components end within this time after SIGTERM; a component that does not is stuck.
STOP_SECONDS = 12.0
TAIL_LINES = 25
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ProcessFailed(Exception):
    """A required process ended, or did not become ready; the message shows the end of its log."""


class ManagedProcess:
    """One running process, its name and its log file."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self.crashed = False
        self._process = process

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its session and group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.poll()

    def failure(self, what: str) -> ProcessFailed:
        """Return the error that says what happened to this process, with the end of its log."""
        return ProcessFailed(f"{self.name} {what}. The end of {self.log}:\n{tail(self.log)}")

    def wait(self, timeout: float) -> None:
        """
        Wait for a process that ends by itself.

        :param timeout: seconds.
        :raises ProcessFailed: it did not end in time, or not with status 0.
        """
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self.failure(f"was not done after {timeout:.0f} s") from None
        if status != 0:
            raise self.failure(f"ended with status {status}")

    def terminate(self, timeout: float) -> None:
        """
        Ask the process and its group to end, and wait for it.

        :param timeout: seconds; it may run on afterwards.
        """
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(timeout, 0.0))

    def crash(self, number: int = signal.SIGKILL) -> None:
        """
        Kill this process only; its child processes run until the block ends.

        :param number: the signal, which must end the process.
        """
        self.crashed = True
        self._process.send_signal(number)
        self._process.wait()

    def kill_session(self) -> None:
        """Kill all processes of the session: Airflow's tasks have their own process groups."""
        self.crashed = True
        killed: set[int] = set()
        while found := set(session_members(self.pid)) - killed:  # again, for processes that were forked meanwhile
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed |= found
        self._process.wait()


class Processes:
    """
    A context manager that ends all processes that were started through it.

    :param logs: folder for one log file per process.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._started: list[ManagedProcess] = []

    def __enter__(self) -> Processes:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        else:
            self.kill()  # a task that continues could spend money

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> ManagedProcess:
        """Start a command in its own session, with exactly this environment and its output in `<logs>/<name>.log`."""
        log = self._logs / f"{name}.log"
        with stop_signals_held(), log.open("ab") as output:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            started = ManagedProcess(name, process, log)
            self._started.append(started)
        return started

    def check(self) -> None:
        """
        Check that all processes run, except those that a test crashed.

        :raises ProcessFailed: one has ended with another status than 0.
        """
        for process in self._started:
            if process.returncode and not process.crashed:
                raise process.failure(f"ended with status {process.returncode}")

    def wait_until(self, process: ManagedProcess, ready: Callable[[], bool], timeout: float) -> None:
        """
        Wait until a process is ready.

        :param timeout: seconds.
        :raises ProcessFailed: it was not ready in time, or a process has ended meanwhile.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise process.failure(f"was not ready after {timeout:.0f} s")
            time.sleep(0.2)

    def stop(self) -> None:
        """
        Terminate the processes one after the other, the last started first, and kill those that do not end in time.

        The order matters: later processes use earlier ones, and a task whose API server has ended tries for a long time
        to reach it. A second signal skips the wait.
        """
        deadline = time.monotonic() + STOP_SECONDS
        try:
            for process in reversed(self._started):
                process.terminate(deadline - time.monotonic())
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill all processes."""
        with stop_signals_held():
            for process in reversed(self._started):
                process.kill_session()
            self._started.clear()


def session_members(session: int) -> list[int]:
    """Return the ids of the processes of one session."""
    members = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == session:
                members.append(pid)
    return members


def tail(log: Path) -> str:
    """Return the last lines of a log file."""
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:]) or "    (it is empty)"


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Return whether a port of the loopback interface accepts connections."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def raise_on_stop_signals() -> None:
    """Let SIGTERM and SIGHUP end the program as Ctrl-C does, through every context manager."""
    for number in STOP_SIGNALS:
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue  # started with nohup
        signal.signal(number, _raise_interrupt)


def _raise_interrupt(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


@contextmanager
def stop_signals_held() -> Iterator[None]:
    """Delay stop signals until the block ends: a signal between start and registration would leave a process behind."""
    received: list[int] = []
    handlers = {number: signal.signal(number, lambda held, _frame: received.append(held)) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late in received:
            signal.raise_signal(late)
