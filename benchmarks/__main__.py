"""
Run the benchmarks and write their pages to `benchmarks/results/`.

`python -m benchmarks [PART ...] [--loads 100,1000,...] [--seed N] [--jobs N]`; all parts take about 40
minutes. Compare ratios instead of times: all values of a table were measured in the same run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks import completion_delay, on_airflow, parsing, polls, report, upload
from benchmarks.dags.benchmark_dag import JOB_SECONDS, MAPPED

PARTS = (
    "completion-delay",
    "parsing",
    "upload",
    "ledger",
    "dataset-rows",
    "polls",
    "end-to-end",
    "triggerer",
    "worker-cpu",
)
#: Parts that are programs of their own.
MODULES = {
    "ledger": "benchmarks.ledger_cost",
    "dataset-rows": "benchmarks.dataset_rows",
    "worker-cpu": "benchmarks.worker_cpu",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; all by default")
    parser.add_argument("--loads", default=",".join(map(str, polls.LOADS)), help="numbers of waiting jobs")
    parser.add_argument("--jobs", type=int, default=5000, help="jobs of each distribution for completion-delay")
    parser.add_argument("--seed", type=int, default=20261123)
    options = parser.parse_args()
    parts = set(options.parts or PARTS)
    if parts - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(parts - set(PARTS)))}")
    about = f"{report.machine()} Seed {options.seed}.\n"
    if "completion-delay" in parts:
        delays = completion_delay.measure(options.jobs, options.seed)
        report.completion_delay_page(delays, options.jobs, options.seed, about)
    if "parsing" in parts:
        report.parsing_page(parsing.measure(), about)
    if "upload" in parts:
        report.upload_page(upload.measure_in_own_process(options.seed), about)
    for part in sorted(parts & MODULES.keys()):
        subprocess.run([sys.executable, "-m", MODULES[part]], check=True)
    if "polls" in parts:
        loads = [int(jobs) for jobs in options.loads.split(",")]
        report.polls_page(polls.measure({jobs: polls.interval_of(jobs) for jobs in loads}, options.seed), about)
    if parts & {"end-to-end", "triggerer"}:
        seconds, triggers = on_airflow.measure(parts)
        if seconds:
            report.airflow_page(seconds, JOB_SECONDS, MAPPED, about)
        if triggers:
            report.triggerer_page(triggers, about)


if __name__ == "__main__":
    main()
