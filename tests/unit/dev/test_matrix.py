from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dev import matrix, run_info
from dev.matrix import BEGIN, END, DagResult, SuiteResult

REPORT = """<?xml version="1.0"?><testsuites><testsuite errors="1" failures="2" skipped="3" tests="10" time="61.5">
<testcase classname="" name="tests.unit.ui"><skipped message="collection skipped"
  >('version.py', 25, 'Skipped: Airflow 3.0 has no tabs, which came with 3.1')</skipped></testcase>
<testcase classname="test_retries" name="a"><skipped message="Airflow 3.0 has no policies, which came with 3.3"
  >test_retries.py:7: Airflow 3.0 has no policies, which came with 3.3</skipped></testcase>
<testcase classname="test_retries" name="b"><skipped message="Airflow 3.0 has no policies, which came with 3.3"
  >test_retries.py:9: Airflow 3.0 has no policies, which came with 3.3</skipped></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def packages() -> dict[str, str]:
    return {"apache-airflow": "3.0.6", "python": "3.11.7"} | dict.fromkeys(matrix.required(), "1.2")


def test_report_counts_tests_and_missing_features(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    report.write_text(REPORT)

    tests = matrix.read_report(report)

    assert str(tests) == "4 passed, 3 failed in 62 s"
    assert tests.skipped == {"tabs (3.1), all of tests.unit.ui": 1, "policies (3.3)": 2}


def test_missing_or_empty_report_is_a_failure(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    assert matrix.read_report(report).failed == 1
    report.write_text('<testsuites><testsuite errors="0" failures="0" skipped="0" tests="0" time="10.1"/></testsuites>')
    assert matrix.read_report(report).failed == 1


def test_row_has_versions_and_results(packages: dict[str, str]) -> None:
    tests = SuiteResult(2, 1, Counter({"policies (3.3)": 3, "helm": 1}), 9.6)
    dag = DagResult(False, "a task failed", 70.2)

    line = matrix.row("3.0", packages, tests, dag)

    airflow, python, others, *outcome, measured_on = [cell.strip() for cell in line.strip("|").split("|")]
    assert (airflow, python) == ("3.0.6", "3.11.7")
    assert "amazon 1.2, common-compat 1.2" in others
    skipped = "<details><summary>4</summary>policies (3.3): 3; helm: 1</details>"
    assert outcome == ["2 passed, 1 failed in 10 s", skipped, "failed in 70 s: a task failed"]
    assert measured_on == run_info.commit_and_date()


def test_row_replaces_that_of_its_version_in_order(packages: dict[str, str]) -> None:
    document = f"before\n{BEGIN}\n{END}\nafter\n"
    outcome = (SuiteResult(1, 0, Counter(), 1.0), DagResult(True, "fine", 1.0))
    for version, installed in {"3.0": "3.0.6", "lowest": "2.11.0", "2.11": "2.11.1", "3.1": "3.1.8"}.items():
        document = matrix.with_row(document, matrix.row(version, packages | {"apache-airflow": installed}, *outcome))

    for python in ("3.13.0", "3.12.1"):
        document = matrix.with_row(document, matrix.row(f"3.0-py{python}", packages | {"python": python}, *outcome))

    document = matrix.with_row(document, matrix.row("2.11", packages | {"apache-airflow": "2.11.2"}, *outcome))

    cells = [line.split("|")[1:3] for line in document.splitlines() if line.startswith("| ")][1:]
    assert [(airflow.strip(), python.strip()) for airflow, python in cells] == [
        ("2.11.2", "3.11.7"),
        ("3.0.6", "3.11.7"),
        ("3.0.6", "3.12.1"),
        ("3.0.6", "3.13.0"),
        ("3.1.8", "3.11.7"),
        ("2.11.0, the lowest of all", "3.11.7"),
    ]
    assert document.startswith("before\n")
    assert document.endswith("\nafter\n")


def test_unknown_version_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        matrix.main(["--uv", "uv", "2.10"])
    assert "unknown: 2.10; there are 2.11, 3.0" in capsys.readouterr().err


def test_browser_tests_leave_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tests = SuiteResult(2, 0, Counter({"tabs (3.2)": 1}), 9.6)
    monkeypatch.setattr(matrix.Environment, "install", lambda _: None)
    monkeypatch.setattr(matrix.Environment, "run_browser_tests", lambda _: tests)
    monkeypatch.setattr(matrix, "DOCUMENT", tmp_path / "none.md")
    assert matrix.main(["--browser", "--uv", "uv", "3.1"]) == 0
    assert "3.1: in Chromium 2 passed, 0 failed in 10 s; skipped: tabs (3.2): 1" in capsys.readouterr().out
