"""Links that Airflow's UI shows on a task instance."""

from airflow_provider_ideogram.links.ideogram import IdeogramImageLink, SegmindRequestLink

__all__ = ["IdeogramImageLink", "SegmindRequestLink"]
