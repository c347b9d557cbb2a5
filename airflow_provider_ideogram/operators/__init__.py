"""The operators. Importing them imports neither HTTP nor S3 code: a running task does."""

from __future__ import annotations

from airflow_provider_ideogram.operators.dataset import IdeogramGenerateDatasetOperator
from airflow_provider_ideogram.operators.image import IdeogramGenerateImageOperator
from airflow_provider_ideogram.operators.review import IdeogramReviewOperator

__all__ = ["IdeogramGenerateDatasetOperator", "IdeogramGenerateImageOperator", "IdeogramReviewOperator"]
