"""The operators. Importing them costs a DAG file next to nothing: HTTP and S3 are imported by the task that runs."""

from __future__ import annotations

from airflow_provider_ideogram.operators.dataset import IdeogramGenerateDatasetOperator
from airflow_provider_ideogram.operators.image import IdeogramGenerateImageOperator

__all__ = ["IdeogramGenerateDatasetOperator", "IdeogramGenerateImageOperator"]
