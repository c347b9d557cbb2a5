"""
Which Airflow the tests run with, and what it does not have.

Invariant: a test is skipped only where Airflow itself lacks a feature that it is about, and the reason says since when
there is one.
"""

from __future__ import annotations

import pytest
from airflow import __version__

#: Major and minor version.
AIRFLOW = tuple(int(part) for part in __version__.split(".")[:2])


def need_airflow(since: str, feature: str) -> None:
    """
    Skip the test, or in a module or conftest all of its tests, if this Airflow is older.

    :param since: The first version with the feature, such as ``3.1``.
    """
    if tuple(int(part) for part in since.split(".")) > AIRFLOW:
        installed = ".".join(map(str, AIRFLOW))
        pytest.skip(f"Airflow {installed} has no {feature}, which came with {since}", allow_module_level=True)
