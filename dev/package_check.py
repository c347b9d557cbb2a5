"""
The checks of `make package` of the wheel and the sdist that it built.

The wheel is installed in `.venv-package` with its own requirements only, without the tools of the project's development
and tests.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Set
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from functools import cached_property
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from airflow_provider_ideogram import __version__
from dev.airflow_cluster import clean_environment

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "airflow_provider_ideogram"
DISTRIBUTION = "airflow-provider-ideogram"
CLEAN_BIN = ROOT / ".venv-package" / "bin"
#: Files of the repository that the sdist leaves out: neither the build nor a test reads them.
LEFT_OUT = (".ci/",)
PROJECT_URLS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
#: The expected METADATA; the build backend and twine check its form.
METADATA = {
    "Name": [DISTRIBUTION],
    "Version": [__version__],
    "License-Expression": ["Apache-2.0"],
    "License-File": ["LICENSE"],
    "Description-Content-Type": ["text/markdown"],
    "Provides-Extra": ["emulator", "parquet", "socks"],
    "Project-URL": [f"{label}, {url}" for label, url in PROJECT_URLS.items()],
}
COMMAND_SECONDS = 300.0

#: Each script prints a list of problems as JSON in its last line, after what Airflow prints.
FIND_TEST_TOOLS = """
import importlib.util, json
print(json.dumps([name for name in ("moto", "pytest", "segmind", "sphinx") if importlib.util.find_spec(name)]))
"""
#: Modules that import an optional package.
NEED_OPTIONAL_PACKAGES = (f"{PACKAGE}.emulator", f"{PACKAGE}.operators.openlineage")
IMPORT_ALL = f"""
import importlib, json, pkgutil
import {PACKAGE}
problems = []
for module in pkgutil.walk_packages({PACKAGE}.__path__, "{PACKAGE}."):
    if not module.name.startswith({NEED_OPTIONAL_PACKAGES}):
        try:
            importlib.import_module(module.name)
        except Exception as problem:
            problems.append(f"{{module.name}}: {{problem!r}}")
print(json.dumps(problems))
"""
PARSE_EXAMPLES = f"""
import json
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(dag_folder={str(ROOT / "example_dags")!r})
print(json.dumps([*bag.import_errors.values()] if bag.dags else ["there is no DAG"]))
"""


@dataclass(frozen=True)
class Built:
    """
    The wheel and the sdist.

    :param wheel: the wheel's file.
    :param sdist: the sdist's file.
    :param tracked: the repository's files.
    """

    wheel: Path
    sdist: Path
    tracked: Set[str]

    @cached_property
    def wheel_files(self) -> set[str]:
        """The package's own files in the wheel."""
        with zipfile.ZipFile(self.wheel) as archive:
            return {name for name in archive.namelist() if ".dist-info/" not in name}

    @cached_property
    def sdist_files(self) -> set[str]:
        """The files in the sdist, below its one folder."""
        with tarfile.open(self.sdist) as archive:
            return {member.name.partition("/")[2] for member in archive if member.isfile()}

    @cached_property
    def metadata(self) -> Message:
        """The wheel's METADATA."""
        with zipfile.ZipFile(self.wheel) as archive:
            [name] = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            return message_from_bytes(archive.read(name))


def sdist_is_the_repository(built: Built) -> list[str]:
    """Return the files that the sdist lacks of the repository, or has in addition."""
    wanted = {name for name in built.tracked if not name.startswith(LEFT_OUT)}
    return _differences(built.sdist_files - {"PKG-INFO"}, wanted)


def wheel_is_the_package(built: Built) -> list[str]:
    """Return the files that the wheel lacks of the package, or has in addition."""
    return _differences(built.wheel_files, {name for name in built.tracked if name.startswith(f"{PACKAGE}/")})


def _differences(found: set[str], wanted: set[str]) -> list[str]:
    return [f"missing: {name}" for name in sorted(wanted - found)] + [
        f"not in git: {name}" for name in sorted(found - wanted)
    ]


