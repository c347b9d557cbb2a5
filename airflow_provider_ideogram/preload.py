"""
What a task imports, for executors whose workers fork: LocalExecutor, and Celery's workers.

Import it in ``airflow_local_settings.py``: each task then finds these modules instead of importing them again.
"""

from __future__ import annotations

from airflow_provider_ideogram.hooks.image import readable_formats

readable_formats()  # imports Pillow's modules
