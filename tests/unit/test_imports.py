from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

from airflow_provider_ideogram import api
from tests.support.airflow_version import AIRFLOW

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