def metadata_is_right(built: Built) -> list[str]:
    """Return the differences from the expected metadata."""
    problems = []
    for name, wanted in METADATA.items():
        if (found := built.metadata.get_all(name, [])) != wanted:
            problems.append(f"{name}: {found}, not {wanted}")
    allowed = SpecifierSet(built.metadata["Requires-Python"])
    classifiers = "\n".join(built.metadata.get_all("Classifier", []))
    pythons = re.findall(r"^Programming Language :: Python :: (3\.\d+)$", classifiers, re.MULTILINE)
    if not pythons or not all(allowed.contains(version) for version in pythons):
        problems.append(f"the classifiers name Python {', '.join(pythons) or 'nowhere'}, allowed is {allowed}")
    return problems


def nothing_is_required_for_tests(built: Built) -> list[str]:
    """Return the run-time requirements that are development tools."""
    lines = (ROOT / "requirements-dev.in").read_text().splitlines()
    development = {Requirement(line).name for line in lines if line and not line.startswith("#")}
    required = map(Requirement, built.metadata.get_all("Requires-Dist", []))
    return [str(requirement) for requirement in required if requirement.name in development and not requirement.marker]


def environment_is_clean(_: Built) -> list[str]:
    """Return the test tools that were installed with the wheel."""
    return _problems_of(FIND_TEST_TOOLS)


def modules_are_imported(_: Built) -> list[str]:
    """Return the modules that fail to import with the run-time requirements, without those of optional packages."""
    return _problems_of(IMPORT_ALL)


def examples_are_parsed(_: Built) -> list[str]:
    """Return the import errors of the example DAGs."""
    return _problems_of(PARSE_EXAMPLES)


def airflow_lists_the_provider(_: Built) -> list[str]:
    """Return the output of `airflow providers get` if it lacks the version or the connection type."""
    output = _run("airflow", "providers", "get", DISTRIBUTION, "--full", "--output", "json")
    return [] if f'"{__version__}"' in output and '"connection-types"' in output else [output]


def _problems_of(script: str) -> list[str]:
    problems: list[str] = json.loads(_run("python", "-c", script).splitlines()[-1])
    return problems


def _run(program: str, *arguments: str) -> str:
    """Run a program of the clean environment, without access to the checkout and to the user's Airflow."""
    with tempfile.TemporaryDirectory() as home:
        environment = clean_environment() | {"AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        done = subprocess.run(
            [CLEAN_BIN / program, *arguments],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
    if done.returncode:
        raise SystemExit(f"{program} {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}{done.stdout}")
    return done.stdout


CHECKS: dict[str, Callable[[Built], list[str]]] = {
    "the sdist is the repository": sdist_is_the_repository,
    "the wheel is the package": wheel_is_the_package,
    "the metadata is right": metadata_is_right,
    "nothing is required for tests": nothing_is_required_for_tests,
    "no test tool is installed with it": environment_is_clean,
    "all modules without optional packages are imported": modules_are_imported,
    "airflow providers get shows it": airflow_lists_the_provider,
    "the example DAGs are parsed": examples_are_parsed,
}


def report(built: Built) -> int:
    """Print a line for each check and each problem, and return how many problems there are."""
    count = 0
    for title, check in CHECKS.items():
        problems = check(built)
        count += len(problems)
        print(f"{'FAILED' if problems else 'ok':6} {title}", *problems, sep="\n       - ", flush=True)
    return count


def main() -> int:
    """Check what is in `dist/`; return 1 if anything is wrong with it."""
    [wheel], [sdist] = ROOT.glob("dist/*.whl"), ROOT.glob("dist/*.tar.gz")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return 1 if report(Built(wheel, sdist, frozenset(listed.stdout.splitlines()))) else 0


if __name__ == "__main__":
    sys.exit(main())
