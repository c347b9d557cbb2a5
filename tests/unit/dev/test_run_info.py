from __future__ import annotations

import subprocess
from pathlib import Path

from dev.run_info import package_commit

_PACKAGE = "airflow_provider_ideogram"


def _commit_all(folder: Path) -> None:
    author = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for command in (("init",), ("add", "."), (*author, "commit", "--message", "all")):
        subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True)


def test_changed_package_is_named_and_other_changes_are_not(tmp_path: Path) -> None:
    module, page = tmp_path / _PACKAGE / "module.py", tmp_path / "docs" / "page.md"
    for file in (module, page):
        file.parent.mkdir()
        file.write_text("")
    _commit_all(tmp_path)
    clean = package_commit(tmp_path)
    page.write_text("new")

    assert package_commit(tmp_path) == clean
    _commit_all(tmp_path)
    assert package_commit(tmp_path) == clean

    module.write_text("new")
    assert package_commit(tmp_path) == f"{clean} and changes"
    _commit_all(tmp_path)
    assert clean not in package_commit(tmp_path)


def test_folder_without_git_has_an_unknown_commit(tmp_path: Path) -> None:
    assert package_commit(tmp_path) == "unknown"
