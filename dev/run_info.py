"""The commit, the date and the machine of a measurement, as each page of results names them."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
#: What a measurement writes, or only describes; a change in it does not change what is measured.
_RESULTS = (":!benchmarks/results", ":!docs", ":!*.md")


def commit_and_date() -> str:
    """Return the commit of the working tree, and today's date in UTC."""
    return f"{commit(_ROOT)}, {datetime.now(UTC):%Y-%m-%d}"


def run_info() -> str:
    """Return the commit, the date, the machine and its load, without a full stop."""
    return (
        f"Commit {commit_and_date()}, {os.cpu_count()} cores ({platform.machine()}), "
        f"Python {platform.python_version()}, load before the run {os.getloadavg()[0]:.1f}"
    )


def commit(folder: Path) -> str:
    """
    Return the short id of the commit, with "and changes" if files that are measured differ from it.

    :param folder: the root of the working tree; "unknown" is returned if it is not one of git.
    """
    found = _git(folder, "rev-parse", "--short=9", "HEAD")
    if found.returncode:
        return "unknown"
    changed = _git(folder, "diff", "--quiet", "HEAD", "--", ".", *_RESULTS).returncode
    return found.stdout.strip() + (" and changes" if changed else "")


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
