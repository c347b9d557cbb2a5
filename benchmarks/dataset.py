"""
A dataset in one task on a real Airflow: size, rate, and the same prompts in mapped tasks.

Run as ``python -m benchmarks.dataset``; the table goes to ``benchmarks/results/dataset.md``. The emulator, the S3
server and Airflow are processes of this machine and share its cores.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from dev.airflow_cluster import AirflowCluster, airflow_cluster, clean_environment
from dev.emulator_server import EmulatorServer, start_emulator
from dev.processes import Processes, raise_on_stop_signals, session_members
from dev.run_info import run_info
from dev.s3_server import S3Server, start_s3_server

BUCKET = "benchmark"
RESULT = Path(__file__).parent / "results" / "dataset.md"
DAGS = Path(__file__).parent / "dags"
#: A rate limit R and a dataset of N prompts, with N/R well above the duration of a job.
RATE_PER_MINUTE = 240
RATED = 480
RATED_JOB_SECONDS = 12.0
JOB_SECONDS = 5.0
RUN_SECONDS = 1500.0
SEED = 0


@dataclass(frozen=True)
class Measured:
    """
    The measurements of a run.

    :param state: Its final state.
    :param items: Its prompts.
    :param stored: Images in S3.
    :param charges: Charged requests.
    :param seconds: From queued to its end, by Airflow's times.
    :param cpu_seconds: CPU time of all worker processes, including the tasks' supervisors.
    :param slices: The measurements of each slice.
    :param submits: Submits, including those that were answered 429.
    :param rate_limited: Submits that were answered 429.
    """

    state: str
    items: int
    stored: int
    charges: int
    seconds: float
    cpu_seconds: float
    slices: list[dict[str, float]]
    submits: int
    rate_limited: int

    @property
    def peak_mb(self) -> float:
        """The largest memory of a slice."""
        return max(one["peak_mb"] for one in self.slices)

    @property
    def per_minute(self) -> float:
        """Images per minute."""
        return self.items / self.seconds * 60

    @property
    def cpu_per_image(self) -> float:
        """CPU seconds of workers per image."""
        return self.cpu_seconds / self.items


class Bench:
    """The running servers, and the folder of the slices' measurements."""

    def __init__(self, cluster: AirflowCluster, emulator: EmulatorServer, s3: S3Server, notes: Path) -> None:
        self._cluster = cluster
        self._emulator = emulator
        self._s3 = s3.client()
        self._notes = notes

    def run(self, dag_id: str, prefix: str, items: int, **settings: Any) -> Measured:
        """Run a DAG, and return its measurements."""
        self._admin("reset", {})
        self._admin("settings", {"rate_limit": 0, "job_seconds": JOB_SECONDS} | settings)
        cpu = self._worker_cpu()
        run_id = self._cluster.api.trigger_run(dag_id)
        state = self._cluster.api.wait_for_run(dag_id, run_id, RUN_SECONDS, self._cluster.processes.check)
        cpu = self._worker_cpu() - cpu
        stats = httpx.get(f"{self._emulator.url}/_emulator/stats", trust_env=False).json()
        notes = self._notes / f"{dag_id}.jsonl"
        measured = Measured(
            state=state,
            items=items,
            stored=self._stored(prefix),
            charges=stats["charges"],
            seconds=self._cluster.api.run_seconds(dag_id, run_id),
            cpu_seconds=cpu,
            slices=[json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else [],
            submits=stats["calls"].get("submit", 0),
            rate_limited=stats["rate_limited"],
        )
        print(f"{dag_id}: {state}, {measured.seconds:.0f} s, {cpu:.0f} s CPU, {measured.stored} stored", flush=True)
        return measured

    def _stored(self, prefix: str) -> int:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return len([key for key in keys if not key.endswith("manifest.jsonl")])

    def _worker_cpu(self) -> float:
        """Return the CPU seconds of all processes that the scheduler started, including ended ones."""
        scheduler = self._cluster.components["scheduler"].pid
        total = 0.0
        for pid in session_members(scheduler):
            try:
                times = psutil.Process(pid).cpu_times()
            except psutil.NoSuchProcess:
                continue
            own = 0.0 if pid == scheduler else times.user + times.system
            total += own + times.children_user + times.children_system
        return total

    def _admin(self, path: str, body: dict[str, Any]) -> None:
        httpx.post(f"{self._emulator.url}/_emulator/{path}", json=body, trust_env=False).raise_for_status()


def main() -> int:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=5000, help="of the large dataset")
    parser.add_argument("--mapped", type=int, default=100, help="prompts of the comparison with mapped tasks")
    parser.add_argument("--max-in-flight", type=int, default=400, help="of the large dataset")
    options = parser.parse_args()
    raise_on_stop_signals()
    about = run_info()
    home = Path(tempfile.mkdtemp(prefix="ideogram-bench-"))
    try:
        measured = measure(home, options)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    RESULT.write_text(report(measured, options, about))
    return 0


