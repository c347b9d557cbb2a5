"""Fuzz the targets one after the other, each in a separate process, and print executions and failures."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from tests.fuzz.target import TARGETS

#: Seconds that a target may take beyond its time, for its imports and the last example.
_GRACE = 120


def main() -> int:
    """Return 1 if a failure was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="for all targets together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(TARGETS)}; all by default")
    options = parser.parse_args()
    names = options.targets or list(TARGETS)
    found = 0
    _say(f"{'target':12}{'engine':>12}{'seconds':>9}{'executions':>12}{'per second':>11}{'failures':>10}")
    for name in names:
        figures = _run(name, options.seconds / len(names), options.seed)
        seconds, executions, failures = figures["seconds"], figures["executions"], figures["failures"]
        pace = executions / seconds
        _say(f"{name:12}{figures['engine']:>12}{seconds:9.0f}{executions:12,}{pace:10.0f}{len(failures):10}")
        for failure in failures:
            _say(f"  {failure}")
        found += len(failures)
    _say(f"{found} distinct failures, seed {options.seed}")
    return int(found > 0)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _run(name: str, seconds: float, seed: int) -> dict[str, Any]:
    """Return a target's figures; a target that crashes or hangs has failed too."""
    command = [sys.executable, "-m", "tests.fuzz.target", name, str(seconds), str(seed)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + _GRACE, check=False)
        last = ended.stdout.splitlines()[-1:] if ended.returncode == 0 else []
        return json.loads(last[0])  # type: ignore[no-any-return]
    except subprocess.TimeoutExpired:
        what = f"did not end within {seconds + _GRACE:.0f} s"
    except (IndexError, ValueError):
        what = f"ended with {ended.returncode}: {ended.stderr[-2000:]}"
    return {"engine": "-", "seconds": seconds, "executions": 0, "failures": [what]}


if __name__ == "__main__":
    sys.exit(main())
