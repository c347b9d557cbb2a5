"""The trigger: it polls requests in the triggerer, so that the task occupies no worker slot while it waits."""

from __future__ import annotations

from airflow_provider_ideogram.triggers.request import IdeogramTrigger

__all__ = ["IdeogramTrigger"]
