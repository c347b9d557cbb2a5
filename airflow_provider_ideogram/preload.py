"""
What a task imports, for executors whose workers fork: LocalExecutor, and Celery's workers.

Import it in ``airflow_local_settings.py``: each task then finds these modules instead of importing them again.
"""
# ruff: noqa: F401

from __future__ import annotations

import airflow_provider_ideogram.account.account
import airflow_provider_ideogram.datasets.runner
import airflow_provider_ideogram.hooks.download
import airflow_provider_ideogram.hooks.ideogram
import airflow_provider_ideogram.jobs.completion
import airflow_provider_ideogram.jobs.refusal
import airflow_provider_ideogram.jobs.submission
import airflow_provider_ideogram.operators.job
import airflow_provider_ideogram.storage.image_store
import airflow_provider_ideogram.triggers
from airflow_provider_ideogram.hooks.image import readable_formats

readable_formats()  # imports Pillow's modules
