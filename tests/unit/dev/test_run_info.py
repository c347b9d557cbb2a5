from __future__ import annotations

import subprocess
from pathlib import Path

from dev.run_info import commit


def _git(folder: Path, *arguments: str) -> None:
    author = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True)


def test_changed_code_is_named_and_changed_results_are_not(tmp_path: Path) -> None:
    for name in ("code.py", "docs/page.md", "benchmarks/results/plot.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    _git(tmp_path, "init")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "--message", "all")
    clean = commit(tmp_path)
    for name in ("docs/page.md", "benchmarks/results/plot.png"):
        (tmp_path / name).write_text("new")

    assert commit(tmp_path) == clean

    (tmp_path / "code.py").write_text("new")
    assert commit(tmp_path) == f"{clean} and changes"


def test_folder_without_git_has_an_unknown_commit(tmp_path: Path) -> None:
    assert commit(tmp_path) == "unknown"
