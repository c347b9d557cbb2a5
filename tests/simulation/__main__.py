"""Run simulations, print each violation with the command that repeats it, and which situations were never reached."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

#: Seeds that a process runs at a time.
_BATCH = 50
_MAX_SHOWN = 20


@dataclass
class Figures:
    """
    The figures of some simulations.

    :param violations: The violations by seed.
    :param reached: How often each situation was reached.
    :param calls: The lines of all traces.
    """

    seeds: int = 0
    violations: dict[int, list[str]] = field(default_factory=dict)
    reached: Counter[str] = field(default_factory=Counter)
    lines: int = 0

    def add(self, other: Figures) -> None:
        """Add the figures of other simulations."""
        self.seeds += other.seeds
        self.violations |= other.violations
        self.reached += other.reached
        self.lines += other.lines


def run_batch(profile: str, seeds: Sequence[int]) -> Figures:
    """Run some simulations of a profile."""
    from tests.simulation.simulation import Simulation
    from tests.simulation.surroundings import replaced

    logging.disable()
    figures = Figures()
    with replaced():
        for seed in seeds:
            result = Simulation(seed, profile).run()
            figures.seeds += 1
            figures.reached += result.reached
            figures.lines += len(result.trace)
            if result.violations:
                figures.violations[seed] = result.violations
    return figures


def main() -> int:
    """Return 1 if a guarantee did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="simulations of each profile")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="one seed, whose trace is printed")
    parser.add_argument("--profile", default="all")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    from tests.simulation.profiles import PROFILES

    profiles = list(PROFILES) if options.profile == "all" else [options.profile]
    if options.seed is not None:
        return _show(profiles[0], options.seed)
    failed = 0
    with ProcessPoolExecutor(options.processes) as pool:
        for profile in profiles:
            seeds = range(options.first, options.first + options.seeds)
            started = time.perf_counter()
            figures = Figures()
            batches = [seeds[at : at + _BATCH] for at in range(0, len(seeds), _BATCH)]
            for batch in pool.map(run_batch, [profile] * len(batches), batches):
                figures.add(batch)
            _report(profile, figures, time.perf_counter() - started)
            failed += len(figures.violations)
    return int(failed > 0)


def _report(profile: str, figures: Figures, seconds: float) -> None:
    pace = figures.seeds / seconds
    _say(f"{profile}: {figures.seeds} seeds, {figures.lines} steps, {seconds:.0f} s, {pace:.0f} seeds a second, "
         f"{len(figures.violations)} with violations")
    for seed, violations in list(figures.violations.items())[:_MAX_SHOWN]:
        _say(f"  make simulate SEED={seed} PROFILE={profile}: {violations[0]}")
    for situation, count in sorted(figures.reached.items()):
        _say(f"    {count:8} {situation}")


def _show(profile: str, seed: int) -> int:
    from tests.simulation.simulation import Simulation
    from tests.simulation.surroundings import replaced

    logging.disable()
    with replaced():
        result = Simulation(seed, profile).run()
    _say("\n".join(result.trace))
    _say(f"digest {result.digest}")
    for violation in result.violations:
        _say(f"VIOLATION {violation}")
    return int(bool(result.violations))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
