"""The sensor. Importing it costs a DAG file next to nothing."""

from __future__ import annotations

from airflow_provider_ideogram.sensors.request import IdeogramRequestSensor

__all__ = ["IdeogramRequestSensor"]
