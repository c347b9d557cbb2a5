"""
The memory, files and sockets of Airflow over 24 accelerated hours of nightly work.

Run as ``python -m benchmarks.load``. Each hour is a DAG run of mapped images and a dataset. Memory, open files and
sockets of each component, and of the workers' processes, are sampled every few seconds. The page and the plot are
written to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks import report
from benchmarks.dags.load_dag import DAG_ID, IMAGES
from dev.airflow_cluster import AirflowCluster, airflow_cluster, clean_environment
from dev.emulator_server import EmulatorServer, start_emulator
from dev.postgres_server import PostgresServer
from dev.processes import Processes, raise_on_stop_signals, session_members
from dev.s3_server import start_s3_server

DAGS = Path(__file__).parent / "dags"
BUCKET = "benchmark"
HOURS = 24
JOB_SECONDS = 2.0
SAMPLE_SECONDS = 5.0
#: Seconds after the last hour in which the last runs must end.
PATIENCE_SECONDS = 600.0
TRIGGERER, TASKS = "triggerer", "workers' task processes"
#: Components whose processes run for the whole time.
COMPONENTS = (TRIGGERER, "scheduler", "api-server", "dag-processor")


@dataclass(frozen=True)
class Sample:
    """
    The resources of a component's processes: their sum, or the largest of the task processes.

    :param hours: The time, in accelerated hours.
    :param memory_mb: Proportional set size (PSS).
    :param files: Open files, including sockets.
    :param sockets: Open sockets.
    """

    hours: float
    memory_mb: float
    files: int
    sockets: int


@dataclass
class Measured:
    """
    The measurements.

    :param samples: The samples by component.
    :param runs: The number of DAG runs by state.
    :param seconds: From the start of the first run to the end of the last.
    :param charges: Charged requests.
    :param stored: Images in S3.
    """

    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    runs: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    charges: int = 0
    stored: int = 0


def main() -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hour-seconds", type=float, default=40.0, help="seconds of an accelerated hour")
    options = parser.parse_args()
    raise_on_stop_signals()
    home = Path(tempfile.mkdtemp(prefix="ideogram-load-"))
    home.chmod(0o711)  # PostgreSQL runs as the user nobody if this runs as root
    about = report.machine()
    try:
        measured = measure(home, options.hour_seconds)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    write_page(measured, options.hour_seconds, about)
    succeeded = measured.runs == {"success": HOURS} and measured.charges == measured.stored == HOURS * IMAGES
    return 0 if succeeded else 1


def measure(home: Path, hour_seconds: float) -> Measured:
    """Start the servers, run the hours, and end the servers."""
    clean = clean_environment()
    (home / "dags").mkdir()
    shutil.copy(DAGS / "load_dag.py", home / "dags")
    with Processes(home / "servers") as processes:
        emulator = start_emulator(processes, clean, JOB_SECONDS)
        s3 = start_s3_server(processes, clean, BUCKET)
        settings = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": PostgresServer(processes, clean, home / "postgres").url,
            "AIRFLOW_CONN_IDEOGRAM_DEFAULT": emulator.airflow_connection(),
            "AIRFLOW_CONN_AWS_DEFAULT": s3.airflow_connection(),
        }
        with airflow_cluster(home / "airflow", home / "dags", settings) as cluster:
            processor = cluster.components["dag-processor"]
            cluster.processes.wait_until(processor, lambda: cluster.api.has_dag(DAG_ID), 120.0)
            measured = run_hours(cluster, hour_seconds)
        measured.charges = _charges(emulator)
        pages = s3.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        measured.stored = len([key for key in keys if not key.startswith("_ideogram/") and not key.endswith(".jsonl")])
    return measured


def run_hours(cluster: AirflowCluster, hour_seconds: float) -> Measured:
    """Start a run each hour, sample the processes, and wait for the end of the last run."""
    measured, started, runs = Measured(), time.monotonic(), 0
    deadline = started + HOURS * hour_seconds + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        hours = (time.monotonic() - started) / hour_seconds
        if runs < HOURS and hours >= runs:
            cluster.api.trigger_run(DAG_ID, run_id=f"hour-{runs}")
            runs += 1
        for name, sample in samples(cluster, hours).items():
            measured.samples[name].append(sample)
        states = list(cluster.api.run_states(DAG_ID).values())
        measured.runs = {state: states.count(state) for state in set(states)}
        measured.seconds = time.monotonic() - started
        if runs == HOURS and set(states) <= {"success", "failed"}:
            break
        print(f"{hours:5.1f} h  {measured.runs}", flush=True)
        time.sleep(SAMPLE_SECONDS)
    return measured


def samples(cluster: AirflowCluster, hours: float) -> dict[str, Sample]:
    """Return a sample of each component; the scheduler's child processes are those of tasks."""
    found = {}
    for name in COMPONENTS:
        members = session_members(cluster.components[name].pid)
        tasks = [pid for pid in members if name == "scheduler" and pid != cluster.components[name].pid]
        if own := _resources(pid for pid in members if pid not in tasks):
            found[name] = Sample(hours, *(sum(values) for values in zip(*own, strict=True)))
        if running := _resources(tasks):
            found[TASKS] = Sample(hours, *(max(values) for values in zip(*running, strict=True)))
    return found


