"""Run simulations; print each violation with the command that repeats it, and the situations that were not reached."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from dev.run_info import run_info

#: Seeds that a process runs at a time.
_BATCH = 50
_MAX_SHOWN = 30
_RESULT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "simulation.md"


@dataclass
class Figures:
    """
    The figures of some simulations.

    :param seeds: How many there were.
    :param steps: The lines of all traces.
    :param violations: The violations by seed.
    :param reached: How often each situation was reached.
    :param digests: The digests of all traces.
    """

    seeds: int = 0
    steps: int = 0
    violations: dict[int, list[str]] = field(default_factory=dict)
    reached: Counter[str] = field(default_factory=Counter)
    digests: list[str] = field(default_factory=list)

    def add(self, other: Figures) -> None:
        """Add the figures of other simulations."""
        self.seeds += other.seeds
        self.steps += other.steps
        self.violations |= other.violations
        self.reached += other.reached
        self.digests += other.digests


def run_batch(profile: str, seeds: Sequence[int]) -> Figures:
    """Run some simulations of a profile."""
    from tests.simulation.simulation import Simulation
    from tests.simulation.surroundings import replaced

    logging.disable()
    figures = Figures()
    with replaced():
        for seed in seeds:
            figures.seeds += 1
            try:
                result = Simulation(seed, profile).run()
            except Exception as error:  # of the simulation itself; the other seeds are still worth their time
                figures.violations[seed] = [f"the simulation failed: {error!r}"]
                continue
            figures.steps += len(result.trace)
            figures.reached += result.reached
            figures.digests.append(result.digest)
            if result.violations:
                figures.violations[seed] = result.violations
    return figures


def main() -> int:
    """Return 1 if a guarantee did not hold."""
    from tests.simulation.profiles import PROFILES

    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="simulations of each profile")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="one seed, whose trace is printed")
    parser.add_argument("--profile", choices=PROFILES, help="by default all")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    profiles = [options.profile] if options.profile else list(PROFILES)
    if options.seed is not None:
        return sum(_show(profile, options.seed) for profile in profiles) and 1
    about, seeds = run_info(), range(options.first, options.first + options.seeds)
    found = {}
    with ProcessPoolExecutor(options.processes) as pool:
        for profile in profiles:
            found[profile] = _run(pool, profile, seeds)
    reached = sum((figures.reached for figures in found.values()), Counter[str]())
    _report_situations(reached)
    if not options.profile and options.first == 1:
        _RESULT.write_text(_page(found, options.seeds, about))
    return int(any(figures.violations for figures in found.values()))


def _page(found: dict[str, Figures], seeds: int, about: str) -> str:
    """Return the results of all profiles as Markdown."""
    rows = [
        f"| {profile} | {figures.seeds:,} | {figures.steps:,} | {len(figures.violations)} |"
        for profile, figures in found.items()
    ]
    command = f"make simulate SEEDS={seeds}"
    head = ["| profile | simulations | steps | with violations |", "| --- | ---: | ---: | ---: |"]
    return "\n".join(["# Simulation", "", f"{about}. `{command}`", "", *head, *rows]) + "\n"


def _run(pool: ProcessPoolExecutor, profile: str, seeds: range) -> Figures:
    started, figures = time.perf_counter(), Figures()
    batches = [seeds[at : at + _BATCH] for at in range(0, len(seeds), _BATCH)]
    for batch in pool.map(run_batch, [profile] * len(batches), batches):
        figures.add(batch)
    seconds = time.perf_counter() - started
    digest = hashlib.sha256("".join(figures.digests).encode()).hexdigest()[:16]
    _say(
        f"{profile:10} {figures.seeds:6} seeds {figures.steps:9} steps {seconds:5.0f} s {figures.seeds / seconds:5.0f} "
        f"seeds/s {len(figures.violations):4} with violations, digest {digest}"
    )
    for seed, violations in list(figures.violations.items())[:_MAX_SHOWN]:
        _say(f"  make simulate SEED={seed} PROFILE={profile}: {violations[0]}")
    return figures


def _report_situations(reached: Counter[str]) -> None:
    from tests.simulation.situations import expected

    for situation, count in sorted(reached.items()):
        _say(f"{count:8}  {situation}")
    for situation in sorted(expected() - reached.keys()):
        _say(f"   never  {situation}")


def _show(profile: str, seed: int) -> int:
    """Print the trace of a simulation; return the number of its violations."""
    from tests.simulation.simulation import Simulation
    from tests.simulation.surroundings import replaced

    logging.disable()
    with replaced():
        result = Simulation(seed, profile).run()
    _say("\n".join(result.trace))
    _say(f"{profile} {seed}: {len(result.violations)} violations, digest {result.digest}")
    for violation in result.violations:
        _say(f"  {violation}")
    return len(result.violations)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # otherwise the order of sets differs between runs
        command = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": "0"})
    sys.exit(main())
