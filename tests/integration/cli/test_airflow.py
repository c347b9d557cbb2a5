"""The commands as Airflow's own command line runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from airflow_provider_ideogram.cli.commands import commands
from tests.support.airflow_version import need_airflow

need_airflow("3.2", "commands of providers")


def test_airflow_lists_the_commands() -> None:
    airflow = Path(sys.executable).with_name("airflow")
    done = subprocess.run([airflow, "ideogram", "--help"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert all(command.name in done.stdout for command in commands())
    assert "Failed to load" not in done.stdout + done.stderr
