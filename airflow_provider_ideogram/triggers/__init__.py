"""The trigger: polls jobs in the triggerer while no worker is held."""

from __future__ import annotations

from airflow_provider_ideogram.triggers.request import IdeogramTrigger

__all__ = ["IdeogramTrigger"]
