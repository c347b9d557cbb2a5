"""The sensor. Importing it imports neither HTTP nor S3 code."""

from __future__ import annotations

from airflow_provider_ideogram.sensors.request import IdeogramRequestSensor

__all__ = ["IdeogramRequestSensor"]
