"""The files around the code, which only GitHub and pre-commit read."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev import matrix

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
PRE_COMMIT = ROOT / ".pre-commit-config.yaml"
CI, MATRIX = GITHUB / "workflows" / "ci.yml", GITHUB / "workflows" / "matrix.yml"
BUG_REPORT = GITHUB / "ISSUE_TEMPLATE" / "bug_report.yml"
FEATURE_REQUEST = GITHUB / "ISSUE_TEMPLATE" / "feature_request.yml"


def load(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in load(workflow)["jobs"].values() for step in job["steps"]]


def inputs(workflow: Path, name: str) -> list[str]:
    """Return the values of an input of the workflow's actions."""
    return [step["with"][name] for step in steps(workflow) if name in step.get("with", {})]


def make_targets() -> set[str]:
    [targets] = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return set(targets.split())


def test_make_lists_each_target() -> None:
    listed = re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == make_targets()


@pytest.mark.parametrize("file", [*sorted(GITHUB.rglob("*.yml")), PRE_COMMIT], ids=lambda file: file.name)
def test_yaml_is_valid(file: Path) -> None:
    assert isinstance(load(file), dict)


@pytest.mark.parametrize(
    "file", [ROOT / "CONTRIBUTING.md", *sorted(GITHUB.rglob("*.*")), PRE_COMMIT], ids=lambda file: file.name
)
def test_named_make_targets_exist(file: Path) -> None:
    named = re.findall(r"(?:`|run: |entry: )make (?:--silent )?([a-z0-9-]+)", file.read_text())
    assert set(named) <= make_targets()


@pytest.mark.parametrize(("file", "command"), [(CI, "make test"), (MATRIX, "make matrix")])
def test_workflow_runs_make(file: Path, command: str) -> None:
    assert [step["run"] for step in steps(file) if "run" in step] == [command]


@pytest.mark.parametrize("file", [CI, MATRIX], ids=lambda file: file.name)
def test_workflow_is_restricted(file: Path) -> None:
    workflow = load(file)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    assert all(job["timeout-minutes"] for job in workflow["jobs"].values())
    actions = [step["uses"] for step in steps(file) if "uses" in step]
    assert [action for action in actions if not re.fullmatch(r"actions/[\w-]+@v\d+\.\d+\.\d+", action)] == []


def test_matrix_installs_each_python() -> None:
    [installed] = inputs(MATRIX, "python-version")
    assert set(installed.split()) == {version.partition("-py")[2] or matrix.PYTHON for version in matrix.VERSIONS}


def test_matrix_uploads_its_table() -> None:
    assert str(matrix.DOCUMENT.relative_to(ROOT)) in inputs(MATRIX, "path")


@pytest.mark.parametrize("file", [BUG_REPORT, FEATURE_REQUEST], ids=lambda file: file.name)
def test_issue_form_is_valid(file: Path) -> None:
    form = load(file)
    assert form.keys() == {"name", "description", "labels", "body"}
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"input", "textarea", "dropdown"}
    for names in ([field["id"] for field in fields], [field["attributes"]["label"] for field in fields]):
        assert len(names) == len(set(names))
    # GitHub takes only strings, and YAML reads an unquoted yes or no as a boolean.
    options = [option for field in fields for option in field["attributes"].get("options", [])]
    assert all(isinstance(option, str) for option in options)


def test_bug_report_asks_for_what_a_diagnosis_needs() -> None:
    ids = {field.get("id") for field in load(BUG_REPORT)["body"]}
    assert {"versions", "executor", "deferrable", "charged", "request_id", "log"} <= ids


def test_only_pyproject_has_the_projects_addresses() -> None:
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    patterns = [f"-e{url.removeprefix('https://')}" for url in urls.values()]
    # Without an index, since an sdist is no git repository; its metadata, PKG-INFO, repeats pyproject.toml.
    command = ["git", "grep", "--no-index", "--exclude-standard", "--files-with-matches", "--fixed-strings"]
    found = subprocess.run([*command, *patterns, "--", ":!PKG-INFO"], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.splitlines() == ["pyproject.toml"], found.stderr


def test_links_of_the_readme_are_absolute_on_pypi() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    text = (ROOT / "README.md").read_text()
    for substitution in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(substitution["pattern"], substitution["replacement"], text)

    addresses = re.findall(r"\]\(([^)]+)\)", text)
    own = [address for address in addresses if address.startswith(project["project"]["urls"]["Source"])]
    assert [address for address in addresses if not address.startswith("https://")] == []
    assert [address for address in own if address.endswith(".png")] == [
        address for address in own if "/raw/" in address
    ]
    assert len(own) > 10
