"""The name of the machine that an Airflow process stands for: all of them run on one."""

from __future__ import annotations

import os

VARIABLE = "SYSTEM_TEST_MACHINE"


def name() -> str:
    """Return it; Airflow calls this as its `[core] hostname_callable`."""
    return os.environ.get(VARIABLE, "127.0.0.1")
