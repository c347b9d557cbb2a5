"""The code, the date and the machine of a measurement, as each page of results names them."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGE = "airflow_provider_ideogram"


def commit_and_date() -> str:
    """Return the commit of the package, and today's date in UTC."""
    return f"{package_commit(_ROOT)}, {datetime.now(UTC):%Y-%m-%d}"


def run_info() -> str:
    """Return the package's commit, the date, the machine and its load, without a full stop."""
    return (
        f"Package of commit {commit_and_date()}, {os.cpu_count()} cores ({platform.machine()}), "
        f"Python {platform.python_version()}, load before the run {os.getloadavg()[0]:.1f}"
    )


def package_commit(folder: Path) -> str:
    """
    Return the short id of the last commit that changed the package, with "and changes" if its files differ from it.

    Commits that change tests, pages or figures only leave it as it is.

    :param folder: the root of the working tree; "unknown" is returned if it is not one of git.
    """
    found = _git(folder, "log", "--max-count=1", "--abbrev=9", "--format=%h", "--", _PACKAGE)
    if found.returncode:
        return "unknown"
    changed = _git(folder, "diff", "--quiet", "HEAD", "--", _PACKAGE).returncode
    return found.stdout.strip() + (" and changes" if changed else "")


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
