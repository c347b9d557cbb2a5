"""
24 hours of nightly work in fast motion through one Airflow: does anything grow?

Run as ``python -m benchmarks.load``. Each hour is a DAG run of mapped images and a dataset.
Memory, open files and sockets of each component are noted all the while, and those of the workers' processes while
they run. The page and the plot go to ``benchmarks/results/``.
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
#: What the last hours may take after they have begun.
PATIENCE_SECONDS = 600.0
TRIGGERER, TASKS = "triggerer", "workers' task processes"
#: Components whose own processes go on for all of the time.
LASTING = (TRIGGERER, "scheduler", "api-server", "dag-processor")


@dataclass(frozen=True)
class Sample:
    """
    What a component's processes hold at a time.

    :param hours: When, in hours of the fast motion.
    :param memory_mb: Proportional set size (PSS), added up; of task processes that of the largest.
    :param files: Open files, sockets included, likewise.
    :param sockets: Open sockets, likewise.
    """

    hours: float
    memory_mb: float
    files: int
    sockets: int


@dataclass
class Measured:
    """
    What came of a load.

    :param samples: By component.
    :param runs: How many DAG runs ended in each state.
    :param seconds: From the first run's beginning to the last one's end.
    :param charges: What the vendor charged for, and how much was stored.
    """

    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    runs: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    charges: int = 0
    stored: int = 0


def main() -> int:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hour-seconds", type=float, default=40.0, help="how long an hour takes")
    options = parser.parse_args()
    raise_on_stop_signals()
    home = Path(tempfile.mkdtemp(prefix="ideogram-load-"))
    home.chmod(0o711)  # to be passed through by PostgreSQL, which runs as nobody where this runs as root
    about = report.machine()
    try:
        measured = measure(home, options.hour_seconds)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    write_page(measured, options.hour_seconds, about)
    all_right = measured.runs == {"success": HOURS} and measured.charges == measured.stored == HOURS * IMAGES
    return 0 if all_right else 1


def measure(home: Path, hour_seconds: float) -> Measured:
    """Start everything, run the hours, and end everything."""
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
        measured.charges = _books(emulator)
        pages = s3.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        measured.stored = len([key for key in keys if not key.endswith("manifest.jsonl")])
    return measured


def run_hours(cluster: AirflowCluster, hour_seconds: float) -> Measured:
    """Begin a run each hour, note what the processes hold, and wait for the last run's end."""
    measured, started, begun = Measured(), time.monotonic(), 0
    deadline = started + HOURS * hour_seconds + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        hours = (time.monotonic() - started) / hour_seconds
        if begun < HOURS and hours >= begun:
            cluster.api.trigger_run(DAG_ID, run_id=f"hour-{begun}")
            begun += 1
        for name, sample in samples(cluster, hours).items():
            measured.samples[name].append(sample)
        states = list(cluster.api.run_states(DAG_ID).values())
        measured.runs = {state: states.count(state) for state in set(states)}
        measured.seconds = time.monotonic() - started
        if begun == HOURS and set(states) <= {"success", "failed"}:
            break
        print(f"{hours:5.1f} h  {measured.runs}", flush=True)
        time.sleep(SAMPLE_SECONDS)
    return measured


def samples(cluster: AirflowCluster, hours: float) -> dict[str, Sample]:
    """Return what each component holds now; what runs a task is told apart from the scheduler that started it."""
    found = {}
    for name in LASTING:
        members = session_members(cluster.components[name].pid)
        tasks = [pid for pid in members if name == "scheduler" and pid != cluster.components[name].pid]
        if own := _store_errors(pid for pid in members if pid not in tasks):
            found[name] = Sample(hours, *(sum(values) for values in zip(*own, strict=True)))
        if running := _store_errors(tasks):
            found[TASKS] = Sample(hours, *(max(values) for values in zip(*running, strict=True)))
    return found


def _store_errors(pids: Iterable[int]) -> list[tuple[float, int, int]]:
    held = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(pid)
            held.append(
                (process.memory_full_info().pss / 1e6, process.num_fds(), len(process.net_connections(kind="all")))
            )
    return held


def _books(emulator: EmulatorServer) -> int:
    stats = httpx.get(f"{emulator.url}/_emulator/stats", trust_env=False).json()
    charges: int = stats["accepted"]
    return charges


def growth(samples: list[Sample], what: str) -> tuple[float, float]:
    """Return the medians of the second and of the last quarter: what is loaded once comes in the first."""
    values = [getattr(sample, what) for sample in samples if sample.hours <= HOURS]
    quarter = max(len(values) // 4, 1)
    return statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])


def write_page(measured: Measured, hour_seconds: float, about: str) -> None:
    """Write the table and the plot."""
    rows = []
    for name in (*LASTING, TASKS):
        cells: list[object] = [name]
        for what, digits in (("memory_mb", 0), ("files", 0), ("sockets", 0)):
            early, late = growth(measured.samples[name], what)
            cells += [f"{early:.{digits}f}", f"{late:.{digits}f}"]
        rows.append(cells)
    head = ["process", "MB, hours 6 to 12", "MB, hours 18 to 24", "files", "files, late", "sockets", "sockets, late"]
    report.write(
        "load",
        f"{HOURS} hours in fast motion: {HOURS * IMAGES:,} images through one Airflow",
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
