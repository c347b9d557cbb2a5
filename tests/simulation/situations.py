"""
The situations that simulations are to reach.

Invariant: what the package or the simulation can name is listed from its own definitions, so that a new error or fault
is missed until a simulation has met it.
"""

from __future__ import annotations

from airflow_provider_ideogram.api.polling import Outcome
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.exceptions import IdeogramError
from tests.simulation.faults import RATES
from tests.simulation.submits import Reason


def _errors(kind: type[IdeogramError]) -> list[type[IdeogramError]]:
    return [kind, *(error for child in kind.__subclasses__() for error in _errors(child))]


def expected() -> set[str]:
    """Return the situations that can be named."""
    return {
        *(f"fault: {kind}" for kind in RATES),
        *(f"error: {error.code}" for error in _errors(IdeogramError)),
        *(f"polled: {outcome}" for outcome in Outcome),
        *(f"paid again: {reason}" for reason in Reason),
        *(f"line: {status}" for status in ImageStatus),
        *(f"slice ends: {state}{whose}" for state in ("success", "deferred", "failed") for whose in ("", " unseen")),
        "history: does not show a request yet",
        "killed before submit",
        "killed after submit",
        "killed before PutObject record",
        "killed after PutObject record",
        "killed after PutObject image",
        "killed after DeleteObject record",
    }
