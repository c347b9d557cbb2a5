"""The table: what was done to the system, and what came of it."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.system.experiment import Outage, TaskKey
from tests.system.plan import KILL_POINTS
from tests.system.servers import DEAD_AFTER_SECONDS
from tests.system.stats import Books, Verdict

Json = dict[str, Any]


def write_report(
    books: Books,
    verdict: Verdict,
    kills: list[Json],
    api_faults: Mapping[str, int],
    s3_faults: Mapping[str, int],
    command: str,
    seconds: float,
) -> str:
    """Return the report as Markdown."""  # fmt: skip
    images, title = len(books.tasks_of), "System test, distributed" if books.diary.outages else "System test"
    lines = [
        f"# {title}: {images} images, {len(books.instances)} tasks",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}, {seconds / 60:.0f} "
        f"minutes. `{command}` does the same again.",
        "",
        "| done to the system | times | tasks hit | stored | failed, reason named | paid twice or lost | stuck |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    hit_by = _tasks_hit(books, kills)
    for what, tasks in hit_by.items():
        lines.append(_row(f"{what}", len(tasks), tasks, books, verdict))
    for what, outages in _outages(books).items():
        tasks = [task for outage in outages for task in outage.tasks]
        lines.append(_row(what, len(outages), tasks, books, verdict))
    for component, count in books.diary.crashes.items():
        lines.append(f"| kill -9 of the {component} | {count} | all | | | | |")
    for component, count in books.diary.deaths.items():
        lines.append(f"| the {component} ended by itself and was started again | {count} | all | | | | |")
    for title, faults in (("API", api_faults), ("S3", s3_faults)):
        for fault, count in sorted(faults.items()):
            lines.append(f"| {title}: {fault} | {count} | | | | | |")
    lines.append(_row("**all of it**", "", list(books.instances), books, verdict))
    lines += _measured(books)
    lines += ["", "| invariant | broken |", "|---|---:|"]
    lines += [f"| 0 {name} | {len(broken)} |" for name, broken in verdict.violations.items()]
    lines += ["", "| in the books | |", "|---|---:|"]
    lines += [f"| {name} | {value} |" for name, value in verdict.facts.items()]
    kinds = Counter(
        books.logs.failure(task, one["try_number"]).kind for task, one in books.instances.items()
        if one["state"] == "failed"
    )  # fmt: skip
    lines += [f"| tasks failed with {kind or 'no reason'} | {count} |" for kind, count in kinds.items()]
    return "\n".join(lines) + "\n"


def say(started: float, line: str) -> None:
    """Print a line about the progress, with the seconds since the start."""
    sys.stdout.write(f"{time.monotonic() - started:6.0f} s  {line}\n")
    sys.stdout.flush()


def publish(report: str, verdict: Verdict, file: Path | None) -> int:
    """Print the report and what is broken, keep it in a file if there is one, and return the exit status."""
    sys.stdout.write(report)
    for name, broken in verdict.violations.items():
        for one in broken:
            sys.stdout.write(f"BROKEN: {name}: {one}\n")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(report)
    return 1 if any(verdict.violations.values()) else 0


def _tasks_hit(books: Books, kills: list[Json]) -> dict[str, list[TaskKey]]:
    hit: dict[str, list[TaskKey]] = {f"kill -9 {point}": [] for point in KILL_POINTS} if kills else {}
    for kill in kills:
        hit[f"kill -9 {kill['point']}"].append((kill["run_id"], kill["map_index"]))
    clears = defaultdict(list)
    for state, task in books.diary.clears:
        clears[f"cleared while {state}"].append(task)
    consents = {"cleared as the failure's message says": list(books.diary.consents.elements())}
    twins = {
        "another run aims at the same key": [t for tasks in books.tasks_of.values() if len(tasks) > 1 for t in tasks]
    }
    everything = hit | dict(sorted(clears.items())) | consents | twins
    return {what: tasks for what, tasks in everything.items() if tasks or what in hit}


def _outages(books: Books) -> dict[str, list[Outage]]:
    outages = defaultdict(list)
    for outage in books.diary.outages:
        outages[outage.what].append(outage)
    return outages


def _measured(books: Books) -> list[str]:
    """Return the table of what was measured, a line an outage."""
    measured = [outage for outage in books.diary.outages if outage.seconds]
    if not measured:
        return []
    names = list(dict.fromkeys(name for outage in measured for name in outage.seconds))
    lines = ["", f"| seconds after | tasks hit | {' | '.join(names)} |", f"|---|{'---:|' * (1 + len(names))}"]
    for outage in measured:
        cells = ["never" if value is None else f"{value:.1f}" for value in map(outage.seconds.get, names)]
        lines.append(f"| {outage.what} | {len(outage.tasks)} | {' | '.join(cells)} |")
    return [
        *lines,
        "",
        "A job is taken over when Airflow's books name another triggerer for it, and finished when its trigger has "
        f"fired. A triggerer counts as dead after {DEAD_AFTER_SECONDS} s without a heartbeat.",
    ]


def _row(what: str, times: object, tasks: list[TaskKey], books: Books, verdict: Verdict) -> str:
    distinct = set(tasks)
    states = Counter(books.instances[task]["state"] for task in distinct)
    unnamed = sum(
        not books.logs.failure(task, books.instances[task]["try_number"]).kind
        for task in distinct
        if books.instances[task]["state"] == "failed"
    )
    troubled = sum(not verdict.troubled.isdisjoint(books.images_of(task)) for task in distinct)
    stuck = len(distinct) - states["success"] - states["failed"]
    cells = (what, times, len(distinct), states["success"], states["failed"] - unnamed, troubled, stuck)
    return f"| {' | '.join(map(str, cells))} |"
