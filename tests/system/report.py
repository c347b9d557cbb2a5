"""The report: what was done to the system, and the results."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.comparison import Comparison, Verdict
from tests.system.experiment import Outage, TaskKey
from tests.system.plan import KILL_POINTS
from tests.system.servers import MISSED_AFTER_SECONDS

Json = dict[str, Any]


@dataclass(frozen=True)
class Triggered:
    """
    The faults that were triggered.

    :param kills: The killed task processes.
    :param api: The emulator's faults, with how often each was triggered.
    :param s3: The same for S3's faults.
    """

    kills: list[Json]
    api: Mapping[str, int]
    s3: Mapping[str, int]


def write_report(comparison: Comparison, verdict: Verdict, triggered: Triggered, about: str, seconds: float) -> str:
    """Return the report as Markdown; `about` says on what and by which command it was measured."""
    images, title = len(comparison.tasks_of), "System test, distributed" if comparison.events.outages else "System test"
    lines = [
        f"# {title}: {images} images, {len(comparison.instances)} tasks",
        "",
        f"{about}, {seconds / 60:.0f} minutes.",
        "",
        "| done to the system | times | affected tasks | stored | failed with a reason | paid twice or lost | stuck |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    hit_by = _affected_tasks(comparison, triggered.kills)
    for what, tasks in hit_by.items():
        lines.append(_row(f"{what}", len(tasks), tasks, comparison, verdict))
    for what, outages in _outages(comparison).items():
        tasks = [task for outage in outages for task in outage.tasks]
        lines.append(_row(what, len(outages), tasks, comparison, verdict))
    for component, count in comparison.events.crashes.items():
        lines.append(f"| kill -9 of the {component} | {count} | all | | | | |")
    for component, count in comparison.events.exits.items():
        lines.append(f"| the {component} ended by itself and was restarted | {count} | all | | | | |")
    for title, faults in (("API", triggered.api), ("S3", triggered.s3)):
        for fault, count in sorted(faults.items()):
            lines.append(f"| {title}: {fault} | {count} | | | | | |")
    lines.append(_row("**all**", "", list(comparison.instances), comparison, verdict))
    lines += _measured(comparison)
    lines += ["", "| invariant | violations |", "|---|---:|"]
    lines += [f"| {name} | {len(violations)} |" for name, violations in verdict.violations.items()]
    lines += ["", "| results | |", "|---|---:|"]
    lines += [f"| {name} | {value} |" for name, value in verdict.facts.items()]
    failed = [one for one in comparison.instances.values() if one["state"] == "failed"]
    reasons = Counter(comparison.events.failure(one).reason or "no reason" for one in failed)
    lines += [f"| tasks failed with {reason} | {count} |" for reason, count in reasons.items()]
    return "\n".join(lines) + "\n"


def say(started: float, line: str) -> None:
    """Print a line about the progress, with the seconds since the start."""
    sys.stdout.write(f"{time.monotonic() - started:6.0f} s  {line}\n")
    sys.stdout.flush()


def publish(report: str, verdict: Verdict, file: Path | None) -> int:
    """Print the report and the violations, write the report to a file if one is given, and return the exit status."""
    sys.stdout.write(report)
    for name, violations in verdict.violations.items():
        for violation in violations:
            sys.stdout.write(f"VIOLATED: {name}: {violation}\n")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(report)
    return 1 if any(verdict.violations.values()) else 0


def _affected_tasks(comparison: Comparison, kills: list[Json]) -> dict[str, list[TaskKey]]:
    hit: dict[str, list[TaskKey]] = {f"kill -9 {point}": [] for point in KILL_POINTS} if kills else {}
    for kill in kills:
        hit[f"kill -9 {kill['point']}"].append((kill["run_id"], kill["map_index"]))
    clears = defaultdict(list)
    for state, task in comparison.events.clears:
        clears[f"cleared while {state}"].append(task)
    answered = {"cleared as the failure's message says": list(comparison.events.clears_of_failures.elements())}
    shared = {
        "another run has the same key": [t for tasks in comparison.tasks_of.values() if len(tasks) > 1 for t in tasks]
    }
    everything = hit | dict(sorted(clears.items())) | answered | shared
    return {what: tasks for what, tasks in everything.items() if tasks or what in hit}


def _outages(comparison: Comparison) -> dict[str, list[Outage]]:
    outages = defaultdict(list)
    for outage in comparison.events.outages:
        outages[outage.what].append(outage)
    return outages


def _measured(comparison: Comparison) -> list[str]:
    """Return the table of the measured times, a line for each outage."""
    measured = [outage for outage in comparison.events.outages if outage.seconds]
    if not measured:
        return []
    names = list(dict.fromkeys(name for outage in measured for name in outage.seconds))
    lines = ["", f"| seconds after | affected tasks | {' | '.join(names)} |", f"|---|{'---:|' * (1 + len(names))}"]
    for outage in measured:
        cells = ["never" if value is None else f"{value:.1f}" for value in map(outage.seconds.get, names)]
        lines.append(f"| {outage.what} | {len(outage.tasks)} | {' | '.join(cells)} |")
    return [
        *lines,
        "",
        "The times end when Airflow lists another triggerer for one of the triggers, and when all of them have fired. "
        f"Airflow replaces a triggerer after {MISSED_AFTER_SECONDS} s without a heartbeat.",
    ]


def _row(what: str, times: object, tasks: list[TaskKey], comparison: Comparison, verdict: Verdict) -> str:
    distinct = set(tasks)
    states = Counter(comparison.instances[task]["state"] for task in distinct)
    unnamed = sum(
        not comparison.events.failure(comparison.instances[task]).reason
        for task in distinct
        if comparison.instances[task]["state"] == "failed"
    )
    violated = sum(not verdict.affected.isdisjoint(comparison.images_of(task)) for task in distinct)
    stuck = len(distinct) - states["success"] - states["failed"]
    cells = (what, times, len(distinct), states["success"], states["failed"] - unnamed, violated, stuck)
    return f"| {' | '.join(map(str, cells))} |"
