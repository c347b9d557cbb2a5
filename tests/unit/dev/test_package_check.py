from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from airflow_provider_ideogram import __version__
from dev import package_check
from dev.package_check import PACKAGE, Built

TRACKED = frozenset({"Makefile", "tests/test_it.py", ".ci/run", f"{PACKAGE}/__init__.py", f"{PACKAGE}/py.typed"})
PROJECT_URLS = "\n".join(f"Project-URL: {url}" for url in package_check.METADATA["Project-URL"])
METADATA = f"""\
Metadata-Version: 2.4
Name: airflow-provider-ideogram
Version: {__version__}
License-Expression: Apache-2.0
License-File: LICENSE
{PROJECT_URLS}
Classifier: Programming Language :: Python :: 3
Classifier: Programming Language :: Python :: 3.12
Requires-Python: >=3.11
Requires-Dist: pillow>=11
Provides-Extra: emulator
Requires-Dist: moto; extra == 'emulator'
Provides-Extra: parquet
Provides-Extra: socks
Description-Content-Type: text/markdown

The text.
"""


Build = Callable[..., Built]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Make a wheel and an sdist with these files and this metadata."""

    def make(
        wheel: Collection[str] = ("__init__.py", "py.typed"), sdist: Collection[str] = (), metadata: str = METADATA
    ) -> Built:
        built = Built(tmp_path / "it.whl", tmp_path / "it.tar.gz", TRACKED)
        with zipfile.ZipFile(built.wheel, "w") as archive:
            for name in wheel:
                archive.writestr(f"{PACKAGE}/{name}", "")
            archive.writestr("it-1.dist-info/METADATA", metadata)
        with tarfile.open(built.sdist, "w:gz") as archive:
            for name in ("PKG-INFO", *sdist):
                archive.addfile(tarfile.TarInfo(f"it-1/{name}"), io.BytesIO())
        return built

    return make


def test_complete_build_has_no_problems(build: Build) -> None:
    built = build(sdist=TRACKED - {".ci/run"})
    assert package_check.sdist_is_the_repository(built) == []
    assert package_check.wheel_is_the_package(built) == []
    assert package_check.metadata_is_right(built) == []
    assert package_check.nothing_is_required_for_tests(built) == []


def test_missing_and_additional_files_are_named(build: Build) -> None:
    built = build(wheel=["__init__.py", "notes.txt"], sdist=["Makefile", f"{PACKAGE}/__pycache__/it.pyc"])
    assert package_check.wheel_is_the_package(built) == [
        f"missing: {PACKAGE}/py.typed",
        f"not in git: {PACKAGE}/notes.txt",
    ]
    problems = package_check.sdist_is_the_repository(built)
    assert "missing: tests/test_it.py" in problems
    assert f"not in git: {PACKAGE}/__pycache__/it.pyc" in problems
    assert not any(".ci" in problem for problem in problems)


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        (f"Version: {__version__}", "Version: 9", "Version: ['9']"),
        ("Provides-Extra: parquet\n", "", "Provides-Extra: ['emulator', 'socks']"),
        ("Python :: 3.12", "Python :: 3.10", "the classifiers name Python 3.10, allowed is >=3.11"),
        ("Classifier: Programming Language :: Python :: 3.12\n", "", "the classifiers name Python nowhere"),
        ("Project-URL: Source, ", "Project-URL: Home, ", "Project-URL: ['Documentation, https"),
    ],
)
def test_wrong_metadata_is_named(build: Build, right: str, wrong: str, problem: str) -> None:
    problems = package_check.metadata_is_right(build(metadata=METADATA.replace(right, wrong)))
    assert any(found.startswith(problem) for found in problems)


def test_requirement_for_tests_is_named(build: Build) -> None:
    metadata = METADATA.replace("pillow>=11", "pytest>=8")
    assert package_check.nothing_is_required_for_tests(build(metadata=metadata)) == ["pytest>=8"]


def test_environment_with_test_tools_is_not_clean(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_check, "CLEAN_BIN", Path(sys.executable).parent)
    assert package_check.environment_is_clean(build()) == ["moto", "pytest", "segmind", "sphinx"]


def test_program_that_fails_ends_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_check, "CLEAN_BIN", Path(sys.executable).parent)
    with pytest.raises(SystemExit, match=r"python -c 1/0 ended with 1:\n(.|\n)*ZeroDivisionError"):
        package_check._run("python", "-c", "1/0")


def test_report_has_a_line_for_each_check(
    build: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks: dict[str, Callable[[Built], list[str]]] = {
        "this is right": lambda _: [],
        "that is wrong": lambda _: ["missing: a", "missing: b"],
    }
    monkeypatch.setattr(package_check, "CHECKS", checks)

    assert package_check.report(build()) == 2
    assert capsys.readouterr().out == (
        "ok     this is right\nFAILED that is wrong\n       - missing: a\n       - missing: b\n"
    )
