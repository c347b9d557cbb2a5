"""Sizes that the linter does not check: short modules, and names of tests that can be read at once."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: The most lines of a module, by folder.
MAX_LINES = {"airflow_provider_ideogram": 400, "dev": 400, "benchmarks": 400, "tests": 500}
MAX_TEST_NAME = 60

MODULES = {folder: sorted((ROOT / folder).rglob("*.py")) for folder in MAX_LINES}


@pytest.mark.parametrize(("folder", "max_lines"), MAX_LINES.items())
def test_modules_are_short(folder: str, max_lines: int) -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES[folder]}
    assert lines
    assert {name: count for name, count in lines.items() if count > max_lines} == {}


def test_names_of_tests_are_short() -> None:
    names = {
        node.name
        for path in MODULES["tests"]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
    assert len(names) > 500
    assert sorted(name for name in names if len(name) > MAX_TEST_NAME) == []


def test_files_of_tests_do_not_repeat_their_folder() -> None:
    repeated = [path for path in MODULES["tests"] if path.stem.startswith(f"test_{path.parent.name}_")]
    assert repeated == []
