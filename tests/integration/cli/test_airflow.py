"""The commands as Airflow's own command line runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from airflow.providers_manager import ProvidersManager

from airflow_provider_ideogram.cli.commands import commands

if not hasattr(ProvidersManager, "cli_command_functions"):
    pytest.skip("this version of Airflow takes no commands of providers", allow_module_level=True)


def test_airflow_lists_the_commands() -> None:
    airflow = Path(sys.executable).with_name("airflow")
    done = subprocess.run([airflow, "ideogram", "--help"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert all(command.name in done.stdout for command in commands())
    assert "Failed to load" not in done.stdout + done.stderr
