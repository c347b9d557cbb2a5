"""What modules import: only lower layers, nothing in circles, and nothing heavy where DAG files are parsed."""

from __future__ import annotations

import ast
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import airflow_provider_ideogram
from airflow_provider_ideogram import api
from tests.support.airflow_version import AIRFLOW

PACKAGE = "airflow_provider_ideogram"
ROOT = Path(airflow_provider_ideogram.__file__).parent

#: Packages and modules, the lowest first. Each imports from lower layers only; those of one layer are independent.
LAYERS = (
    {"exceptions"},
    {"api"},
    {"hooks", "retries", "emulator"},
    {"storage", "triggers", "get_provider_info"},
    {"links", "metrics"},
    {"jobs", "account"},
    {"datasets", "reviews"},
    {"operators"},
    {"sensors", "decorators", "ui", "cli", "preload"},
)
_LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


_MODULES = {_module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def _imports(module: str) -> Iterator[str]:
    """Yield the package's modules that a module imports, also in functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(_MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in _MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in _MODULES or node.module in _MODULES:
                    yield name if name in _MODULES else str(node.module)


def _part(module: str) -> str:
    """Return the first part of a module's name below the package, "" for the package itself."""
    return module.removeprefix(PACKAGE).removeprefix(".").partition(".")[0]


@pytest.mark.parametrize("module", [name for name in _MODULES if name != PACKAGE])
def test_module_imports_lower_layers_only(module: str) -> None:
    part = _part(module)
    for imported in _imports(module):
        other = _part(imported)
        if other not in ("", part):
            assert _LEVELS[other] < _LEVELS[part], f"{module} imports {imported}"


def test_nothing_imports_the_emulator() -> None:
    importers = {name for name in _MODULES for imported in _imports(name) if _part(imported) == "emulator"}
    assert {_part(name) for name in importers} == {"emulator"}


def test_imports_have_no_circles() -> None:
    graph = {module: set(_imports(module)) - {module} for module in _MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(_MODULES)


_LOADED_BY = """
import importlib, json, sys
for name in {before!r}:
    importlib.import_module(name)
before = set(sys.modules)
for name in {imported!r}:
    importlib.import_module(name)
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def _loaded_by(*imported: str, before: tuple[str, ...] = ()) -> set[str]:
    """Return the modules that a fresh interpreter loads for these, on top of what it loads for those before."""
    script = _LOADED_BY.format(before=before, imported=imported)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_dag_file_that_imports_the_operators_stays_cheap() -> None:
    what_dag_files_import = [
        f"airflow_provider_ideogram.{name}" for name in ("operators", "sensors", "decorators.ideogram")
    ]
    every_dag_file = "airflow.sdk" if AIRFLOW >= (3, 0) else "airflow.models.baseoperator"
    loaded = _loaded_by(*what_dag_files_import, before=(every_dag_file,))
    heavy = {"aiohttp", "httpx", "httpx_aiohttp", "boto3", "botocore", "PIL", "moto", "sqlalchemy"}
    assert not heavy & {name.partition(".")[0] for name in loaded}
    own = {name.removeprefix("airflow_provider_ideogram.") for name in loaded}
    assert {"operators.image", "sensors.request", "decorators.ideogram", "storage.target"} <= own
    assert not {name for name in own if name.startswith(("hooks.", "triggers.", "emulator."))}
    assert {name for name in own if name.startswith("storage.")} == {"storage.target"}
    assert not {name for name in loaded if name.startswith("airflow.providers.amazon")}


@pytest.mark.slow
def test_preload_imports_what_a_task_needs() -> None:
    own = ("account.account", "datasets.runner", "hooks.download", "jobs.submission", "jobs.completion", "triggers")
    needed = {"boto3", "httpx", "PIL.WebPImagePlugin", *(f"airflow_provider_ideogram.{name}" for name in own)}
    assert needed <= _loaded_by("airflow_provider_ideogram.preload")


def test_protocol_is_free_of_airflow_and_of_http_clients() -> None:
    modules = [f"{api.__name__}.{module.name}" for module in pkgutil.iter_modules(api.__path__)]
    assert f"{api.__name__}.calls" in modules
    loaded = {name.partition(".")[0] for name in _loaded_by(*modules)}
    assert loaded - sys.stdlib_module_names == {"airflow_provider_ideogram"}


def test_metadata_is_read_without_http() -> None:
    script = "import airflow_provider_ideogram.get_provider_info as info; info.get_provider_info()"
    heavy = ["airflow", "httpx", "aiohttp", "boto3", "PIL"]
    check = f"{script}; import sys; assert not set({heavy!r}) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=120)
