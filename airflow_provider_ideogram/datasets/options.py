"""
The arguments of a dataset's run.

Invariant: the values are rendered, and do not change while a slice runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_ideogram.api.parameters import CHECKS

#: The request parameters that are the defaults of the rows.
DEFAULTS = tuple(name for name in CHECKS if name != "prompt")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOptions:
    """
    The operator's arguments; :class:`IdeogramGenerateDatasetOperator` documents them.

    :param defaults: The request parameters of rows that have none of their own.
    :param resubmit: Whether an unknown submit may be followed by another one without a person.
    :param waits_for_budget: Whether the run waits for the end of a budget's window instead of failing.
    """

    prompts: Any
    prompts_path: str | None
    defaults: Mapping[str, Any]
    key_template: str
    prompt_template: str | None
    variants: int | None
    matrix: Mapping[str, Any] | None
    dedupe: bool
    allow_empty: bool
    if_exists: str
    max_in_flight: int
    requests_per_minute: float | None
    max_failures: float
    outputs: Sequence[str]
    gates: Mapping[str, str]
    max_attempts: int
    max_cost_usd: float | None
    price_usd: float | None
    timeout: float
    resubmit: bool
    resubmit_on_5xx: bool
    waits_for_budget: bool
    s3_extra_args: Mapping[str, Any]
    ledger_prefix: str
