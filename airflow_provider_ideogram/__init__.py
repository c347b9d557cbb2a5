"""Apache Airflow provider for text-to-image jobs on Segmind's Ideogram 2a API."""

from __future__ import annotations

__version__ = "0.1.0"