def _resources(pids: Iterable[int]) -> list[tuple[float, int, int]]:
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(pid)
            found.append(
                (process.memory_full_info().pss / 1e6, process.num_fds(), len(process.net_connections(kind="all")))
            )
    return found


def _charges(emulator: EmulatorServer) -> int:
    stats = httpx.get(f"{emulator.url}/_emulator/stats", trust_env=False).json()
    charges: int = stats["charges"]
    return charges


def growth(samples: list[Sample], what: str) -> tuple[float, float]:
    """Return the medians of the second and of the last quarter; the first quarter includes one-time loading."""
    values = [getattr(sample, what) for sample in samples if sample.hours <= HOURS]
    quarter = max(len(values) // 4, 1)
    return statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])


def write_page(measured: Measured, hour_seconds: float, about: str) -> None:
    """Write the table and the plot."""
    rows = []
    for name in (*COMPONENTS, TASKS):
        cells: list[object] = [name]
        for what, digits in (("memory_mb", 0), ("files", 0), ("sockets", 0)):
            early, late = growth(measured.samples[name], what)
            cells += [f"{early:.{digits}f}", f"{late:.{digits}f}"]
        rows.append(cells)
    head = ["process", "MB, hours 6 to 12", "MB, hours 18 to 24", "files", "files, late", "sockets", "sockets, late"]
    report.write(
        "load",
        f"{HOURS} accelerated hours: {HOURS * IMAGES:,} images on one Airflow",
        about + "\n",
        f"An hour is {hour_seconds:g} s, PostgreSQL, LocalExecutor, jobs of {JOB_SECONDS:g} s. Ended after "
        f"{measured.seconds:.0f} s: {measured.runs}; {measured.charges:,} charges, {measured.stored:,} images in S3. "
        "Medians; memory is proportional set size.\n",
        report.table(head, rows),
        "![Memory, files and sockets over time](load.png)\n",
    )
    _plot(measured.samples)


def _plot(samples: Mapping[str, list[Sample]]) -> None:
    panels = {"memory_mb": "MB", "files": "open files", "sockets": "sockets"}
    figure, axes = report.plots(1, len(panels), width=4.0 * len(panels))
    for axis, (what, label) in zip(axes, panels.items(), strict=True):
        for name in (TRIGGERER, TASKS, "scheduler", "api-server"):
            axis.plot(
                [one.hours for one in samples[name]], [getattr(one, what) for one in samples[name]], label=name, lw=1
            )
        axis.set_xlabel("hours")
        axis.set_title(label)
        axis.set_ylim(bottom=0)
    axes[0].legend(fontsize=7)
    report.save(figure, "load.png")


if __name__ == "__main__":
    sys.exit(main())
