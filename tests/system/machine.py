"""The name of the machine that an Airflow process represents: all processes run on one machine."""

from __future__ import annotations

import os

VARIABLE = "SYSTEM_TEST_MACHINE"


def name() -> str:
    """Return the name; Airflow calls this as its `[core] hostname_callable`."""
    return os.environ.get(VARIABLE, "127.0.0.1")