def measure(home: Path, options: argparse.Namespace) -> dict[str, Measured]:
    """Start the servers, run every DAG, and end the servers."""
    environment = clean_environment()
    for folder in ("dags", "notes"):
        (home / folder).mkdir()
    shutil.copy(DAGS / "dataset_benchmark_dag.py", home / "dags")
    sizes = {"warm_up": 2, "large": options.prompts, "rated": RATED, "compared": options.mapped}
    datasets = {name: dataset(home, name, size) for name, size in sizes.items()}
    datasets["large"]["max_in_flight"] = options.max_in_flight
    datasets["compared"]["max_in_flight"] = options.mapped
    datasets["rated"] |= {"requests_per_minute": RATE_PER_MINUTE, "max_in_flight": RATE_PER_MINUTE}
    settings = {"datasets": datasets, "mapped": options.mapped, "notes": str(home / "notes")}
    with Processes(home / "logs") as processes:
        emulator = start_emulator(processes, environment, JOB_SECONDS)
        s3 = start_s3_server(processes, environment, BUCKET)
        airflow = {
            "AIRFLOW_CONN_IDEOGRAM_DEFAULT": emulator.airflow_connection(),
            "AIRFLOW_CONN_AWS_DEFAULT": s3.airflow_connection(),
            "DATASET_BENCHMARK": json.dumps(settings),
        }
        with airflow_cluster(home / "airflow", home / "dags", airflow) as cluster:
            processor = cluster.components["dag-processor"]
            cluster.processes.wait_until(processor, lambda: cluster.api.has_dag("mapped"), 120.0)
            bench = Bench(cluster, emulator, s3, home / "notes")
            bench.run("warm_up", "warm_up/", 2)
            found = {"compared": bench.run("compared", "compared/", options.mapped)}
            found["mapped"] = bench.run("mapped", "mapped/", options.mapped)
            found["rated"] = bench.run(
                "rated", "rated/", RATED, rate_limit=RATE_PER_MINUTE, job_seconds=RATED_JOB_SECONDS
            )
            found["large"] = bench.run("large", "large/", options.prompts)
    return found


def dataset(home: Path, name: str, size: int) -> dict[str, Any]:
    """Write a dataset's rows, and return the operator's arguments."""
    path = home / f"{name}.jsonl"
    rows = [json.dumps({"id": f"{number:06}", "prompt": f"prompt number {number}"}) for number in range(size)]
    path.write_text("\n".join(rows))
    return {"prompts_path": str(path), "s3_prefix": f"s3://{BUCKET}/{name}/", "max_in_flight": 100}


def report(found: dict[str, Measured], options: argparse.Namespace, about: str) -> str:
    """Return the results as Markdown."""
    large, rated = found["large"], found["rated"]
    compared, mapped = found["compared"], found["mapped"]
    ideal = RATED / RATE_PER_MINUTE * 60 + RATED_JOB_SECONDS
    rows = [
        ("stored, charged", f"{large.stored}, {large.charges} of {large.items}", "all, once each"),
        (
            "peak memory of a slice",
            f"{large.peak_mb:.0f} MB, {large.peak_mb - compared.peak_mb:+.0f} MB",
            "within 50 MB",
        ),
        ("slices, time on workers", f"{len(large.slices)}, {sum(s['seconds'] for s in large.slices):.0f} s", ""),
        ("wall time, images per minute", f"{large.seconds:.0f} s, {large.per_minute:.0f}", ""),
        (
            "with a limit: wall time compared with N/R + L",
            f"{rated.seconds:.0f} s, {rated.seconds / ideal - 1:+.1%}",
            "10 %",
        ),
        ("with a limit: submits answered 429", f"{rated.rate_limited} of {rated.submits}", "0.5 %"),
        ("compared with mapped tasks: images per minute", f"{compared.per_minute / mapped.per_minute:.1f} x", "5 x"),
        (
            "compared with mapped tasks: worker CPU per image",
            f"1/{mapped.cpu_per_image / compared.cpu_per_image:.0f}",
            "1/20",
        ),
    ]
    table = "\n".join(f"| {what} | {value} | {aim} |" for what, value, aim in rows)
    each = "\n".join(
        f"| {name} | {one.state} | {one.items} | {one.stored} | {one.charges} | {one.seconds:.0f} | "
        f"{one.per_minute:.0f} | {one.cpu_per_image:.3f} | {len(one.slices) or ''} |"
        for name, one in found.items()
    )
    return f"""# A dataset in one task

{about}. These cores run the emulator, the S3 server (moto) and Airflow with SQLite and the LocalExecutor; seed {SEED}.
`python -m benchmarks.dataset --prompts {options.prompts} --mapped {options.mapped} \
--max-in-flight {options.max_in_flight}`

| {large.items} prompts, jobs of {JOB_SECONDS:.0f} s | measured | aim |
|---|---|---|
{table}

The limit is {RATE_PER_MINUTE} a minute, N = {RATED}, L = {RATED_JOB_SECONDS:.0f} s: N/R + L = {ideal:.0f} s. Memory is
compared with a dataset of {compared.items}: {compared.peak_mb:.0f} MB. Wall times are Airflow's,
from queued to the run's end. CPU is the time of all worker processes with their supervisors.

| run | state | prompts | stored | charged | seconds | images per minute | worker CPU s per image | slices |
|---|---|---|---|---|---|---|---|---|
{each}
"""


if __name__ == "__main__":
    started = time.monotonic()
    status = main()
    print(f"{time.monotonic() - started:.0f} s", flush=True)
    sys.exit(status)
