"""
The guarantees hold in some simulations of each profile; ``make simulate`` runs more.

Each run has a process of its own: coverage can't follow routines that change over, and the order of sets must be fixed.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.airflow_version import need_airflow

need_airflow("3.0", "task SDK, whose scheduling is simulated")

#: Simulations of a profile, a few seconds each.
SEEDS = {"image": 100, "decorator": 100, "sensor": 100, "dataset": 60, "mixed": 60}

#: Two tasks write over each other's intents.
PLANTED = """
from airflow_provider_ideogram.jobs.ledger import Ledger, LedgerRecord
from tests.simulation.__main__ import run_batch

def write_intent(self, key, intent):
    return self._put(LedgerRecord(key, "", intent), if_match=None, conditional=False)

Ledger.write_intent = write_intent
found = run_batch("image", range(1, 101)).violations
print(sorted({text.split(": ")[1].split()[1] for texts in found.values() for text in texts if "pays again" in text}))
"""


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, env=env | {"PYTHONHASHSEED": "0"}, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("profile", SEEDS)
def test_guarantees_hold(profile: str) -> None:
    ended = _run("-m", "tests.simulation", "--profile", profile, "--seeds", str(SEEDS[profile]), "--processes", "1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{SEEDS[profile]} seeds" in ended.stdout
    if profile == "image":  # in which this happens often
        assert "never  history: does not show a request yet" not in ended.stdout


def test_a_seed_decides_everything() -> None:
    first, second = (_run("-m", "tests.simulation", "--profile", "mixed", "--seed", "11") for _ in range(2))
    assert "digest" in first.stdout, first.stderr
    assert first.stdout == second.stdout
    assert first.stdout != _run("-m", "tests.simulation", "--profile", "mixed", "--seed", "12").stdout


@pytest.mark.parametrize(("profile", "seed"), [("image", 46158), ("mixed", 35345)])
def test_seeds_that_had_violations_have_none(profile: str, seed: int) -> None:
    ended = _run("-m", "tests.simulation", "--profile", profile, "--seed", str(seed))
    assert f"{profile} {seed}: 0 violations" in ended.stdout, ended.stderr


def test_a_planted_fault_is_found() -> None:
    ended = _run("-c", PLANTED)
    assert ended.stdout.strip() == "['pays']", ended.stdout + ended.stderr
