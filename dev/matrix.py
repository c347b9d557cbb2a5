"""
The test suite and an end-to-end DAG on each supported version of Airflow and a pre-release, and a table of results.

Each version has its own environment, which uv resolves anew: the newest patch, and the newest version of each other
package that permits it. `lowest` has the lowest stated version of each of the package's own requirements. With
`--browser` the tests in Chromium are run instead, whose result is printed only.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

from dev.airflow_cluster import clean_environment
from dev.run_info import commit_and_date

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / ".venv-matrix"
DOCUMENT = ROOT / "docs" / "versions.md"
LOWEST = "lowest"
# Versions of Airflow, with a version of Python unless it is PYTHON.
VERSIONS = ("2.11", "3.0", "3.1", "3.2", "3.3", "3.3-py3.12", "3.3-py3.13", "3.4", LOWEST)
# The packages of a version that is not released yet, and so not supported yet.
PRE_RELEASES = {"3.4": ["apache-airflow==3.4.0b2", "apache-airflow-core==3.4.0b2", "apache-airflow-task-sdk==1.4.0b2"]}
# Packages that a version of Airflow permits but does not work with.
LIMITS = {
    "3.0": ["fastapi<0.118", "pyjwt<2.11", "universal-pathlib<0.3"],
    "3.2": ["fastapi<0.137"],
    LOWEST: ["universal-pathlib<0.3"],
}
EXTRAS = "emulator,parquet,socks"
# The newest version that all versions of Airflow support; the table names the patch.
PYTHON = "3.11"
BEGIN, END = "<!-- `make matrix` writes the table from here -->", "<!-- to here -->"
HEADER = ("Airflow", "Python", "with", "tests", "skipped", "end-to-end DAG", "package of commit, date")


@dataclass(frozen=True)
class SuiteResult:
    """The result of the test suite."""

    passed: int
    failed: int
    skipped: Counter[str]
    seconds: float

    def __str__(self) -> str:
        """Return the cell of the table."""
        return f"{self.passed} passed, {self.failed} failed in {self.seconds:.0f} s"


@dataclass(frozen=True)
class DagResult:
    """The result of the end-to-end DAG, and the last line that it printed."""

    passed: bool
    message: str
    seconds: float

    def __str__(self) -> str:
        """Return the cell of the table."""
        return f"{'passed' if self.passed else 'failed'} in {self.seconds:.0f} s: {self.message}"


class Environment:
    """
    One version's Python environment.

    :param version: one of :data:`VERSIONS`.
    :param uv: the path of uv.
    """

    def __init__(self, version: str, uv: str) -> None:
        self.version = version
        self._airflow, _, python = version.partition("-py")
        self._python_version = python or PYTHON
        self.folder = ENVIRONMENTS / version
        self._python = self.folder / "bin" / "python"
        self._uv = uv

    def install(self) -> None:
        """Create it anew; raise CalledProcessError if the requirements can't be satisfied."""
        self._run_uv("venv", "--clear", "--python", self._python_version, str(self.folder))
        if self.version == LOWEST:
            airflow = ["--constraints", self._lowest_versions()]
        else:
            newest = PRE_RELEASES.get(self._airflow, [f"apache-airflow=={self._airflow}.*"])
            airflow = [*newest, *LIMITS.get(self._airflow, ())]
        packages = [*airflow, "--requirements", "requirements-dev.in", "--editable", f".[{EXTRAS}]"]
        self._run_uv("pip", "install", "--compile-bytecode", "--python", str(self._python), *packages)

    def _lowest_versions(self) -> str:
        """Write a file with the lowest versions that the package permits, and return its path."""
        lowest, limits = self.folder / "lowest.txt", self.folder / "limits.txt"
        limits.write_text("\n".join(LIMITS[LOWEST]))
        options = ["--resolution", "lowest-direct", "--python-version", PYTHON, "--no-emit-index-url"]
        options += [f"--extra={extra}" for extra in EXTRAS.split(",")]
        options += ["--constraints", str(limits), "--output-file", str(lowest)]
        self._run_uv("pip", "compile", *options, "pyproject.toml")
        return str(lowest)

    @cached_property
    def packages(self) -> dict[str, str]:
        """The version of each installed package, and of Python."""
        listed = self._run_uv("pip", "list", "--format", "json", "--python", str(self._python))
        command = [str(self._python), "-c", "import platform; print(platform.python_version())"]
        python = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        return {package["name"]: package["version"] for package in json.loads(listed)} | {"python": python}

    def run_tests(self) -> SuiteResult:
        """Run the test suite but the tests in Chromium."""
        return self._run_pytest("--numprocesses=auto", "--dist=worksteal", "--ignore=tests/browser")

    def run_browser_tests(self) -> SuiteResult:
        """Run the tests in Chromium."""
        return self._run_pytest("tests/browser")

    def _run_pytest(self, *options: str) -> SuiteResult:
        report = self.folder / "tests.xml"
        report.unlink(missing_ok=True)
        self._run("tests.log", "pytest", *options, "-p", "no:cacheprovider", f"--junit-xml={report}")
        return read_report(report)

    def run_dag(self) -> DagResult:
        """Run the end-to-end DAG."""
        began = time.monotonic()
        status = self._run("end-to-end.log", "dev.end_to_end")
        lines = (self.folder / "end-to-end.log").read_text().strip().splitlines()
        # After a failure, the first line names it.
        return DagResult(status == 0, lines[-1] if status == 0 else lines[0], time.monotonic() - began)

    def _run(self, log: str, *module: str) -> int:
        """Run a module with a separate Airflow home, and return the exit status."""
        home = self.folder / "airflow-home"
        shutil.rmtree(home, ignore_errors=True)
        with (self.folder / log).open("w") as output:
            return subprocess.run(
                [str(self._python), "-m", *module],
                cwd=ROOT,
                env=clean_environment() | {"AIRFLOW_HOME": str(home)},
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode

    def _run_uv(self, *arguments: str) -> str:
        command = [self._uv, "--quiet", *arguments]
        return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def main(arguments: Sequence[str]) -> int:
    """Check the versions one after the other, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uv", required=True, help="the path of uv")
    parser.add_argument("--browser", action="store_true", help="run the tests in Chromium instead")
    parser.add_argument("versions", nargs="*", default=VERSIONS, metavar="version", help=f"of {', '.join(VERSIONS)}")
    options = parser.parse_args(arguments)
    if unknown := set(options.versions) - set(VERSIONS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(VERSIONS)}")
    failed = False
    for version in options.versions:
        environment = Environment(version, options.uv)
        print(f"{version}: installing into {environment.folder}", flush=True)
        environment.install()
        if options.browser:
            browser = environment.run_browser_tests()
            skipped = "; ".join(f"{what}: {count}" for what, count in browser.skipped.items())
            print(f"{version}: in Chromium {browser}; skipped: {skipped or 'none'}", flush=True)
            failed = failed or browser.failed > 0
            continue
        print(f"{version}: running the tests", flush=True)
        tests = environment.run_tests()
        print(f"{version}: {tests}; running the end-to-end DAG", flush=True)
        dag = environment.run_dag()
        print(f"{version}: {dag}", flush=True)
        failed = failed or tests.failed > 0 or not dag.passed
        DOCUMENT.write_text(with_row(DOCUMENT.read_text(), row(version, environment.packages, tests, dag)))
    return int(failed)


def read_report(report: Path) -> SuiteResult:
    """Read pytest's JUnit report; without a test, as when pytest could not start, it counts as a failure."""
    if not report.exists():
        return SuiteResult(0, 1, Counter(), 0.0)
    [suite] = ElementTree.parse(report).getroot().iter("testsuite")
    count = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    if not count["tests"]:
        return SuiteResult(0, 1, Counter(), float(suite.attrib["time"]))
    failed = count["failures"] + count["errors"]
    skipped = Counter(missing(case, skip) for case in suite.iter("testcase") for skip in case.iter("skipped"))
    return SuiteResult(count["tests"] - failed - count["skipped"], failed, skipped, float(suite.attrib["time"]))


def missing(case: ElementTree.Element, skip: ElementTree.Element) -> str:
    """Return what a skipped test needs, from the text of `tests.support.airflow_version`."""
    found = re.search(r"has no (.*?), which came with ([\d.]+)", skip.text or "")
    what = f"{found[1]} ({found[2]})" if found else skip.attrib["message"]
    return what if case.attrib["classname"] else f"{what}, all of {case.attrib['name']}"


def row(version: str, packages: dict[str, str], tests: SuiteResult, dag: DagResult) -> str:
    """Return a line of the table."""
    airflow = packages["apache-airflow"] + (", the lowest of all" if version == LOWEST else "")
    others = (f"{name.removeprefix('apache-airflow-providers-')} {packages[name]}" for name in required())
    results = (str(tests), _folded(tests.skipped), str(dag), commit_and_date())
    return _line((airflow, packages["python"], ", ".join(others), *results))


def _folded(skipped: Counter[str]) -> str:
    """Return the number of skipped tests as HTML that unfolds to the reasons."""
    reasons = "; ".join(f"{reason}: {count}" for reason, count in skipped.items())
    return f"<details><summary>{skipped.total()}</summary>{reasons}</details>" if skipped else "0"


def required() -> list[str]:
    """Return the names of the package's requirements except Airflow."""
    stated: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [re.split(r"[^\w-]", requirement, maxsplit=1)[0] for requirement in stated]
    return [name for name in names if name != "apache-airflow"]


def with_row(document: str, new: str) -> str:
    """Put a line into the document's table; it replaces the line of the same version."""
    before, table, after = re.split(f"({re.escape(BEGIN)}.*{re.escape(END)})", document, flags=re.DOTALL)
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    kept = [line for line in rows if _sort_key(line) != _sort_key(new)]
    lines = [_line(HEADER), "|---" * len(HEADER) + "|", *sorted([*kept, new], key=_sort_key)]
    return "\n".join([before + BEGIN, "", *lines, "", END + after])


def _sort_key(line: str) -> tuple[bool, list[list[int]]]:
    """Return the sort key of a row: major and minor versions, `lowest` at the end."""
    airflow, python = line.split("|")[1:3]
    return "lowest" in airflow, [
        [int(part) for part in version.split(",")[0].split(".")[:2]] for version in (airflow, python)
    ]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
