"""
The installed version of Airflow, and the features that it lacks.

Invariant: a test is skipped only if Airflow itself lacks the feature under test, and the reason names the first version
with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import pytest
from airflow import __version__

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # before Airflow 3.2
    from airflow.models.dagbag import DagBag  # type: ignore[no-redef]

__all__ = ["AIRFLOW", "DagBag", "need_airflow", "sdk_httpx"]

#: Major and minor version.
AIRFLOW = tuple(int(part) for part in __version__.split(".")[:2])

if TYPE_CHECKING:
    import httpx as sdk_httpx
else:  # what Airflow's SDK sends its requests with
    sdk_httpx = import_module("httpx2" if AIRFLOW >= (3, 4) else "httpx")


def need_airflow(since: str, feature: str) -> None:
    """
    Skip the test, or in a module or conftest all of its tests, if this Airflow is older.

    :param since: The first version with the feature, such as ``3.1``.
    """
    if tuple(int(part) for part in since.split(".")) > AIRFLOW:
        installed = ".".join(map(str, AIRFLOW))
        pytest.skip(f"Airflow {installed} has no {feature}, which came with {since}", allow_module_level=True)
