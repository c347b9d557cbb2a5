"""The import of operators in a DAG file, in addition to `airflow.sdk`: milliseconds and modules."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile

ROUNDS = 4
PROVIDER = " ".join(f"airflow_provider_ideogram.{name}" for name in ("operators", "sensors", "decorators.ideogram"))
IMPORTED = {
    "this provider": PROVIDER,
    "amazon (S3)": "airflow.providers.amazon.aws.operators.s3",
    "http": "airflow.providers.http.operators.http",
    "openai": "airflow.providers.openai.operators.openai",
    "databricks": "airflow.providers.databricks.operators.databricks",
}
_SCRIPT = """
import importlib, json, sys, time
import airflow.sdk
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator, task
before, started = len(sys.modules), time.perf_counter()
for name in sys.argv[1].split():
    importlib.import_module(name)
print(json.dumps([1000 * (time.perf_counter() - started), len(sys.modules) - before]))
"""


def measure() -> dict[str, tuple[float, int]]:
    """Return the median milliseconds and the number of modules of each provider."""
    took: dict[str, list[float]] = {name: [] for name in IMPORTED}
    modules: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for turn in range(ROUNDS + 1):
            for name, module in IMPORTED.items():
                command = [sys.executable, "-c", _SCRIPT, module]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                milliseconds, modules[name] = json.loads(done.stdout.splitlines()[-1])
                if turn:  # the first round writes byte code and fills the cache of the disk
                    took[name].append(milliseconds)
    return {name: (statistics.median(took[name]), modules[name]) for name in IMPORTED}
