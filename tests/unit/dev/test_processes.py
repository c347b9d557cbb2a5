from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dev import processes
from dev.processes import Processes, ProcessFailed, free_port, listens, stop_signals_held

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_SECONDS = 30.0

# A component like Airflow's: its child has another process group, as task processes do, and does not end with it.
PARENT_AND_CHILD = """
import os, pathlib, sys, time
child = os.fork()
if not child:
    os.setpgid(0, 0)
    time.sleep(600)
pathlib.Path(sys.argv[1]).write_text(f"{os.getpid()} {child}\\n")
time.sleep(600)
"""
STUBBORN = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).write_text("ready\\n")
time.sleep(600)
"""
RECORDS_ITS_END = """
import pathlib, signal, sys, time
def leave(number, frame):
    with open(sys.argv[2], "a") as order:
        print(pathlib.Path(sys.argv[1]).name, file=order)
    sys.exit()
signal.signal(signal.SIGTERM, leave)
pathlib.Path(sys.argv[1]).write_text("ready\\n")
time.sleep(600)
"""
LAUNCHER = """
import sys, time
from pathlib import Path
from dev.processes import Processes, raise_on_stop_signals
raise_on_stop_signals()
folder = Path(sys.argv[1])
with Processes(folder) as processes:
    processes.start("component", [sys.executable, "-c", sys.argv[2], str(folder / "pids")], {})
    time.sleep(600)
"""


def _read_when_written(path: Path) -> str:
    """Wait until a process has written a whole line into a file, and return it."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, f"{path.name} was not written"
        time.sleep(0.02)
    return path.read_text()


def _assert_gone(pids: list[int]) -> None:
    _, running = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], DEADLINE_SECONDS)
    assert running == []


def _python(code: str, *arguments: Path) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def test_failing_block_leaves_no_process(tmp_path: Path) -> None:
    pids: list[int] = []

    def start_and_fail() -> None:
        with Processes(tmp_path) as started:
            started.start("component", _python(PARENT_AND_CHILD, tmp_path / "pids"), {})
            pids.extend(map(int, _read_when_written(tmp_path / "pids").split()))
            raise RuntimeError("the block failed")

    with pytest.raises(RuntimeError, match="the block failed"):
        start_and_fail()

    assert len(pids) == 2
    _assert_gone(pids)


def test_process_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.2)
    with Processes(tmp_path) as started:
        stubborn = started.start("stubborn", _python(STUBBORN, tmp_path / "ready"), {})
        _read_when_written(tmp_path / "ready")

    assert stubborn.returncode == -signal.SIGKILL


def test_last_started_process_ends_first(tmp_path: Path) -> None:
    with Processes(tmp_path) as started:
        for name in ("server", "client"):
            started.start(name, _python(RECORDS_ITS_END, tmp_path / name, tmp_path / "order"), {})
            _read_when_written(tmp_path / name)

    assert (tmp_path / "order").read_text().split() == ["client", "server"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_to_the_launcher_ends_its_processes(tmp_path: Path, number: int) -> None:
    launcher = subprocess.Popen([*_python(LAUNCHER, tmp_path), PARENT_AND_CHILD], cwd=ROOT, stderr=subprocess.DEVNULL)
    pids = [int(pid) for pid in _read_when_written(tmp_path / "pids").split()]

    launcher.send_signal(number)

    assert launcher.wait(DEADLINE_SECONDS) != 0
    _assert_gone(pids)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also in a background process of a shell, which ignores it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("interruptible")
def test_signal_is_delayed_until_the_block_ends() -> None:
    after_signal: list[bool] = []

    def interrupt_inside() -> None:
        with stop_signals_held():
            os.kill(os.getpid(), signal.SIGINT)
            after_signal.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupt_inside()

    assert after_signal == [True]


def test_ended_component_is_reported_with_its_log(tmp_path: Path) -> None:
    with Processes(tmp_path) as started:
        component = started.start("scheduler", _python("print('no database'); raise SystemExit(3)"), {})
        with pytest.raises(ProcessFailed, match=r"(?s)scheduler ended with status 3.*no database"):
            started.wait_until(component, lambda: False, DEADLINE_SECONDS)


def test_component_that_is_not_ready_in_time_is_reported(tmp_path: Path) -> None:
    with Processes(tmp_path) as started:
        component = started.start("api-server", _python(PARENT_AND_CHILD, tmp_path / "pids"), {})
        with pytest.raises(ProcessFailed, match=r"(?s)api-server was not ready after 0 s.*\(it is empty\)"):
            started.wait_until(component, lambda: False, 0)


def test_wait_needs_an_end_in_time_with_status_0(tmp_path: Path) -> None:
    with Processes(tmp_path) as started:
        started.start("migrate", _python("pass"), {}).wait(DEADLINE_SECONDS)
        with pytest.raises(ProcessFailed, match="ended with status 1"):
            started.start("broken", _python("raise SystemExit(1)"), {}).wait(DEADLINE_SECONDS)
        with pytest.raises(ProcessFailed, match="was not done after 0 s"):
            started.start("slow", _python(PARENT_AND_CHILD, tmp_path / "pids"), {}).wait(0)


def test_process_has_the_given_environment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMIND_API_KEY", "a-secret")
    with Processes(tmp_path) as started:
        shown = started.start("shown", _python("import os; print(os.environ)"), {"ONLY": "this"})
        shown.wait(DEADLINE_SECONDS)

    assert "'ONLY': 'this'" in shown.log.read_text()
    assert "a-secret" not in shown.log.read_text()


def test_nothing_listens_on_a_free_port() -> None:
    assert not listens(free_port())
