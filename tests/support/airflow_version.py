"""
Which Airflow the tests run with, and what it does not have.

Invariant: a test is skipped only where a feature of Airflow that it needs is not there, and its reason says since
when it is.
"""

from __future__ import annotations

import pytest
from airflow import __version__

#: Major and minor version.
AIRFLOW = tuple(int(part) for part in __version__.split(".")[:2])


def needs_airflow(since: str, feature: str) -> pytest.MarkDecorator:
    """
    Mark a test, or with ``pytestmark`` a module, that this Airflow can't run.

    :param since: The first version that has the feature, such as ``3.1``.
    """
    first = tuple(int(part) for part in since.split("."))
    return pytest.mark.skipif(first > AIRFLOW, reason=f"Airflow {__version__} has no {feature}, which came with {since}")
